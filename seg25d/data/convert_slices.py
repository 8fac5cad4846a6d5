"""A data set of which only some slices count as labelled, from one whose other slices look like background.

Who labels every fifth slice often leaves the others empty, and they would be learnt as background. The new data set has
label files of its own, with the `ignore` label in these slices, and takes the images from where they are.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, write_json
from seg25d.core.locks import folder_lock
from seg25d.core.parallel import map_cases
from seg25d.core.progress import track
from seg25d.core.records import digest, write_record
from seg25d.core.workspace import DATASET_NAME, Workspace
from seg25d.data.cases import Case
from seg25d.data.conversion import RECORD_NAME, Conversion, has_begun, source_digest
from seg25d.data.dataset import Dataset, read_dataset
from seg25d.data.description import read_object
from seg25d.data.labelled_slices import hide_unlabelled
from seg25d.data.labels import Labels
from seg25d.data.sizes import choose_workers
from seg25d.data.splits import NNUNET_NAME, OWN_NAME
from seg25d.data.verify import raise_problems, verify_dataset

logger = logging.getLogger(__name__)
KEPT = ("patients.json", OWN_NAME, NNUNET_NAME)
"""Files beside dataset.json that name cases: they hold for the same cases with other labels."""
_BYTES_PER_VOXEL = 8
"""Peak memory of a worker: labels as in the file (up to 4), in canonical order, as indices, and hidden."""


def convert_slices(
    workspace: Workspace,
    source: Path,
    number: int,
    axis: int,
    every: int | None = None,
    num_processes: int | None = None,
) -> Path:
    """Make a data set of another one in which only some slices are labelled, and the others have the `ignore` label.

    Its `dataset.json`, written last, names the images of the other one. An earlier call that was cut off is resumed.

    Args:
        workspace: The workspace of the new data set.
        source: The folder `DatasetNNN_Name` of the other one.
        number: Number of the new one.
        axis: Along which slices are taken: 0 D (axial), 1 H (coronal), 2 W (sagittal).
        every: One slice in so many is labelled, counted from the first that shows a structure; None: those that do.
        num_processes: Worker processes; None chooses.

    Returns:
        The folder of the new data set.

    Raises:
        InputError: If the data set has an `ignore` label, anything is wrong with it (lists all of it), or the number
            is taken; nothing is written then.
        BusyError: If another process converts it.
    """
    dataset = read_dataset(source)
    known = dataset.description.labels
    if known.ignore_value is not None:
        raise InputError(f"{source} has an `ignore` label: give it to the slices that nobody has labelled yourself")
    marked = Labels.model_validate(known.model_dump() | {"names": {**known.names, "ignore": known.values[-1] + 1}})
    files = {case.name: f"labelsTr/{case.name}{dataset.description.label_ending}" for case in dataset.cases}
    description = _description(dataset, marked, files)
    stamps = {files[case.name]: digest([source_digest([_label_of(case)]), axis, every]) for case in dataset.cases}
    conversion = Conversion(kind="slices", files={**stamps, "dataset.json": digest(description)})
    target = workspace.raw_dataset(_dataset_name(workspace, dataset, number))
    with folder_lock(target, "converting", deep=True):
        begun = has_begun(target, conversion)
        if begun and all((target / name).exists() for name in conversion.files):
            logger.info("%s is converted already", target)
            return target
        if not begun:
            raise_problems(verify_dataset(source, num_processes), source.name)
        write_record(target / RECORD_NAME, conversion)
        todo = [case for case in dataset.cases if not (target / files[case.name]).exists()]
        workers = choose_workers(num_processes, [_label_of(case) for case in todo], _BYTES_PER_VOXEL)
        convert = partial(_convert_case, marked, (axis, every), target, files)
        converted = map_cases(convert, todo, name=lambda case: case.name, num_workers=workers)
        for _ in track(converted, len(todo), "converting"):
            pass
        for name in KEPT:
            if (source / name).exists():
                copy_file(source / name, target / name)
        write_json(target / "dataset.json", description)
    logger.info("%s: %d training cases in %s", source, len(dataset.cases), target)
    return target


def _dataset_name(workspace: Workspace, dataset: Dataset, number: int) -> str:
    name = f"Dataset{number:03d}_{dataset.name.split('_', 1)[-1]}"
    if not DATASET_NAME.fullmatch(name):
        raise InputError(f"{name} cannot be the name of a data set; -d takes a number from 0 to 999")
    if taken := [other for other in workspace.dataset_names() if other != name and other[:10] == name[:10]]:
        raise InputError(f"the number {number} is taken by {', '.join(taken)}; choose another one with -d")
    return name


def _description(dataset: Dataset, labels: Labels, files: Mapping[str, str]) -> dict[str, Any]:
    """The new `dataset.json`."""
    value, _ = read_object(dataset.root / "dataset.json")
    cases = {
        case.name: {"images": [str(path.resolve()) for path in case.images], "label": files[case.name]}
        for case in dataset.cases
    }
    names = {name: list(members) if isinstance(members, tuple) else members for name, members in labels.names.items()}
    return {**value, "labels": names, "dataset": cases}


def _convert_case(
    labels: Labels, slices: tuple[int, int | None], target: Path, files: Mapping[str, str], case: Case
) -> None:
    from seg25d.data.image_io import read_labels, write_labels  # noqa: PLC0415 - loads SimpleITK

    path = target / files[case.name]
    path.parent.mkdir(parents=True, exist_ok=True)
    original, geometry = read_labels(_label_of(case), labels.names)
    indices = labels.encode(original, str(case.label))
    write_labels(path, labels.decode(hide_unlabelled(indices, *slices)), geometry)


def _label_of(case: Case) -> Path:
    assert case.label is not None, "training cases have labels"
    return case.label
