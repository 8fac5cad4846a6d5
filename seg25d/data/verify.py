"""Verification of a data set: all problems, in one table.

Names and headers are checked first; the voxels of a case are read, in parallel, only if its headers are correct. A case
without problems is remembered, and of its files only names, sizes and times are looked at as long as these stay. That
says nothing of the data set, whose problems are all looked for each time.
"""

import hashlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from seg25d.core.apart import call_as_a_whole
from seg25d.core.errors import RecordError
from seg25d.core.grids import AXIS_NAMES
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import keep_now_and_then, track
from seg25d.core.records import Record, digest, read_record, write_record
from seg25d.core.types import Shape
from seg25d.data.cases import STACKS, Case, source_stamp, spacing_files
from seg25d.data.dataset import DatasetDescription, scan_dataset
from seg25d.data.grid_problems import form_conflict, grid_problem
from seg25d.data.image_spacing import spacing_note
from seg25d.data.labelled_slices import count_labelled_slices, describe_labelled_slices, find_lone_slices
from seg25d.data.labels import IGNORE_INDEX
from seg25d.data.problems import FileError, Problem, raise_problems
from seg25d.data.splits import NNUNET_NAME, OWN_NAME

__all__ = ["ALLOW_DUPLICATES", "ALLOW_EMPTY", "Problem", "raise_problems", "verify_dataset"]

logger = logging.getLogger(__name__)
ALLOW_EMPTY = "allow_empty_labels"
"""Optional key of `dataset.json`: cases with only background are intended, as in lesion data."""
ALLOW_DUPLICATES = "allow_duplicate_cases"
"""Optional key of `dataset.json`: cases with the same images are intended."""
_VERSION = 2
"""Increased when verification gets new checks, so that data sets are read again."""
Ranges = Mapping[int, tuple[float, float]]
_BYTES_PER_VOXEL = 12
"""Peak memory while a channel is read: as in the file (up to 4), in canonical order, as float32."""
_WORKER_BYTES = 200 << 20
_WHOLE_SET = ("(all)", "dataset.json", "patients.json", OWN_NAME, NNUNET_NAME)


class _Remarks(Record):
    """What the headers of one case say that is odd, but no problem."""

    num_channels: int
    """Of the data set, as they were checked for it."""
    conflicts: tuple[str, ...]
    """Files whose two affines disagree."""
    spacing_note: str | None


class _Headers(NamedTuple):
    """Results of reading the headers of one case."""

    problems: list[Problem]
    remarks: _Remarks
    num_voxels: int


class _Slices(Record):
    """What the labels of one case say about its slices."""

    labelled: tuple[Shape, Shape] | None
    """Slices that are labelled and all slices, along (D, H, W); None without an `ignore` label."""
    lone_axis: int | None
    """See `find_lone_slices`."""


class _Finding(Record):
    """Result of reading the voxels of one case; the digest of its images finds duplicates under other names."""

    digest: str
    problems: tuple[Problem, ...]
    slices: _Slices | None


class _CleanCase(Record):
    """A case without problems, valid as long as its files and the checks stay the same."""

    key: str
    digest: str
    remarks: _Remarks | None = None
    """Of its headers; None in files of earlier versions."""
    slices: _Slices | None = None
    """Of its labels; None in files of earlier versions."""


class _Memory(Record):
    """The cases of a data set that had no problems, or those of them that were read before a cut."""

    schema_version: Literal[1] = 1
    cases: dict[str, _CleanCase]


def verify_dataset(
    root: Path,
    num_workers: int | None = None,
    memory: Path | None = None,
    *,
    preprocessed: Sequence[Path] = (),
    ranges: Ranges | None = None,
) -> list[Problem]:
    """Find all problems of a data set.

    Args:
        root: The folder `DatasetNNN_Name`.
        num_workers: Worker processes that read the images; 0 reads them in this process, None chooses by the number of
            cores and the memory needed for the largest case.
        memory: A JSON file for the cases without problems. It is written about every minute, so that the same call goes
            on after a kill, and at the end if there are no problems at all. The files of its cases are not opened again
            next time, as long as their sizes and times are the same; that they are there is always checked.
        preprocessed: Folders in which nnU-Net's `splits_final.json` may be as well.
        ranges: Smallest and largest allowed value, by the number of the channel; None: any value is allowed.

    Returns:
        The problems, sorted by case, those of the whole data set first; empty if there are none.
    """
    dataset, problems = scan_dataset(root, preprocessed)
    if dataset is None:
        return problems
    description, ranges = dataset.description, ranges or {}
    keys = {case.name: _source_key(case, description, ranges) for case in dataset.cases}
    clean = _read_clean_cases(memory, keys)
    remarks = {name: case.remarks for name, case in clean.items() if case.remarks and _fits(case.remarks, description)}
    unknown = [case for case in dataset.cases if case.name not in remarks]
    headers = {case.name: call_as_a_whole(_check_headers, case, description) for case in unknown}
    problems += [problem for header in headers.values() for problem in header.problems]
    remarks |= {name: header.remarks for name, header in headers.items()}
    _warn_of_conflicts([conflict for case in dataset.cases for conflict in remarks[case.name].conflicts])
    _warn_of_spacing(dataset.name, {case.name: remarks[case.name].spacing_note for case in dataset.cases})
    spoilt = {name for name, header in headers.items() if header.problems}
    todo = [case for case in unknown if case.name not in spoilt and case.name not in clean]
    largest = max((header.num_voxels for header in headers.values()), default=0)
    workers = choose_num_workers(num_workers, largest * _BYTES_PER_VOXEL + _WORKER_BYTES, len(todo)) if todo else 0
    check = partial(_check_voxels, description=description, ranges=ranges)
    checked = map_cases(
        check if workers else partial(call_as_a_whole, check),
        todo,
        name=lambda case: case.name,
        num_workers=workers,
    )
    findings: dict[str, _Finding] = {}
    keep = partial(_keep_clean_cases, memory, keys, clean, remarks, findings, spoilt)
    for case, finding in keep_now_and_then(track(checked, len(todo), "verifying"), keep):
        findings[case.name] = finding
    problems += [problem for finding in findings.values() for problem in finding.problems]
    digests = {name: case.digest for name, case in clean.items()}
    digests |= {name: finding.digest for name, finding in findings.items()}
    if not description.metadata.get(ALLOW_DUPLICATES):
        problems += _same_images({name: digests[name] for name in sorted(digests)})
    slices = {name: case.slices for name, case in clean.items()}
    slices |= {name: finding.slices for name, finding in findings.items()}
    _tell_of_slices(dataset.name, slices)
    if not problems and unknown:
        keep()
    return sorted(problems, key=lambda problem: (problem.case not in _WHOLE_SET, problem.case))


def _source_key(case: Case, description: DatasetDescription, ranges: Ranges) -> str:
    """Digest that changes when the files of a case or the checks of them change."""
    asked = {"labels": description.labels.model_dump(mode="json"), "empty": bool(description.metadata.get(ALLOW_EMPTY))}
    asked |= {"ranges": sorted(ranges.items())} if ranges else {}
    asked |= {"labelled_slices": True} if description.labels.ignore_value is not None else {}
    return digest({"version": _VERSION, "files": source_stamp(case), **asked})


def _read_clean_cases(memory: Path | None, keys: Mapping[str, str]) -> dict[str, _CleanCase]:
    """The cases that had no problems and have not changed."""
    if memory is None or not memory.exists():
        return {}
    try:
        cases = read_record(memory, _Memory).cases
    except RecordError as error:
        logger.warning("%s; the images are read again", error)
        return {}
    return {name: cases[name] for name, key in keys.items() if name in cases and cases[name].key == key}


def _keep_clean_cases(
    memory: Path | None,
    keys: Mapping[str, str],
    clean: Mapping[str, _CleanCase],
    remarks: Mapping[str, _Remarks],
    findings: Mapping[str, _Finding],
    spoilt: Collection[str],
) -> None:
    """Write the cases without problems that are known so far: those of before, and those whose voxels were read.

    Args:
        memory: The file; None: nothing is written.
        keys: Of all cases.
        clean: Cases that had no problems before.
        remarks: On the headers of all cases.
        findings: Of the voxels, of cases that were read.
        spoilt: Cases whose headers have problems.
    """
    if memory is None:
        return
    found = {
        name: _CleanCase(key=keys[name], digest=each.digest, slices=each.slices)
        for name, each in findings.items()
        if not each.problems
    }
    known = {name: case for name, case in {**clean, **found}.items() if name not in spoilt}
    cases = {name: known[name].model_copy(update={"remarks": remarks[name]}) for name in sorted(known)}
    write_record(memory, _Memory(cases=cases))


def _fits(remarks: _Remarks, description: DatasetDescription) -> bool:
    """Whether headers were checked for as many channels as the data set has."""
    return remarks.num_channels == len(description.channel_names)


def _warn_of_conflicts(conflicts: Sequence[str]) -> None:
    if conflicts:
        logger.warning(
            "%d file(s) have headers that disagree with themselves, such as %s", len(conflicts), conflicts[0]
        )


def _warn_of_spacing(dataset_name: str, notes: Mapping[str, str | None]) -> None:
    noted = {name: note for name, note in sorted(notes.items()) if note}
    if noted:
        message = "%s: the spacing of %d case(s) is taken for granted, such as that of %s: %s"
        logger.warning(message, dataset_name, len(noted), *next(iter(noted.items())))


def _tell_of_slices(dataset_name: str, slices: Mapping[str, _Slices | None]) -> None:
    """Say how many slices are labelled; warn where others look as if nobody had labelled them."""
    known = {name: each for name, each in sorted(slices.items()) if each is not None}
    if told := describe_labelled_slices([each.labelled for each in known.values() if each.labelled]):
        logger.info("%s: %s", dataset_name, told)
    lone = {name: each.lone_axis for name, each in known.items() if each.lone_axis is not None}
    if lone and 2 * len(lone) >= len(known):
        first, axis = next(iter(lone.items()))
        logger.warning(
            "%s: %d case(s) have labels in single slices with background between them, such as %s along %s: if nobody "
            "has looked at the slices between, give these the `ignore` label (`seg25d convert --from slices` does), "
            "else they are learnt as background",
            dataset_name,
            len(lone),
            first,
            AXIS_NAMES[axis],
        )


def _check_headers(case: Case, description: DatasetDescription) -> _Headers:
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - SimpleITK is not loaded for --help

    problems: list[Problem] = []
    geometries = {}
    for path in (*case.images, *([case.label] if case.label else [])):
        try:
            geometries[path] = read_geometry(path)
        except FileError as error:
            problems.append(_file_problem(case, error))
    first = geometries.get(case.images[0])
    if first is not None:
        problems += [
            _grid_problem(case, path, *found)
            for path, geometry in geometries.items()
            if (found := grid_problem(path, geometry, case.images[0], first))
        ]
    if all(path in geometries for path in case.images):
        problems += _check_num_channels(case, description)
    conflicts = [
        f"{path.name}: {conflict}" for path, geometry in geometries.items() if (conflict := form_conflict(geometry))
    ]
    remarks = _Remarks(
        num_channels=len(description.channel_names),
        conflicts=tuple(conflicts),
        spacing_note=spacing_note(case.images[0], first.shape[0]) if first else None,
    )
    largest = max((math.prod(each.shape) for each in geometries.values()), default=0)
    return _Headers(problems=problems, remarks=remarks, num_voxels=largest)


def _check_num_channels(case: Case, description: DatasetDescription) -> list[Problem]:
    """Check that pictures have as many channels as the data set; the number of other files was checked before."""
    from seg25d.data.image_io import count_channels  # noqa: PLC0415 - SimpleITK is not loaded for --help

    found, wanted = count_channels(case.images), len(description.channel_names)
    if found == wanted:
        return []
    names = " and ".join(path.name for path in case.images)
    problem = f"{names}: {found} channel(s), expected are the {wanted} of channel_names in dataset.json"
    saved = {1: "save it as grey", 3: "save it as RGB, without transparency"}.get(wanted, "give a file per channel")
    cure = f"{saved}, or declare {found} channel_names (a picture has 1 if it is grey, 3 in colours, 4 with alpha)"
    return [Problem(case=case.name, problem=problem, cure=cure)]


def _check_voxels(case: Case, description: DatasetDescription, ranges: Ranges) -> _Finding:
    problems: list[Problem] = []
    content = hashlib.blake2b(digest_size=16)
    for channel, path in enumerate(case.images):
        problems += _check_image(case, path, content, ranges.get(channel))
    slices: _Slices | None = None
    if case.label is not None:
        wrong, slices = _check_label(case, case.label, description)
        problems += wrong
    return _Finding(digest=content.hexdigest(), problems=tuple(problems), slices=slices)


def _check_image(
    case: Case, path: Path, content: "hashlib.blake2b", allowed: tuple[float, float] | None
) -> list[Problem]:
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - SimpleITK is not loaded for --help

    try:
        image, _ = read_image([path])
    except FileError as error:
        # Two cases with damaged files must not count as equal.
        content.update(str(path).encode())
        return [_file_problem(case, error)]
    content.update(repr(image.shape).encode())
    content.update(image.data)
    lower, upper = float(image.min()), float(image.max())
    if allowed is None or allowed[0] <= lower <= upper <= allowed[1]:
        return []
    problem = f"{path.name}: expected values from {allowed[0]:g} to {allowed[1]:g}, as the channel's name says, got "
    problem += f"{lower:g} to {upper:g}"
    cure = "export it with values of that range, or give the channel another name in dataset.json"
    return [Problem(case=case.name, problem=problem, cure=cure)]


def _check_label(case: Case, path: Path, description: DatasetDescription) -> tuple[list[Problem], _Slices | None]:
    """The problems of a label file, and what it says about slices."""
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - SimpleITK is not loaded for --help

    try:
        array, _ = read_labels(path, description.labels.names)
    except FileError as error:
        return [_file_problem(case, error)], None
    indices, undeclared = description.labels.translate(array)
    if undeclared:
        problem, _, cure = description.labels.undeclared_message(undeclared).partition("; ")
        return [Problem(case=case.name, problem=f"{path.name}: {problem}", cure=cure)], None
    depth, height, width = indices.shape
    may_ignore = description.labels.ignore_value is not None
    slices = _Slices(
        labelled=(count_labelled_slices(indices), (depth, height, width)) if may_ignore else None,
        lone_axis=find_lone_slices(indices),
    )
    if description.metadata.get(ALLOW_EMPTY) or bool(((indices > 0) & (indices != IGNORE_INDEX)).any()):
        return [], slices
    cure = f'label it, remove the case, or set "{ALLOW_EMPTY}": true in dataset.json if such cases are intended'
    return [Problem(case=case.name, problem=f"empty label: {path.name} has no foreground", cure=cure)], slices


def _file_problem(case: Case, error: FileError) -> Problem:
    return Problem(case=case.name, problem=f"{error.path.name}: {error.problem}", cure=error.cure)


def _grid_problem(case: Case, path: Path, difference: str, cure: str) -> Problem:
    what = "label" if path == case.label else "channel"
    problem = f"different grid: {what} {path.name} and first channel {case.images[0].name}: {difference}"
    if difference.startswith("spacing") and path.suffix in STACKS:
        cure = f"put the same spacing into {spacing_files(path)[-1].name} beside {path.name} and beside the image"
    return Problem(case=case.name, problem=problem, cure=cure)


def _same_images(contents: Mapping[str, str]) -> list[Problem]:
    first: dict[str, str] = {}
    cure = f'remove one of the two, or set "{ALLOW_DUPLICATES}": true in dataset.json if both are intended'
    return [
        Problem(case=name, problem=f"duplicate case: its images equal those of {first[content]}", cure=cure)
        for name, content in contents.items()
        if first.setdefault(content, name) != name
    ]
