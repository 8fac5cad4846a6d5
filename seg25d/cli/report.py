"""`seg25d report`: write one HTML file with plans, trainings and results."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, say
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the HTML file (default: report.html in the results)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api

    path = api.report(
        find_workspace(arguments), arguments.dataset, arguments.output, num_processes=arguments.num_processes
    )
    say(path)


main = Command(
    name="report",
    summary="Write one HTML file with plans, trainings and results, and a 3D viewer.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
