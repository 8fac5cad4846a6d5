"""`seg25d find_best_configuration`: choose the model of `seg25d predict` by cross-validation."""

import argparse

from seg25d.cli.argument_types import positive_amount, positive_number
from seg25d.cli.common import Command, find_workspace, options_of, say
from seg25d.cli.nnunet_parsing import run_names
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
        help="compare only these folds, on the validation cases that all configurations have (default: all folds)",
    )
    parser.add_argument(
        "--no-ensembles",
        action="store_true",
        help="compare only single configurations; fewer than 6 cases choose no ensemble anyway",
    )
    parser.add_argument(
        "--no-postprocessing",
        action="store_true",
        help="do not fit post-processing (thresholds, removal of components); fewer than 6 cases fit none anyway",
    )
    parser.add_argument("--fit-weights", action="store_true", help="also try the best ensemble with fitted weights")
    parser.add_argument(
        "--max-seconds-per-case",
        type=positive_amount,
        metavar="S",
        help="choose only among candidates that predict the case of median size within S seconds on this machine",
    )
    parser.add_argument(
        "--max-parameters",
        type=positive_number,
        metavar="N",
        help="choose only among candidates with at most N parameters in all folds and configurations together",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api
        from seg25d.data.dataset import read_description

    without = {"ensembles": not arguments.no_ensembles, "postprocessing": not arguments.no_postprocessing}
    options = options_of(api.FindOptions, arguments, **without)
    workspace = find_workspace(arguments)
    runs = run_names(arguments.configurations, arguments.trainers, arguments.plans_names)
    best = api.find_best_configuration(workspace, arguments.dataset, runs, arguments.folds, options)
    description = read_description(workspace.preprocessed_dataset(best.dataset_name).dataset)
    say(api.describe_best(best, description.labels))


main = Command(
    name="find_best_configuration",
    summary="Choose the best configuration or ensemble by cross-validation.",
    add_arguments=add_arguments,
    run=run,
)
