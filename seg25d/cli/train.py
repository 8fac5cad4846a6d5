"""`seg25d train`: train folds of a configuration; a run that was cut off goes on where it stopped."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, options_of
from seg25d.cli.training_arguments import add_training_arguments, configuration_help
from seg25d.core.errors import InputError
from seg25d.core.process import loading
from seg25d.training.usual_lengths import EPOCHS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument("configuration", metavar="CONFIG", help=configuration_help())
    parser.add_argument(
        "folds",
        nargs="+",
        metavar="FOLD",
        help="numbers of folds; `cv`: all folds in turn; `all`: one model on all cases",
    )
    parser.add_argument(
        "--pretrained",
        type=Path,
        metavar="FILE",
        help="begin with the weights of this file: of `seg25d pretrain`, or a model of this or another data set",
    )
    parser.add_argument(
        "--fusion-data",
        choices=("cross", "holdout"),
        help="fusion of views: what its network learns from, the same as --set fusion.data=...: predictions of all "
        "training cases by models that did not see them (cross, the default), or of a part that the views go without",
    )
    parser.add_argument(
        "--part",
        metavar="RUN/MODELS",
        help="fusion of views: train only this model that it needs, such as axial/pair_0_1; several commands can so "
        "train them on several machines, before the one without --part",
    )
    parser.add_argument(
        "--keep-probabilities",
        action="store_true",
        help="keep the probabilities of the validation cases for find_best_configuration, which need not predict them "
        "again then",
    )
    parser.add_argument(
        "--quick-scores",
        action="store_true",
        help="score the validation cases without mirroring, in validation_quick/, which takes a fourth of the time "
        "where two axes are mirrored, an eighth with three: for comparisons on the way (seg25d run --time-budget); the "
        "same command without it scores as usual",
    )
    add_training_arguments(parser, EPOCHS)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api

    if arguments.fusion_data is not None:
        arguments.settings.append(("fusion.data", arguments.fusion_data))
    if arguments.num_gpus not in (None, 1):
        words = f"train {arguments.dataset} {arguments.configuration} {' '.join(arguments.folds)}"
        raise InputError(
            f"-num_gpus: expected 1, got {arguments.num_gpus}; a process per GPU trains one fold: `torchrun "
            f"--nproc-per-node {arguments.num_gpus} -m seg25d {words}`; folds at the same time, each on its GPU, "
            "are faster: CUDA_VISIBLE_DEVICES=0 and so on, or --device cuda:0"
        )
    validation = options_of(api.ValidationOptions, arguments)
    if validation.quick_scores and (validation.wants_more or validation.keep_probabilities):
        raise InputError(
            "--quick-scores: expected none of --val, --val_best, --npz and --keep-probabilities beside it, which are "
            "about the usual scores"
        )
    options = options_of(api.TrainingOptions, arguments, settings=dict(arguments.settings), validation=validation)
    api.train(find_workspace(arguments), arguments.dataset, arguments.configuration, arguments.folds, options)


main = Command(
    name="train",
    summary="Train folds of a configuration; a run that was cut off goes on where it stopped.",
    add_arguments=add_arguments,
    run=run,
)
