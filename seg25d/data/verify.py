"""Verification of a data set: everything that is wrong with it, in one table.

Names and headers come first; the voxels of a case are read only where its headers are fine, once per file, in parallel.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from seg25d.core.parallel import map_cases
from seg25d.core.progress import track
from seg25d.core.records import Record
from seg25d.data.cases import Case, split_ending
from seg25d.data.dataset import DatasetDescription, scan_dataset
from seg25d.data.image_headers import count_bad_voxels
from seg25d.data.labels import IGNORE_INDEX
from seg25d.data.problems import FileError, Problem, raise_problems

__all__ = ["ALLOW_DUPLICATES", "ALLOW_EMPTY", "Problem", "raise_problems", "verify_dataset"]

ALLOW_EMPTY = "allow_empty_labels"
"""Free key of `dataset.json`: cases with nothing but background are wanted, as in lesion data."""
ALLOW_DUPLICATES = "allow_duplicate_cases"
"""Free key of `dataset.json`: cases with the same images are wanted."""
_WHOLE_SET = ("(all)", "dataset.json", "patients.json", "splits.json")


class _Finding(Record):
    """What the files of one case gave: a digest of its images, to find the same images under two names."""

    digest: str | None
    problems: tuple[Problem, ...]


def verify_dataset(root: Path, num_workers: int) -> list[Problem]:
    """Find everything that is wrong with a data set.

    Args:
        root: The folder `DatasetNNN_Name`.
        num_workers: Worker processes that read the images; 0 reads them in this process.

    Returns:
        The problems, sorted by case, those of the whole data set first; empty if all is well.
    """
    dataset, problems = scan_dataset(root)
    if dataset is None:
        return problems
    check = partial(_check_case, description=dataset.description)
    checked = map_cases(check, dataset.cases, name=lambda case: case.name, num_workers=num_workers)
    findings = {case.name: finding for case, finding in track(checked, len(dataset.cases), "verifying")}
    problems += [problem for finding in findings.values() for problem in finding.problems]
    if not dataset.description.metadata.get(ALLOW_DUPLICATES):
        problems += _same_images({name: findings[name].digest for name in sorted(findings)})
    return sorted(problems, key=lambda problem: (problem.case not in _WHOLE_SET, problem.case))


def _check_case(case: Case, description: DatasetDescription) -> _Finding:
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
            _grid_problem(case, path, text) for path in geometries if (text := geometries[path].difference(first))
        ]
    if problems:
        return _Finding(digest=None, problems=tuple(problems))
    digest = hashlib.blake2b(digest_size=16)
    for path in case.images:
        problems += _check_image(case, path, digest)
    if case.label is not None:
        problems += _check_label(case, case.label, description)
    return _Finding(digest=digest.hexdigest(), problems=tuple(problems))


def _check_image(case: Case, path: Path, digest: "hashlib.blake2b") -> list[Problem]:
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - SimpleITK is not loaded for --help

    try:
        image, _ = read_image([path])
    except FileError as error:
        return [_file_problem(case, error)]
    digest.update(repr(image.shape).encode())
    digest.update(image.data)
    num_bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    num_nan = int(np.count_nonzero(np.isnan(image))) if num_bad else 0
    return _bad_voxels(case, path, num_nan, num_bad - num_nan)


def _bad_voxels(case: Case, path: Path, num_nan: int, num_infinite: int) -> list[Problem]:
    """Voxels that are no numbers: those that were read, or, in NIfTI files, those that the reader hid."""
    if split_ending(path)[1] in (".nii", ".nii.gz"):
        num_nan, num_infinite = count_bad_voxels(path)
    if num_nan + num_infinite == 0:
        return []
    problem = f"{path.name}: {num_nan} voxels are NaN and {num_infinite} are infinite"
    return [Problem(case=case.name, problem=problem, cure="replace them, for instance by the value of air or by 0")]


def _check_label(case: Case, path: Path, description: DatasetDescription) -> list[Problem]:
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - SimpleITK is not loaded for --help

    try:
        array, _ = read_labels(path)
    except FileError as error:
        return [_file_problem(case, error)]
    indices, undeclared = description.labels.translate(array)
    if undeclared:
        problem, _, cure = description.labels.undeclared_message(undeclared).partition("; ")
        return [Problem(case=case.name, problem=f"{path.name}: {problem}", cure=cure)]
    if bad := _bad_voxels(case, path, 0, 0):
        return bad
    if description.metadata.get(ALLOW_EMPTY) or bool(((indices > 0) & (indices != IGNORE_INDEX)).any()):
        return []
    cure = f'label it, remove the case, or set "{ALLOW_EMPTY}": true in dataset.json if such cases are wanted'
    return [Problem(case=case.name, problem=f"empty label: {path.name} has no foreground", cure=cure)]


def _file_problem(case: Case, error: FileError) -> Problem:
    return Problem(case=case.name, problem=f"{error.path.name}: {error.problem}", cure=error.cure)


def _grid_problem(case: Case, path: Path, difference: str) -> Problem:
    what = "label" if path == case.label else "channel"
    problem = f"different grid: {what} {path.name} and first channel {case.images[0].name}: {difference}"
    cure = f"export {path.name} again, or resample it to the grid of the first channel"
    return Problem(case=case.name, problem=problem, cure=cure)


def _same_images(digests: Mapping[str, str | None]) -> list[Problem]:
    first: dict[str, str] = {}
    cure = f'remove one of the two, or set "{ALLOW_DUPLICATES}": true in dataset.json if both are wanted'
    return [
        Problem(case=name, problem=f"duplicate case: its images equal those of {first[digest]}", cure=cure)
        for name, digest in digests.items()
        if digest is not None and first.setdefault(digest, name) != name
    ]
