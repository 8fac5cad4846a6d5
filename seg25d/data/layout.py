"""Finding the files of the training cases, in `imagesTr` and `labelsTr` or as listed in `dataset.json`."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seg25d.core.errors import RecordError
from seg25d.core.names import MAX_NAME_BYTES, check_case_name
from seg25d.core.printing import harmless
from seg25d.core.records import Record, parse_record
from seg25d.data.cases import (
    LOSSY,
    PICTURES,
    Case,
    all_image_files,
    by_stem,
    image_files,
    is_dicom_folder,
    is_picture,
    split_channel,
    split_ending,
)
from seg25d.data.description import DatasetDescription
from seg25d.data.problems import Problem

logger = logging.getLogger(__name__)
_OTHER_NUMBER = re.compile(r"(?P<case>.+)_(?P<number>\d{1,3}|\d{5,6})")
_ANY_NUMBER = re.compile(r"(?P<case>.+)_(?P<number>\d{1,6})")


class Layout(NamedTuple):
    """Cases whose files are complete, the names of all cases, and the problems."""

    cases: list[Case]
    names: set[str]
    problems: list[Problem]


class _ExplicitCase(Record):
    """An entry of the key `dataset` of `dataset.json`, in the format of nnU-Net v2."""

    images: tuple[str, ...]
    label: str | None = None


def explicit_layout(root: Path, entries: Any, description: DatasetDescription) -> Layout:
    """Find the cases listed under the key `dataset` of `dataset.json`: `{CASE: {"images": [...], "label": ...}}`.

    Environment variables in paths are expanded; relative paths start at `root`.
    """
    if not isinstance(entries, dict):
        shape = 'an object {CASE: {"images": [...], "label": ...}}'
        return Layout(
            [], set(), [Problem(case="dataset.json", problem="`dataset` is not an object", cure=f"make it {shape}")]
        )
    layout = Layout([], set(entries), [])
    for name, entry in entries.items():
        if found := _name_problems([name]):
            layout.problems.extend(found)
            continue
        try:
            explicit = parse_record(entry, _ExplicitCase, f"`dataset.{name}`")
        except RecordError as error:
            layout.problems.append(Problem(case=name, problem=str(error), cure="correct the entry in dataset.json"))
            continue
        label = _expand(root, explicit.label) if explicit.label else None
        case = Case(name=name, images=tuple(_expand(root, item) for item in explicit.images), label=label)
        found = _explicit_problems(case, len(description.channel_names))
        layout.problems.extend(found)
        if not found:
            layout.cases.append(case)
    layout.problems.extend(_shared_images(layout.cases) + _same_letters(entries))
    return layout


def folder_layout(root: Path, description: DatasetDescription) -> Layout:
    """Find the cases of `imagesTr/CASE_0000.nii.gz`, one file per channel, and `labelsTr/CASE.nii.gz`.

    One picture with colours may hold several channels, which its header tells (see `verify.py`).

    Images without labels are a problem, unless `numTraining` is the number of labelled cases: then they are meant for
    pretraining and are left out here.
    """
    images, problems = _unique_files(root / "imagesTr", (description.file_ending,))
    labels, label_problems = _unique_files(root / "labelsTr", _label_endings(description), description.file_ending)
    problems += label_problems
    channels: dict[str, dict[int, Path]] = {}
    labels, misnamed = _rename_labels(labels, images)
    problems += misnamed
    misnamed_images: set[str] = set()
    for stem, path in images.items():
        name, channel, problem = _split_image(stem, path, labels)
        if problem:
            problems.append(problem)
            misnamed_images.add(name)
        if channel is not None:
            channels.setdefault(name, {})[channel] = path
    unlabelled = set(channels) - set(labels)
    if unlabelled and len(channels) - len(unlabelled) == description.num_training > 0:
        logger.info("%d cases of imagesTr have no labels; they can be used for pretraining", len(unlabelled))
        channels = {name: paths for name, paths in channels.items() if name in labels}
    cases = []
    for name, paths in sorted(channels.items()):
        found = _channel_problems(name, paths, description) + _label_problems(name, labels, description)
        problems += found
        if not found:
            ordered = tuple(paths[channel] for channel in sorted(paths))
            cases.append(Case(name=name, images=ordered, label=labels[name]))
    problems += [
        Problem(
            case=name, problem=f"labelsTr/{labels[name].name} has no image", cure="add the image or remove the label"
        )
        for name in sorted(set(labels) - set(channels) - misnamed_images)
    ]
    return Layout(cases, set(channels), problems + _same_letters(channels) + _name_problems(channels))


def _split_image(stem: str, path: Path, labels: Mapping[str, Path]) -> tuple[str, int | None, Problem | None]:
    """Case and channel of a file of `imagesTr`, and what is wrong with its name.

    A number of other than four digits belongs to the name of the case, or is a channel: that is what the labels tell.
    """
    name, channel = split_channel(stem)
    if channel is not None:
        return name, channel, None
    ending = split_ending(path)[1]
    problem = f"imagesTr/{path.name} has no channel number"
    cure = f"rename it to {stem}_0000{ending}"
    number = _OTHER_NUMBER.fullmatch(stem)
    if number is None or stem in labels:
        return name, None, Problem(case=name, problem=problem, cure=cure)
    name, channel = number["case"], int(number["number"])
    wanted = f"{name}_{channel:04d}{ending}"
    problem = f"imagesTr/{path.name} has a channel number of {len(number['number'])} digits, expected are four"
    if name in labels:
        return name, channel, Problem(case=name, problem=problem, cure=f"rename it to {wanted}")
    cure = f"rename it to {wanted}, or, if {stem} is the name of the case, to {stem}_0000{ending}"
    return name, None, Problem(case=name, problem=problem, cure=cure)


def _rename_labels(labels: Mapping[str, Path], images: Iterable[str]) -> tuple[dict[str, Path], list[Problem]]:
    """Give label files that are named like images, or as Slicer names them, the names of their cases, as problems."""
    cases = {split_channel(stem)[0] for stem in images}
    renamed: dict[str, Path] = {}
    problems = []
    for stem, path in labels.items():
        number = _ANY_NUMBER.fullmatch(stem)
        name = stem.removesuffix(".seg") if number is None else number["case"]
        if stem in cases or name not in cases or name == stem:
            renamed[stem] = path
            continue
        kind = "is named as Slicer does it" if number is None else "has a channel number, as only images have"
        wanted = f"{name}{split_ending(path)[1]}"
        several = f"; {wanted} is there too: keep one" if name in labels or name in renamed else ""
        problem = f"labelsTr/{path.name} {kind}"
        problems.append(Problem(case=name, problem=problem, cure=f"rename it to {wanted}{several}"))
        renamed.setdefault(name, path)
    return renamed, problems


def _expand(root: Path, text: str) -> Path:
    return root / os.path.expandvars(text)


def _explicit_problems(case: Case, num_channels: int) -> list[Problem]:
    problems = []
    colours = case.images and all(map(is_picture, case.images)) and len(case.images) <= num_channels
    if len(case.images) != num_channels and not colours:
        problem = f"{len(case.images)} images are listed, but there are {num_channels} channels"
        problems.append(Problem(case=case.name, problem=problem, cure="list one image per channel, in order"))
    if case.label is None:
        problems.append(Problem(case=case.name, problem="missing label: none is listed", cure="add the key `label`"))
    files = [*case.images, *([case.label] if case.label else [])]
    cure = "correct the path in dataset.json, or set the environment variable in it"
    series = [path for path in case.images if is_dicom_folder(path)]
    problems += [
        Problem(case=case.name, problem=f"{path} does not exist, or is a folder without DICOM files", cure=cure)
        for path in files
        if not path.is_file() and path not in series
    ]
    unknown = [path for path in files if path.is_file() and not split_ending(path)[1]]
    return problems + [
        Problem(case=case.name, problem=f"{path} has an unknown ending", cure="convert it to .nii.gz")
        for path in unknown
    ]


def _shared_images(cases: Sequence[Case]) -> list[Problem]:
    owners: dict[Path, str] = {}
    problems = []
    for case in cases:
        for path in {path.resolve() for path in case.images}:
            first = owners.setdefault(path, case.name)
            if first != case.name:
                problem = f"duplicate case: {path.name} is also an image of {first}"
                problems.append(Problem(case=case.name, problem=problem, cure="remove one of the two cases"))
    return problems


def _label_endings(description: DatasetDescription) -> tuple[str, ...]:
    """The endings that label files may have: that of predictions, or that of the images."""
    endings = dict.fromkeys((description.label_ending, description.file_ending))
    return tuple(ending for ending in endings if ending not in LOSSY)


def _unique_files(
    folder: Path, endings: Sequence[str], of_images: str | None = None
) -> tuple[dict[str, Path], list[Problem]]:
    """The files of a folder by name without ending; colliding names and undeclared endings are problems.

    The files are images, or labels of images with the ending `of_images`, whose losses are another problem.
    """
    ending, found = endings[0], image_files(folder, pictures=endings[0] in PICTURES)
    if ending in PICTURES and (others := sorted(set(all_image_files(folder)) - set(found))):
        message = "%s: %d medical image(s) are left out, such as %s, as dataset.json declares %s"
        logger.warning(message, folder.name, len(others), others[0].name, ending)
    files: dict[str, Path] = {}
    problems = []
    for stem, paths in by_stem(found).items():
        files[stem] = next((path for path in paths if split_ending(path)[1] in endings), paths[0])
        names = " and ".join(f"{folder.name}/{path.name}" for path in paths)
        case = split_channel(stem)[0]
        if len(paths) > 1:
            problem = f"name collides: {names} are the same without the ending"
            problems.append(Problem(case=case, problem=problem, cure="keep one, move or rename the others"))
        elif split_ending(paths[0])[1] not in (*endings, *(LOSSY if of_images else ())):
            said = (
                "as dataset.json declares" if of_images in (None, *endings) else f"the labels' ending for {of_images}"
            )
            problem = f"{names} does not end in {' or '.join(endings)}, {said}"
            problems.append(Problem(case=case, problem=problem, cure=f"convert it to {ending} or correct file_ending"))
    return files, problems


def _channel_problems(name: str, paths: Mapping[int, Path], description: DatasetDescription) -> list[Problem]:
    ending = description.file_ending
    problems = [
        Problem(
            case=name,
            problem=f"missing channel {index:04d} ({channel}): imagesTr/{name}_{index:04d}{ending} does not exist",
            cure="add the file or remove the case",
        )
        for index, channel in enumerate(description.channel_names)
        if index not in paths and not (ending in PICTURES and 0 < index > max(paths))
    ]
    extra = [path.name for channel, path in sorted(paths.items()) if channel >= len(description.channel_names)]
    if extra:
        problem = f"{', '.join(extra)}: dataset.json declares only {len(description.channel_names)} channel(s)"
        cure = "declare the channel in channel_names or remove the file"
        problems.append(Problem(case=name, problem=problem, cure=cure))
    return problems


def _label_problems(name: str, labels: Mapping[str, Path], description: DatasetDescription) -> list[Problem]:
    if name in labels and split_ending(labels[name])[1] in LOSSY:
        problem = f"labelsTr/{labels[name].name} is a JPEG file, which changes the values of labels"
        cure = f"export the labels again as {description.label_ending}; converting this file is no cure"
        return [Problem(case=name, problem=problem, cure=cure)]
    if name in labels:
        return []
    problem = f"missing label: labelsTr/{name}{description.label_ending} does not exist"
    return [Problem(case=name, problem=problem, cure="add the file, or move the images to imagesTs")]


def _name_problems(names: Iterable[str]) -> list[Problem]:
    """Find names that files cannot have."""
    problems = []
    for name in names:
        try:
            check_case_name(name)
        except ValueError as error:
            problem = f"it cannot be the name of a case, as files are named after it: {error}"
            problems.append(Problem(case=harmless(name)[:MAX_NAME_BYTES], problem=harmless(problem), cure="rename it"))
    return problems


def _same_letters(names: Mapping[str, Any]) -> list[Problem]:
    """Find names that differ in capital letters only, which are the same file on some disks."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.lower(), []).append(name)
    return [
        Problem(case=group[1], problem=f"duplicate case: differs from {group[0]} in capitals only", cure="rename one")
        for group in groups.values()
        if len(group) > 1
    ]
