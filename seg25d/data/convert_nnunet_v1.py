"""Conversion from the raw layout of nnU-Net v1, `TaskNNN_Name`, to that of v2: the same files, another dataset.json."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, write_json
from seg25d.core.locks import folder_lock
from seg25d.core.progress import track
from seg25d.core.workspace import DATASET_NAME, Workspace
from seg25d.data.cases import image_files
from seg25d.data.dataset import read_dataset
from seg25d.data.description import read_object

logger = logging.getLogger(__name__)
FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")
ENDING = ".nii.gz"
"""That of all of nnU-Net v1's files."""
_DROPPED = ("tensorImageSize", "numTest", "training", "test", "modality")
"""Keys that v2 has not, or under another name (nnunetv2, convert_raw_dataset_from_old_nnunet_format.py)."""


def convert_nnunet_v1(workspace: Workspace, source: Path, name: str) -> Path:
    """Copy a data set of nnU-Net v1 into `raw/DatasetNNN_Name`; `dataset.json` is written last.

    Args:
        workspace: The workspace of the new data set.
        source: The folder with dataset.json, imagesTr and labelsTr.
        name: `DatasetNNN_Name`.

    Returns:
        The new folder.

    Raises:
        InputError: If the folder is no data set of nnU-Net v1, or name or number are wrong or taken; nothing is
            written then.
        BusyError: If another process writes there.
    """
    if not DATASET_NAME.fullmatch(name):
        raise InputError(f"expected a name such as Dataset004_Hippocampus, got {name!r}")
    taken = [each for each in workspace.dataset_names() if each[:10] == name[:10]]
    target = workspace.raw_dataset(name)
    if taken and (taken != [name] or (target / "dataset.json").exists()):
        raise InputError(f"the number of {name} is taken by {', '.join(taken)}; choose another one, or rename that")
    value, _ = read_object(source / "dataset.json")
    missing = [key for key in ("modality", "labels") if not isinstance(value.get(key), dict)]
    if missing:
        raise InputError(f"{source / 'dataset.json'} has no {' and '.join(missing)}, as nnU-Net v1 has them")
    files = [path for folder in FOLDERS for path in image_files(source / folder)]
    if others := [path for path in files if not path.name.endswith(ENDING)]:
        raise InputError(f"{others[0]}: expected {ENDING}, as all files of nnU-Net v1 are")
    if not any(path.parent.name == "imagesTr" for path in files):
        raise InputError(f"{source} has no images in imagesTr; give the folder TaskNNN_Name itself")
    description = _description(value, sum(path.parent.name == "labelsTr" for path in files))
    with folder_lock(target, "converting", deep=True):
        for path in track(files, len(files), "copying"):
            copy_file(path, target / path.parent.name / path.name)
        write_json(target / "dataset.json", description)
    logger.info("%s: %d training cases in %s", source, len(read_dataset(target).cases), target)
    return target


def _description(value: Mapping[str, Any], num_training: int) -> dict[str, Any]:
    """The new `dataset.json`."""
    kept = {key: item for key, item in value.items() if key not in _DROPPED}
    labels = {str(name): int(number) for number, name in value["labels"].items() if str(number).isdigit()}
    changed = {"channel_names": value["modality"], "labels": labels, "file_ending": ENDING}
    return {**kept, **changed, "numTraining": num_training}
