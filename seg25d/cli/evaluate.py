"""`seg25d evaluate`: compare a folder of segmentations with the truth."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("reference", type=Path, metavar="REFERENCE_DIR", help="folder of true segmentations")
    parser.add_argument("prediction", type=Path, metavar="PREDICTION_DIR", help="folder of predicted segmentations")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="summary as JSON (default: summary.json in PREDICTION_DIR)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a line per case and label as well")


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    from seg25d import pipeline
    from seg25d.evaluation.tables import summary_table

    summary = pipeline.evaluate(
        arguments.reference,
        arguments.prediction,
        output=arguments.output,
        csv=arguments.csv,
        num_processes=arguments.num_processes,
    )
    print(summary_table(summary))


main = Command(
    name="evaluate",
    summary="Compare a folder of segmentations with the truth.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
