"""Pairs of predicted and true segmentations, read as internal indices."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.types import IntArray, Spacing
from seg25d.data.cases import ENDINGS, Case, all_image_files, by_stem, image_files, is_picture, source_stamp
from seg25d.data.description import read_description
from seg25d.data.grid_problems import grid_problem
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.data.problems import MAX_LISTED, first_names

logger = logging.getLogger(__name__)
BYTES_PER_VOXEL = 22
"""Peak memory of a case with labels in 32-bit floating point, of which three copies are there while the prediction is
read; 13 with whole numbers (ru_maxrss of the evaluation of one case of 120 x 256 x 256 voxels and 60 classes, without
what libraries take)."""
_MAX_VALUES = 254


class Pair(NamedTuple):
    """The files of a case."""

    case: str
    reference: Path
    prediction: Path

    @property
    def stamp(self) -> list[Any]:
        """Plain JSON values that change when a file does, or lies elsewhere."""
        files = Case(name=self.case, images=(self.prediction,), label=self.reference)
        return [self.case, str(self.prediction.resolve()), str(self.reference.resolve()), source_stamp(files)]


class LabelValues(NamedTuple):
    """Values to score each by itself, whatever others the files have (nnU-Net's evaluate_simple)."""

    values: tuple[int, ...]
    ignored: int | None
    """The value in the truth of voxels that do not count; None: there is none."""


class Segmentations(NamedTuple):
    """Truth and prediction of a case."""

    reference: NDArray[np.uint8]
    """(D, H, W) internal indices, `IGNORE_INDEX` where ignored."""
    prediction: NDArray[np.uint8]
    """(D, H, W) internal indices."""
    foreground: dict[str, tuple[int, ...]]
    """Indices that belong to each class (its value as text) or region (its name)."""
    spacing_mm: Spacing


def find_pairs(reference_dir: Path, prediction_dir: Path, *, common: bool = False) -> list[Pair]:
    """Pair the segmentations of two folders by name; what is left out is told.

    Args:
        reference_dir: True segmentations.
        prediction_dir: Predicted ones; further ones are left out.
        common: Whether references without a prediction are left out as well.

    Returns:
        At least one pair, sorted by case.

    Raises:
        InputError: If there is nothing to compare, predictions are missing, or a case has several files.
    """
    references, predictions = _segmentations(reference_dir, prediction_dir)
    if not references:
        raise InputError(f"{reference_dir} holds no segmentations ({', '.join(ENDINGS)})")
    missing, further = sorted(references.keys() - predictions), sorted(predictions.keys() - references)
    wanted = sorted(references.keys() & predictions if common else references)
    _check_single({reference_dir: references, prediction_dir: predictions}, wanted)
    if missing and not common:
        raise InputError(
            f"{prediction_dir} has no prediction for {len(missing)} of {len(references)} cases: "
            f"{first_names(missing)}; predict them, remove their references from the folder, or score "
            "what both folders have with --common"
        )
    if not wanted:
        raise InputError(
            f"{reference_dir} and {prediction_dir} have no case in common: expected files of the same names, got "
            f"{first_names(missing)} against {first_names(further) or 'no segmentations'}; rename the predictions "
            "like the references"
        )
    if common:
        logger.info(
            "scoring the %d case(s) that both folders have; left out: %s, %s",
            len(wanted),
            _count(missing, len(references), "reference"),
            _count(further, len(predictions), "prediction"),
        )
    elif further:
        logger.info("left out, as they have no reference: %s", _count(further, len(predictions), "prediction"))
    return [Pair(case, references[case][0], predictions[case][0]) for case in wanted]


def find_segmentations(folder: Path) -> dict[str, Path]:
    """Find the segmentations of a folder by case: medical images, or pictures where there are only these.

    Raises:
        InputError: If it is no folder or holds none, or a case has several files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder of segmentations")
    files = by_stem(image_files(folder) or all_image_files(folder))
    if not files:
        raise InputError(f"{folder} holds no segmentations ({', '.join(ENDINGS)})")
    _check_single({folder: files}, sorted(files))
    return {case: paths[0] for case, paths in files.items()}


def find_labels(reference_dir: Path, prediction_dir: Path) -> Labels | None:
    """Read the labels of a `dataset.json` with the predictions, with the references, or in their parent; else None."""
    for folder in (prediction_dir, reference_dir, reference_dir.resolve().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json").labels
    return None


def read_pair(labels: Labels | LabelValues | None, pair: Pair) -> Segmentations:
    """Read the files of a case.

    Args:
        labels: Meaning of the values, or those to score; None: every value above 0 in either file is a class.
        pair: The files.

    Raises:
        InputError: If the grids differ, or the values are not those of segmentations.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that is not declared.
    """
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    names = labels.names if isinstance(labels, Labels) else None
    reference, geometry = read_labels(pair.reference, names)
    prediction, other = read_labels(pair.prediction, names)
    if found := grid_problem(pair.prediction, other, pair.reference, geometry):
        difference, cure = found
        raise InputError(
            f"{pair.case}: the grid of {pair.prediction} is not that of {pair.reference}: {difference}; {cure}"
        )
    if labels is None:
        values, truth, guess = _compact(reference, prediction, pair.case)
        foreground: dict[str, tuple[int, ...]] = {str(value): (index,) for index, value in enumerate(values) if index}
    elif isinstance(labels, LabelValues):
        truth, guess = (_positions(array, labels.values) for array in (reference, prediction))
        truth[reference == labels.ignored] = IGNORE_INDEX
        foreground = {str(value): (index,) for index, value in enumerate(labels.values, 1)}
    else:
        truth, guess = labels.encode(reference, str(pair.reference)), labels.encode(prediction, str(pair.prediction))
        foreground = labels.foreground
    return Segmentations(truth, guess, foreground, geometry.canonical_spacing_mm)


def _segmentations(*folders: Path) -> list[dict[str, list[Path]]]:
    """The files of both folders by case: medical images, or pictures where only these have cases in common."""
    if wrong := [folder for folder in folders if not folder.is_dir()]:
        raise InputError(f"{wrong[0]} is not a folder; expected a folder of segmentations")
    kinds = [[image_files(folder, pictures=pictures) for folder in folders] for pictures in (False, True)]
    found = [[by_stem(paths) for paths in kind] for kind in kinds]
    shared = [set(files[0]).intersection(*files) for files in found]
    chosen = int(not shared[0] and any(map(is_picture, kinds[1][0])) and bool(shared[1]))
    for folder, paths in zip(folders, kinds[chosen], strict=True):
        if others := sorted(set(all_image_files(folder)) - set(paths)):
            kind = "medical image(s)" if chosen else "picture(s)"
            logger.info(
                "left out in %s: %d %s (%s)", folder, len(others), kind, first_names([path.name for path in others])
            )
    return found[chosen]


def _check_single(folders: Mapping[Path, Mapping[str, Sequence[Path]]], wanted: Iterable[str]) -> None:
    """Check that each of these cases has one file in a folder."""
    twice = [
        f"  {' and '.join(path.name for path in files[case])} in {folder}"
        for folder, files in folders.items()
        for case in wanted
        if len(files.get(case, ())) > 1
    ]
    if twice:
        more = [f"  and {len(twice) - MAX_LISTED} more"] if len(twice) > MAX_LISTED else []
        lines = "\n".join(twice[:MAX_LISTED] + more)
        raise InputError(f"several files have the same case name; keep one of each:\n{lines}")


def _count(names: Sequence[str], total: int, noun: str) -> str:
    told = f" ({first_names(names)})" if names else ""
    return f"{len(names)} of {total} {noun}(s){told}"


def _positions(array: IntArray, values: Sequence[int]) -> NDArray[np.uint8]:
    """Positions, from 1 on, of the voxels' values among these; 0 for all others."""
    result = np.zeros(array.shape, np.uint8)
    for position, value in enumerate(values, 1):
        result[array == value] = position
    return result


def _compact(
    reference: IntArray, prediction: IntArray, case: str
) -> tuple[list[int], NDArray[np.uint8], NDArray[np.uint8]]:
    """Find the values in either array, 0 first, and convert both arrays to positions in that list."""
    # Slice by slice: copies of whole arrays, sorted or as positions of eight bytes, would take most of the memory.
    found = [np.unique(plane) for array in (reference, prediction) for plane in array]
    values = np.unique(np.concatenate([np.zeros(1), *found]))
    if values[0] < 0 or not np.array_equal(values, np.rint(values)) or len(values) > _MAX_VALUES:
        raise InputError(
            f"{case}: expected segmentations with at most {_MAX_VALUES} different values, whole numbers >= 0; there "
            f"are {len(values)} from {values[0]:g} to {values[-1]:g}: is one of the two a folder of images?"
        )
    truth, guess = np.empty(reference.shape, np.uint8), np.empty(prediction.shape, np.uint8)
    for array, positions in ((reference, truth), (prediction, guess)):
        for plane, found_there in zip(array, positions, strict=True):
            found_there[...] = np.searchsorted(values, plane)
    return [int(value) for value in values], truth, guess
