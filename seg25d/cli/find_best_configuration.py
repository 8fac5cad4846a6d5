"""`seg25d find_best_configuration`: choose by cross-validation what `seg25d predict` uses."""

import argparse

from seg25d.cli.common import Command, find_workspace, options_of, positive_amount, positive_number
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="CONFIG",
        help="configurations or runs to compare (default: all whose folds are trained)",
    )
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        metavar="FOLD",
        help="compare these folds only, on the cases that all configurations have in them (default: all folds)",
    )
    parser.add_argument(
        "--no-ensembles", "--disable_ensembling", action="store_true", help="single configurations only"
    )
    parser.add_argument(
        "--no-postprocessing",
        action="store_true",
        help="leave labels as they are: no thresholds of their own, no components are removed",
    )
    parser.add_argument("--fit-weights", action="store_true", help="try the best ensemble with fitted weights as well")
    parser.add_argument(
        "--max-seconds-per-case",
        type=positive_amount,
        metavar="S",
        help="choose only what predicts the case of middle size within S seconds, on this machine",
    )
    parser.add_argument(
        "--max-parameters",
        type=positive_number,
        metavar="N",
        help="choose only what has at most N parameters, in all folds and configurations together",
    )


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    with loading():
        from seg25d import api
        from seg25d.data.dataset import read_description

    without = {"ensembles": not arguments.no_ensembles, "postprocessing": not arguments.no_postprocessing}
    options = options_of(api.FindOptions, arguments, **without)
    workspace = find_workspace(arguments)
    best = api.find_best_configuration(workspace, arguments.dataset, arguments.configurations, arguments.folds, options)
    description = read_description(workspace.preprocessed_dataset(best.dataset_name).dataset)
    print(api.describe_best(best, description.labels))


main = Command(
    name="find_best_configuration",
    summary="Choose the best configuration or ensemble by cross-validation.",
    add_arguments=add_arguments,
    run=run,
)
