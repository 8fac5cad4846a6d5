"""`seg25d evaluate`: compare a folder of segmentations with the truth."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, positive_amount, say
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("reference", type=Path, metavar="REFERENCE_DIR", help="folder of true segmentations")
    parser.add_argument("prediction", type=Path, metavar="PREDICTION_DIR", help="folder of predicted segmentations")
    parser.add_argument(
        "--common",
        action="store_true",
        help="score the cases that both folders have, and say how many each has alone (default: a reference without "
        "a prediction is an error)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="summary as JSON (default: summary.json in PREDICTION_DIR)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table with one row per case and label")
    parser.add_argument(
        "--surface-tolerance-mm",
        type=positive_amount,
        metavar="MM",
        help="tolerated distance between surfaces in surface_dice (default: 3)",
    )
    parser.add_argument(
        "--area-plots",
        type=Path,
        metavar="DIR",
        help="write CASE.png with the foreground's area in each slice, and the numbers as area_plots.json and .csv",
    )
    parser.add_argument(
        "--area-axis",
        choices=("axial", "coronal", "sagittal"),
        help="direction of the slices of --area-plots (default: that of the largest spacing, or axial)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api
    from seg25d.core.errors import InputError
    from seg25d.evaluation.area_plot import AreaPlotOptions
    from seg25d.evaluation.pairs import find_labels
    from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM
    from seg25d.evaluation.tables import summary_table
    from seg25d.inference.prediction_files import labels_of_predictions

    if arguments.area_axis and arguments.area_plots is None:
        raise InputError("--area-axis needs --area-plots; give --area-plots DIR as well")
    folder, tolerance_mm = arguments.area_plots, arguments.surface_tolerance_mm
    summary = api.evaluate(
        arguments.reference,
        arguments.prediction,
        output=arguments.output,
        csv=arguments.csv,
        num_processes=arguments.num_processes,
        surface_tolerance_mm=SURFACE_TOLERANCE_MM if tolerance_mm is None else tolerance_mm,
        common=arguments.common,
        areas=None if folder is None else AreaPlotOptions(folder, arguments.area_axis),
    )
    # Names of the evaluation's labels, or else of those in the predictions' record.
    labels = find_labels(arguments.reference, arguments.prediction)
    say(summary_table(summary, labels or labels_of_predictions(arguments.prediction)))


main = Command(
    name="evaluate",
    summary="Compare a folder of segmentations with the truth.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
