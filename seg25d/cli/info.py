"""`seg25d info`: list the content of the workspace."""

import argparse
from typing import TYPE_CHECKING

from seg25d.cli.common import Command, find_workspace, say

if TYPE_CHECKING:
    from seg25d.core.workspace import Workspace
    from seg25d.runs.information import DatasetInformation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "dataset",
        nargs="?",
        metavar="ID",
        help="data set: 1, 001 or Dataset001_Name, also with the times of its trainings on this machine (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--check",
        action="store_true",
        help="test this machine for a minute: whether layers and networks compute correctly, and which precision is "
        "fastest; trainings then use that one. Status 1 if results are wrong in the precision that is left",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.check:
        _check_machine(arguments)
        return
    from seg25d.runs.information import describe_device, gather_information, to_text

    workspace = find_workspace(arguments)
    information = gather_information(workspace, arguments.dataset)
    if arguments.json:
        datasets = [_with_times(arguments, workspace, each) for each in information.datasets]
        known = {"device": describe_device(), "datasets": tuple(datasets)}
        say(information.model_copy(update=known).model_dump_json(indent=2))
        return
    # Finding the device takes seconds, as torch has to be loaded.
    say(to_text(information))
    if arguments.dataset is None and any(dataset.plans for dataset in information.datasets):
        say(f"{'training:':14}`seg25d info ID` tells how long the trainings of a data set take on this machine")
    say(f"{'device:':14}{describe_device()}")
    for each in information.datasets:
        _print_times(arguments, _with_times(arguments, workspace, each))


def _with_times(
    arguments: argparse.Namespace, workspace: "Workspace", dataset: "DatasetInformation"
) -> "DatasetInformation":
    """A data set and how long its trainings take: timed if it is the one that is asked for, else if that is known."""
    if not dataset.plans:
        return dataset
    from seg25d import api

    where = (arguments.device, arguments.num_processes)
    times = api.training_times(workspace, dataset.name, *where, only_known=arguments.dataset is None)
    return dataset.model_copy(update={"trainings": {file: each for file, each in times.items() if each}})


def _print_times(arguments: argparse.Namespace, dataset: "DatasetInformation") -> None:
    if not dataset.trainings:
        return
    from seg25d import api

    for file, times in dataset.trainings.items():
        say(f"\n{dataset.name}, {file}\n{api.describe_times(times, arguments.device)}")


def _check_machine(arguments: argparse.Namespace) -> None:
    from seg25d.core.errors import Seg25dError
    from seg25d.machine.self_test import run_self_test, to_text

    test = run_self_test(arguments.device)
    say(test.model_dump_json(indent=2) if arguments.json else to_text(test))
    if not test.safe:
        raise Seg25dError(f"this machine computes wrong results in {test.precision}: {test.advice}")


main = Command(
    name="info",
    summary="List data sets, plans, trained folds with their scores, versions and the device; or test this machine.",
    add_arguments=add_arguments,
    run=run,
)
