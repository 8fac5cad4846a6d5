"""`seg25d convert`: import data and results of other programs."""

import argparse
from dataclasses import fields
from pathlib import Path

from seg25d.cli.argument_types import labelled_slices
from seg25d.cli.common import Command, find_workspace, say
from seg25d.core.errors import InputError
from seg25d.core.process import loading
from seg25d.data.dicom_options import DicomOptions

KINDS = ("msd", "nnunet-results", "dicom", "slices")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--from",
        dest="kind",
        choices=KINDS,
        required=True,
        help="msd: a folder TaskNN_Name of the Medical Segmentation Decathlon becomes a data set of the workspace. "
        "nnunet-results: the cross-validation in nnUNet_results/DATASET/TRAINER__PLANS__CONFIG becomes a candidate "
        "for ensembles. dicom: folders of DICOM files become CASE_0000.nii.gz. slices: a copy of a data set "
        "DatasetNNN_Name, whose images stay where they are, in which slices that nobody has labelled are ignored",
    )
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="FOLDER", help="folder to convert")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="dicom: folder for the files")
    parser.add_argument(
        "-d",
        "--dataset",
        metavar="ID",
        help="msd: number of the new data set (default: that of the task). slices: number of the new data set. "
        "nnunet-results: data set of the workspace",
    )
    parser.add_argument(
        "--slices-labelled",
        type=labelled_slices,
        metavar="AXIS[:N]",
        help="slices: which ones are labelled, along axial, coronal or sagittal: those that show a structure, or every "
        "N-th from the first of these on, such as axial:5",
    )
    group = parser.add_argument_group("dicom", "what is accepted of series that are no regular volume")
    group.add_argument(
        "--split-phases", action="store_true", help="make a case of each phase: CASE_phase1, CASE_phase2 ..."
    )
    group.add_argument(
        "--resample-tilt", action="store_true", help="shift slices within their planes where the gantry was tilted"
    )
    group.add_argument(
        "--accept-gaps",
        action="store_true",
        help="interpolate between slices where some are missing or they lie at unequal distances",
    )
    group.add_argument("--suv", action="store_true", help="PET: standardised uptake values by body weight")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from seg25d.core.names import is_number

    kind, source, dataset, processes = arguments.kind, arguments.input, arguments.dataset, arguments.num_processes
    slices = arguments.slices_labelled
    _check_option(kind, "-o", arguments.output, needed=kind == "dicom", allowed=kind == "dicom")
    _check_option(kind, "-d", dataset, needed=kind in ("nnunet-results", "slices"), allowed=kind != "dicom")
    _check_option(kind, "--slices-labelled", slices, needed=kind == "slices", allowed=kind == "slices")
    accepted = {field.name: getattr(arguments, field.name) for field in fields(DicomOptions)}
    for name, is_wanted in accepted.items():
        _check_option(kind, f"--{name.replace('_', '-')}", is_wanted or None, needed=False, allowed=kind == "dicom")
    if kind in ("msd", "slices") and dataset is not None and not is_number(dataset):
        raise InputError(f"-d: expected the number of the new data set, got {dataset!r}")
    with loading():
        from seg25d import api

    if kind == "msd":
        number = None if dataset is None else int(dataset)
        say(api.convert_msd(find_workspace(arguments), source, number, processes))
    elif kind == "slices":
        axis, every = slices
        say(api.convert_slices(find_workspace(arguments), source, int(dataset), axis, every, processes))
    elif kind == "dicom":
        options = DicomOptions(**accepted)
        say("\n".join(map(str, api.convert_dicom(source, arguments.output, processes, options))))
    else:
        say(api.convert_nnunet_results(find_workspace(arguments), source, dataset, processes))


def _check_option(kind: str, option: str, value: object, *, needed: bool, allowed: bool) -> None:
    if value is None and needed:
        raise InputError(f"--from {kind} needs {option}")
    if value is not None and not allowed:
        raise InputError(f"--from {kind} does not accept {option}; leave it out")


main = Command(
    name="convert",
    summary="Make a data set of a Decathlon task or of one with few labelled slices, files of DICOM folders, or a "
    "candidate of nnU-Net's results.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device",),
)
