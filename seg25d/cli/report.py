"""`seg25d report`: one HTML file that shows what was planned, trained and found."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html with the results)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    with loading():
        from seg25d import api

    path = api.report(
        find_workspace(arguments), arguments.dataset, arguments.output, num_processes=arguments.num_processes
    )
    print(path)


main = Command(
    name="report",
    summary="One HTML file that shows what was planned, trained and found, with a 3D viewer.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
