"""`seg25d info`: what is in the workspace."""

import argparse

from seg25d.cli.common import Command, find_workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", nargs="?", metavar="ID", help="data set: 1, 001 or Dataset001_Name (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    from seg25d.information import describe_device, gather_information, to_text

    information = gather_information(find_workspace(arguments), arguments.dataset)
    if arguments.json:
        print(information.model_copy(update={"device": describe_device()}).model_dump_json(indent=2))
        return
    # The device takes seconds to find, as torch is loaded for it.
    print(to_text(information), flush=True)
    print(f"{'device:':14}{describe_device()}")


main = Command(
    name="info",
    summary="List data sets, plans, trained folds with their scores, versions and the device.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device", "num_processes"),
)
