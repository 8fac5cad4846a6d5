"""`seg25d evaluate`: compare a folder of segmentations with the truth."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seg25d.cli.argument_types import positive_amount
from seg25d.cli.common import Command, say
from seg25d.core.process import loading

if TYPE_CHECKING:
    from seg25d.data.labels import Labels
    from seg25d.evaluation.pairs import LabelValues


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
    parser.add_argument(
        "--format",
        choices=("seg25d", "nnunet"),
        default="seg25d",
        help="keys of the summary: ours (default), or nnU-Net's: foreground_mean.Dice, metric_per_case",
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
        from seg25d.evaluation.evaluate import evaluate
    from seg25d.core.errors import InputError
    from seg25d.data.labels import Labels
    from seg25d.evaluation.area_plot import AreaPlotOptions
    from seg25d.evaluation.pairs import find_labels
    from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM
    from seg25d.evaluation.tables import summary_table
    from seg25d.inference.prediction_files import labels_of_predictions

    if arguments.area_axis and arguments.area_plots is None:
        raise InputError("--area-axis needs --area-plots; give --area-plots DIR as well")
    folder, tolerance_mm = arguments.area_plots, arguments.surface_tolerance_mm
    labels = _labels(arguments)
    summary = evaluate(
        arguments.reference,
        arguments.prediction,
        output=arguments.output,
        csv=arguments.csv,
        num_processes=arguments.num_processes,
        surface_tolerance_mm=SURFACE_TOLERANCE_MM if tolerance_mm is None else tolerance_mm,
        common=arguments.common,
        areas=None if folder is None else AreaPlotOptions(folder, arguments.area_axis),
        labels=labels,
        nnunet_keys=arguments.format == "nnunet",
    )
    # Names of the evaluation's labels, or else of those in the predictions' record.
    known = labels or find_labels(arguments.reference, arguments.prediction)
    known = known or labels_of_predictions(arguments.prediction)
    say(summary_table(summary, known if isinstance(known, Labels) else None))


def _labels(arguments: argparse.Namespace) -> "Labels | LabelValues | None":
    """The labels that nnU-Net's options name."""
    from seg25d.core.errors import InputError
    from seg25d.data.description import read_description
    from seg25d.evaluation.pairs import LabelValues

    values, ignored, file = arguments.label_values, arguments.ignored_value, arguments.dataset_json
    if values is None and ignored is not None:
        raise InputError("-il needs -l: name the values to score as well")
    if values is None:
        return None if file is None else read_description(Path(file)).labels
    if file is not None:
        raise InputError("-l and -djfile both say which labels count: give one of them")
    if wrong := [value for value in values if value in (0, ignored)]:
        raise InputError(f"-l: expected values of objects, got {wrong[0]}, which is background or ignored (-il)")
    return LabelValues(tuple(dict.fromkeys(values)), ignored)


main = Command(
    name="evaluate",
    summary="Compare a folder of segmentations with the truth.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
