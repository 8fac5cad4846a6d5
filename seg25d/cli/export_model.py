"""`seg25d export_model`: write trained models to one zip file."""

import argparse
from pathlib import Path
from typing import get_args

from seg25d.cli.argument_types import plans_name
from seg25d.cli.common import Command, find_workspace, options_of
from seg25d.cli.nnunet_parsing import own_checkpoint, run_names
from seg25d.core.errors import InputError
from seg25d.core.process import loading
from seg25d.planning.model_formats import ModelFormat, StoredWeights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", nargs="?", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE.zip",
        help="the archive to write, or with --format web the folder",
    )
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
    parser.add_argument(
        "--format",
        choices=get_args(ModelFormat),
        help="safetensors: for this program (default); onnx: graphs that predict where torch is not installed (pip "
        "install 'seg25d[onnx]'); web: a folder with a page that segments in a browser",
    )
    parser.add_argument(
        "--weights",
        choices=get_args(StoredWeights),
        help="--format onnx or web: how weights are stored (default: float32); arithmetic is float32 always",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing FILE.zip, or a folder of --format web"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api

    if (arguments.dataset is None) == (arguments.dataset_option is None):
        raise InputError("expected the data set once, as the first word or with -d")
    if arguments.crossval_predictions:
        raise InputError(
            "--exp_cv_preds: an archive holds models; `seg25d accumulate_crossval_results ID -c CONFIG -o FOLDER` "
            "collects the predictions of the validation cases"
        )
    if others := [name for name in arguments.checkpoints or () if own_checkpoint(name) != "final"]:
        raise InputError(f"-chk: expected checkpoint_final.pth, got {others[0]}: archives hold the final models")
    trainers = None if arguments.trainer is None else [arguments.trainer]
    runs = run_names(arguments.configurations, trainers)
    options = options_of(api.ExportOptions, arguments, configurations=runs)
    dataset = arguments.dataset or arguments.dataset_option
    api.export_model(find_workspace(arguments), dataset, arguments.output, options)


main = Command(
    name="export_model",
    summary="Write trained models, with everything that prediction needs, to one zip file or to a folder for browsers.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device", "num_processes"),
)
