"""`seg25d predict`: segment images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seg25d.cli.argument_types import natural_number, plans_name, positive_number, share
from seg25d.cli.common import Command, find_workspace, options_of
from seg25d.cli.nnunet_parsing import own_checkpoint, run_names
from seg25d.cli.slurm_argument import add_slurm_argument, slurm_options
from seg25d.core.errors import InputError
from seg25d.core.parallel import start_worker_server
from seg25d.core.process import loading
from seg25d.orchestration.engine_names import ENGINE_NAMES, PROCESSES_LOAD
from seg25d.representations import ALIAS
from seg25d.representations import PLACES as CONFIGURATIONS

if TYPE_CHECKING:
    from seg25d.workflows.options import PredictionOptions

READER_LOADS = ("SimpleITK", "seg25d.data.image_io")
"""Modules of the process that reads the images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="IN",
        help="folder of images, one image, or a folder of DICOM files",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the segmentations")
    parser.add_argument(
        "-d", "--dataset", metavar="ID", help="data set that the model was trained on (default: the only one)"
    )
    parser.add_argument(
        "-c",
        "--configuration",
        metavar="CONFIG",
        help=f"one of {', '.join((ALIAS, *CONFIGURATIONS))}, or the name of a run, such as axial__fine (default: what "
        "find_best_configuration chose)",
    )
    parser.add_argument(
        "-p", "--plans-name", type=plans_name, metavar="NAME", help="name of the plans that the model was trained with"
    )
    parser.add_argument("--recipe", metavar="R", help="recipe that the model was trained with")
    parser.add_argument(
        "-f", "--folds", nargs="+", metavar="FOLD", help="folds to average (default: all that are trained)"
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="DIR_OR_ZIP",
        help="folder of a trained configuration, or an archive of export_model (-c chooses one of several), wherever "
        "it is; FILE.onnx.zip needs no torch",
    )
    parser.add_argument(
        "--save-probabilities",
        action="store_true",
        help="write CASE.npz beside the segmentation",
    )
    parser.add_argument(
        "--dicom-seg",
        choices=("binary", "labelmap", "none"),
        help="DICOM series: kind of the DICOM segmentation CASE.dcm that is written, too (default: binary, which all "
        "readers know; needs pip install 'seg25d[dicom]')",
    )
    parser.add_argument("--disable-tta", action="store_true", help="no mirroring: faster, a little worse")
    parser.add_argument(
        "--step-size",
        type=share,
        default=0.5,
        metavar="S",
        help="largest step between windows as a share of the window (default: 0.5); stacks have a step of their own "
        "along their axis",
    )
    parser.add_argument(
        "--fusion",
        choices=("network", "mean", "majority", "staple", "nlstaple"),
        default="network",
        help="models that fuse views: fuse them by their network, or without training (default: network)",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="also say how sure it is: maps in OUT/uncertainty, and the predicted Dice of every structure in "
        "prediction.json; cases to look at are listed",
    )
    parser.add_argument(
        "--statistics",
        type=Path,
        metavar="FILE",
        help="also write a table with volume, surface, components and intensities of every structure that is predicted",
    )
    parser.add_argument("--overwrite", action="store_true", help="predict cases again that are already there")
    _add_sharing(parser)


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    """Declare how several processes share the cases."""
    parser.add_argument(
        "--on",
        choices=ENGINE_NAMES,
        help="predict a cohort by several processes, each of which takes a part of the cases: on this machine, on the "
        "Ray cluster that there is (else one of this machine), or by SLURM; the cases of a lost one are taken over. "
        "Images, models and OUT have to be in folders that all of its machines see",
    )
    parser.add_argument(
        "--tasks",
        dest="num_tasks",
        type=positive_number,
        metavar="N",
        help="with --on: parts at a time (default: one per GPU, or one on CPUs; on a cluster what it has room for)",
    )
    add_slurm_argument(parser)
    parser.add_argument(
        "--num-parts",
        type=positive_number,
        metavar="N",
        help="number of calls that share the cases (default: 1); with --on, of the parts that it makes (default: 4 for "
        "each that runs at a time, of 5 cases or more)",
    )
    parser.add_argument(
        "--part-id", type=natural_number, metavar="I", help="which of these calls this one is, from 0 on (default: 0)"
    )


def _check_sharing(arguments: argparse.Namespace) -> None:
    """Make sure that options for several processes fit together.

    Raises:
        InputError: If they do not.
    """
    if arguments.on is None:
        if arguments.num_tasks is not None:
            raise InputError("--tasks N says how many parts --on runs at a time: name what runs them, as --on local")
        return
    if arguments.part_id is not None:
        raise InputError(
            f"--part-id names a part of a call of your own, and --on {arguments.on} makes all parts: drop one"
        )
    if arguments.num_parts == 1:
        raise InputError(f"--on {arguments.on} --num-parts: expected 2 or more parts, got 1; without --on it is one")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.prev_stage_predictions is not None:
        raise InputError(
            "-prev_stage_predictions: there are no cascades of nnU-Net's kind here; models that were trained with "
            "--set fine=true predict both of their stages by themselves: leave the option out"
        )
    _check_sharing(arguments)
    slurm = slurm_options(arguments)
    named, trained = ([each] if each else None for each in (arguments.configuration, arguments.trainer))
    runs = run_names(named, trained)
    start_worker_server(READER_LOADS if arguments.on is None else PROCESSES_LOAD)
    places = find_workspace(arguments), arguments.input, arguments.output
    configuration = None if runs is None else runs[0]
    with loading():
        from seg25d.sharing.choice import is_portable

    if arguments.on is None and is_portable(arguments.model):  # then torch, which may not be installed, is not loaded
        with loading():
            from seg25d.prediction.predict import predict_images

        predict_images(*places, _prediction(arguments, configuration))
        return
    with loading():
        from seg25d import api

    prediction = _prediction(arguments, configuration)
    cohort = options_of(api.CohortOptions, arguments, prediction=prediction, slurm=slurm) if arguments.on else None
    api.predict(*places, cohort or prediction)


def _prediction(arguments: argparse.Namespace, configuration: str | None) -> "PredictionOptions":
    from seg25d.workflows.options import PredictionOptions

    of_cohort = {"num_parts": 1} if arguments.on else {}
    return options_of(
        PredictionOptions,
        arguments,
        configuration=configuration,
        checkpoint=own_checkpoint(arguments.checkpoint),
        mirroring=not arguments.disable_tta,
        **of_cohort,
    )


main = Command(
    name="predict",
    summary="Segment images with the best model that was found, or a trained configuration.",
    add_arguments=add_arguments,
    run=run,
    # Cases are read and written by threads while one is computed.
    ignored=("num_processes",),
)
