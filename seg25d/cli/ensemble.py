"""`seg25d ensemble`: fuse folders of predictions."""

import argparse
from pathlib import Path

from seg25d.cli.argument_types import natural_number, weight
from seg25d.cli.common import Command, options_of
from seg25d.core.process import loading

METHODS = ("mean", "majority", "staple", "nlstaple")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-i", "--input", nargs="+", type=Path, required=True, metavar="DIR", help="folders of predictions, two or more"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the segmentations")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="mean",
        help="mean of probabilities (default; needs predictions with --save-probabilities), majority of labels, "
        "STAPLE, or non-local STAPLE, which also uses the images",
    )
    parser.add_argument("--weights", nargs="+", type=weight, metavar="W", help="mean, majority: one weight per folder")
    parser.add_argument(
        "--fit-weights",
        type=Path,
        metavar="REFERENCE_DIR",
        help="mean: fit the weights on the cases with a true segmentation in this folder",
    )
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="mean: dataset.json with the meaning of the probabilities, if the folders do not contain it",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="nlstaple: folder of the segmented images")
    parser.add_argument(
        "--channel", type=natural_number, metavar="N", help="nlstaple: channel of the images (default: 0)"
    )
    parser.add_argument(
        "--save-probabilities",
        action="store_true",
        help="mean: also write CASE.npz with the probabilities",
    )
    parser.add_argument("--overwrite", action="store_true", help="fuse existing cases again")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d.ensembling.ensemble import ensemble_folders
        from seg25d.ensembling.options import EnsembleOptions

    ensemble_folders(arguments.input, arguments.output, options_of(EnsembleOptions, arguments))


main = Command(
    name="ensemble",
    summary="Fuse the predictions of several models.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
