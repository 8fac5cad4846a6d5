"""`seg25d info`: list the content of the workspace."""

import argparse

from seg25d.cli.common import Command, find_workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", nargs="?", metavar="ID", help="data set: 1, 001 or Dataset001_Name (default: all)")
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

    information = gather_information(find_workspace(arguments), arguments.dataset)
    if arguments.json:
        print(information.model_copy(update={"device": describe_device()}).model_dump_json(indent=2))
        return
    # Finding the device takes seconds, as torch has to be loaded.
    print(to_text(information), flush=True)
    print(f"{'device:':14}{describe_device()}")


def _check_machine(arguments: argparse.Namespace) -> None:
    from seg25d.core.errors import Seg25dError
    from seg25d.machine.self_test import run_self_test, to_text

    test = run_self_test(arguments.device)
    print(test.model_dump_json(indent=2) if arguments.json else to_text(test))
    if not test.safe:
        raise Seg25dError(f"this machine computes wrong results in {test.precision}: {test.advice}")


main = Command(
    name="info",
    summary="List data sets, plans, trained folds with their scores, versions and the device; or test this machine.",
    add_arguments=add_arguments,
    run=run,
    ignored=("num_processes",),
)
