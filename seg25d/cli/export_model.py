"""`seg25d export_model`: write trained models to one zip file."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, options_of, plans_name
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.zip", help="the archive to write")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="CONFIG",
        help="configurations (default: those of best.json, or else the only one that is trained)",
    )
    parser.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD", help="folds of these configurations (default: all that are trained)"
    )
    parser.add_argument(
        "-p",
        "--plans-name",
        type=plans_name,
        metavar="NAME",
        help="name of the plans that the models were trained with",
    )
    parser.add_argument("--recipe", metavar="R", help="recipe that the models were trained with")
    parser.add_argument(
        "--licence-file",
        "--license-file",
        type=Path,
        metavar="FILE",
        help="text file with the licence of the models, to include in the archive",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE.zip")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api

    options = options_of(api.ExportOptions, arguments)
    api.export_model(find_workspace(arguments), arguments.dataset, arguments.output, options)


main = Command(
    name="export_model",
    summary="Write trained models, with everything that prediction needs, to one zip file.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device", "num_processes"),
)
