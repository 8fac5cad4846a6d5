"""`seg25d pretrain`: pretrain the network of a configuration on images without labels."""

import argparse
import shlex
from pathlib import Path

from seg25d.cli.argument_types import natural_number
from seg25d.cli.common import Command, find_workspace, options_of, say
from seg25d.cli.training_arguments import add_training_arguments, configuration_help
from seg25d.core.process import loading
from seg25d.training.usual_lengths import PRETRAINING_EPOCHS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument("configuration", metavar="CONFIG", help=configuration_help())
    parser.add_argument(
        "--task",
        choices=("inpainting", "jigsaw"),
        required=True,
        help="pretext task: to fill in hidden pieces, or to restore the order of exchanged ones",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of further images, named as for prediction; no labels are needed",
    )
    parser.add_argument(
        "--without-fold",
        type=natural_number,
        metavar="K",
        help="leave out the validation images of fold K, so that the scores of fold K are of images that the network "
        "has never seen (default: all images count, as no labels are used)",
    )
    add_training_arguments(parser, PRETRAINING_EPOCHS)
    parser.add_argument("--c", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api
    from seg25d.training.processes import is_first_process

    options = options_of(api.PretrainingOptions, arguments, settings=dict(arguments.settings))
    path = api.pretrain(find_workspace(arguments), arguments.dataset, arguments.configuration, options)
    words = ["seg25d", "train", arguments.dataset, arguments.configuration]
    words += ["FOLD" if arguments.without_fold is None else str(arguments.without_fold), "--pretrained", str(path)]
    words += [] if arguments.network is None else ["--network", arguments.network]
    words += [] if arguments.recipe == "default" else ["--recipe", arguments.recipe]
    words += [] if arguments.plans_name == "plans" else ["--plans-name", arguments.plans_name]
    words += [] if arguments.workspace is None else ["--workspace", str(arguments.workspace)]
    if is_first_process():
        say(shlex.join(words))


main = Command(
    name="pretrain",
    summary="Pretrain the network of a configuration on images without labels.",
    add_arguments=add_arguments,
    run=run,
)
