"""`seg25d statistics`: sizes and intensities of the structures of finished segmentations."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "images", type=Path, metavar="IMAGE_DIR", help="folder of images, named as for predict, or of DICOM files"
    )
    parser.add_argument(
        "segmentations", type=Path, metavar="SEGMENTATION_DIR", help="folder of their segmentations, CASE.nii.gz"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="table (default: statistics.csv in SEGMENTATION_DIR)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d.workflows.measuring import measure_structures

    measure_structures(arguments.images, arguments.segmentations, arguments.output, arguments.num_processes)


main = Command(
    name="statistics",
    summary="Measure the structures of finished segmentations: volumes, surfaces, components, intensities.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
