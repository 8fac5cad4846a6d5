"""Conversion from the layout of the Medical Segmentation Decathlon (MSD) to that of nnU-Net v2.

Channels are split into files, and `dataset.json` is rewritten. An MSD folder `TaskNN_Name` has `dataset.json`, which
lists all files, `imagesTr`, `labelsTr` and `imagesTs`; images with several channels are 4D NIfTI files
(https://arxiv.org/abs/1902.09063, section "Data format").
"""

import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, write_json
from seg25d.core.locks import folder_lock
from seg25d.core.names import check_inner_path, is_number
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.printing import harmless
from seg25d.core.progress import track
from seg25d.core.records import digest, write_record
from seg25d.core.workspace import DATASET_NAME, Workspace
from seg25d.data.cases import image_files, split_ending
from seg25d.data.conversion import RECORD_NAME, Conversion, has_begun, source_digest
from seg25d.data.description import parse_description, read_object
from seg25d.data.image_channels import check_channels, split_channels
from seg25d.data.problems import FileError, Problem, raise_problems

logger = logging.getLogger(__name__)
_TASK = re.compile(r"Task(\d{1,3})_(.+)")
_REPLACED = ("training", "test", "numTest", "modality", "dataset")
"""Keys of an MSD `dataset.json` that are renamed, or have another meaning in nnU-Net; all others are kept."""
_NIFTI = (".nii.gz", ".nii")
_WORKER_BYTES = 200 << 20


class _File(NamedTuple):
    """A file and the files it is converted to, as paths in the new data set."""

    source: Path
    targets: tuple[str, ...]
    num_channels: int


class _Task(NamedTuple):
    """Content of an MSD folder, prepared for conversion."""

    files: list[_File]
    description: dict[str, Any]
    """The new `dataset.json`."""


def convert_msd(
    workspace: Workspace, source: Path, number: int | None = None, num_processes: int | None = None
) -> Path:
    """Convert an MSD folder into `raw/DatasetNNN_Name`, resuming an earlier call that was interrupted.

    Files with one channel are linked or copied unchanged. Files with several channels are split; header and voxels
    stay the same. `dataset.json` is written last: until then the data set does not exist.

    Args:
        workspace: The workspace of the new data set.
        source: The folder `TaskNN_Name`.
        number: Number of the data set; None: that of the task.
        num_processes: Worker processes; None chooses.

    Returns:
        The data set's folder.

    Raises:
        DatasetError: If anything is wrong with the folder; lists all of it, and nothing is written.
        BusyError: If another process converts it.
        InputError: If the number is taken, or the folder holds anything but an earlier conversion of the same files.
    """
    if not (source / "dataset.json").is_file():
        raise InputError(f"{source} has no dataset.json; give a folder TaskNN_Name of the Decathlon, unpacked")
    target = workspace.raw_dataset(_dataset_name(workspace, source, number))
    task = _read_task(source)
    stamps = {name: source_digest([file.source]) for file in task.files for name in file.targets}
    conversion = Conversion(kind="msd", files={**stamps, "dataset.json": digest(task.description)})
    with folder_lock(target, "converting", deep=True):
        begun = has_begun(target, conversion)
        if begun and all((target / name).exists() for name in conversion.files):
            logger.info("%s is converted already", target)
            return target
        if not begun:
            raise_problems(_content_problems(task.files), source.name)
        write_record(target / RECORD_NAME, conversion)
        _convert_files(target, task.files, num_processes)
        write_json(target / "dataset.json", task.description)
    logger.info("%s: %d training cases in %s", source, task.description["numTraining"], target)
    return target


def _dataset_name(workspace: Workspace, source: Path, number: int | None) -> str:
    match = _TASK.fullmatch(source.resolve().name)
    if match is None and number is None:
        raise InputError(f"{source} is not named TaskNN_Name; give the number of the data set with -d")
    chosen = int(match[1]) if match and number is None else number
    name = f"Dataset{chosen:03d}_{match[2] if match else source.resolve().name}"
    if not DATASET_NAME.fullmatch(name):
        raise InputError(f"{name} cannot be the name of a data set; -d takes a number from 0 to 999")
    taken = [other for other in workspace.dataset_names() if other != name and other[:10] == name[:10]]
    if taken:
        raise InputError(f"the number {chosen} is taken by {', '.join(taken)}; choose another one with -d")
    return name


def _read_task(source: Path) -> _Task:
    """Read what is in an MSD folder, by names alone.

    Raises:
        DatasetError: If anything is wrong; lists all of it.
    """
    value, doubled = read_object(source / "dataset.json")
    problems = [_json_problem(f"'{key}' occurs twice in one object") for key in doubled]
    training, test = _read_entries(value, "training", problems), _read_entries(value, "test", problems)
    pairs = [(source / entry["image"], source / entry["label"]) for entry in training]
    tests = [source / entry["image"] for entry in test]
    problems += _name_problems("imagesTr", [image for image, _ in pairs]) + _name_problems("imagesTs", tests)
    everything = [*(path for pair in pairs for path in pair), *tests]
    problems += [
        Problem(
            case=_stem(path), problem=f"{path.parent.name}/{path.name} does not exist", cure="unpack the archive again"
        )
        for path in everything
        if not path.is_file()
    ]
    endings = sorted({split_ending(path)[1] or path.suffix for path in everything})
    if not pairs:
        problems.append(_json_problem("`training` lists no case"))
    elif len(endings) != 1 or endings[0] not in _NIFTI:
        problems.append(_json_problem(f"all files must end in .nii.gz, or all in .nii; there are {', '.join(endings)}"))
    described = _describe(value, len(pairs), endings[0] if endings else _NIFTI[0])
    problems += [_json_problem(issue.replace("channel_names", "modality")) for issue in parse_description(described)[1]]
    raise_problems(problems, source.name)
    _warn_of_unlisted_files(source, everything)
    channels, ending = len(described["channel_names"]), endings[0]
    files = [_image_file(image, "imagesTr", channels, ending) for image, _ in pairs]
    files += [_File(label, (f"labelsTr/{_stem(image)}{ending}",), 1) for image, label in pairs]
    files += [_image_file(image, "imagesTs", channels, ending) for image in tests]
    return _Task(files, described)


def _read_entries(value: Mapping[str, Any], key: str, problems: list[Problem]) -> list[dict[str, str]]:
    """The entries of a list of files; test images are listed as text, without a label."""
    wanted = ("image", "label") if key == "training" else ("image",)
    entries = value.get(key, [])
    if isinstance(entries, list):
        entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
        if all(isinstance(entry, dict) and all(isinstance(entry.get(k), str) for k in wanted) for entry in entries):
            found = [_path_problem(entry[name]) for entry in entries for name in wanted]
            problems += [problem for problem in found if problem is not None]
            return [] if any(found) else entries
    problems.append(_json_problem(f"`{key}` must be a list of objects with {' and '.join(wanted)}"))
    return []


def _path_problem(path: str) -> Problem | None:
    """What is wrong with the path of a file, which must lie in the folder."""
    try:
        check_inner_path(path)
    except ValueError as error:
        return _json_problem(harmless(str(error)))
    return None


def _describe(value: Mapping[str, Any], num_training: int, ending: str) -> dict[str, Any]:
    """The new `dataset.json`."""
    labels = value.get("labels")
    if isinstance(labels, dict) and len(set(map(str, labels.values()))) == len(labels):
        turned = all(is_number(key) and isinstance(name, str) for key, name in labels.items())
        labels = {name: int(number) for number, name in labels.items()} if turned else labels
    return {
        **{key: item for key, item in value.items() if key not in _REPLACED},
        "channel_names": value.get("modality"),
        "labels": labels,
        "numTraining": num_training,
        "file_ending": ending,
    }


def _name_problems(folder: str, images: Sequence[Path]) -> list[Problem]:
    counts = Counter(_stem(image) for image in images)
    problem, cure = f"{folder} would have this case twice", "correct the lists in dataset.json"
    return [Problem(case=name, problem=problem, cure=cure) for name, count in sorted(counts.items()) if count > 1]


def _warn_of_unlisted_files(source: Path, listed: Sequence[Path]) -> None:
    """Log which files are left out; those whose names begin with a dot are ignored."""
    known = {path.resolve() for path in listed}
    folders = ("imagesTr", "labelsTr", "imagesTs")
    left_out = [path for folder in folders for path in image_files(source / folder) if path.resolve() not in known]
    if left_out:
        names = ", ".join(str(path.relative_to(source)) for path in left_out[:8])
        logger.warning("dataset.json does not list %d file(s), which are left out: %s", len(left_out), names)


def _content_problems(files: Sequence[_File]) -> list[Problem]:
    problems = []
    for file in files:
        try:
            check_channels(file.source, split_ending(file.source)[1], file.num_channels)
        except FileError as error:
            name = f"{file.source.parent.name}/{file.source.name}"
            problems.append(Problem(case=_stem(file.source), problem=f"{name}: {error.problem}", cure=error.cure))
    return problems


def _convert_files(target: Path, files: Sequence[_File], num_processes: int | None) -> None:
    todo = [
        (file.source, tuple(target / name for name in file.targets))
        for file in files
        if not all((target / name).exists() for name in file.targets)
    ]
    workers = choose_num_workers(num_processes, _WORKER_BYTES, len(todo))
    converted = map_cases(_convert_file, todo, name=lambda item: item[0].name, num_workers=workers)
    for _ in track(converted, len(todo), "converting"):
        pass


def _convert_file(item: tuple[Path, tuple[Path, ...]]) -> None:
    source, targets = item
    if len(targets) > 1:
        split_channels(source, targets)
        return
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), targets[0])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS):
            raise
        # Another disk, or one without links.
        copy_file(source, targets[0])


def _image_file(path: Path, folder: str, num_channels: int, ending: str) -> _File:
    targets = tuple(f"{folder}/{_stem(path)}_{channel:04d}{ending}" for channel in range(num_channels))
    return _File(path, targets, num_channels)


def _stem(path: Path) -> str:
    return split_ending(path)[0]


def _json_problem(problem: str) -> Problem:
    return Problem(case="dataset.json", problem=problem, cure="correct dataset.json, or download it again")
