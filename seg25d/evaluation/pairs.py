"""Pairs of predicted and true segmentations, read as internal indices."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.types import IntArray, Spacing
from seg25d.data.cases import by_stem, image_files
from seg25d.data.description import read_description
from seg25d.data.labels import Labels

_MAX_VALUES = 254


class Pair(NamedTuple):
    """The files of a case."""

    case: str
    reference: Path
    prediction: Path


class Segmentations(NamedTuple):
    """Truth and prediction of a case."""

    reference: NDArray[np.uint8]
    """(D, H, W) internal indices, `IGNORE_INDEX` where ignored."""
    prediction: NDArray[np.uint8]
    """(D, H, W) internal indices."""
    foreground: dict[str, tuple[int, ...]]
    """Indices that belong to each class (its value as text) or region (its name)."""
    spacing_mm: Spacing


def find_pairs(reference_dir: Path, prediction_dir: Path) -> list[Pair]:
    """Pair the segmentations of two folders by name; further predictions are left out.

    Returns:
        At least one pair, sorted by case.

    Raises:
        InputError: If there is nothing to compare, predictions are missing (lists all), or a case has several files.
    """
    for folder in (reference_dir, prediction_dir):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; expected a folder of segmentations")
    references, predictions = by_stem(image_files(reference_dir)), by_stem(image_files(prediction_dir))
    if not references:
        raise InputError(f"{reference_dir} holds no segmentations (.nii.gz, .nii, .nrrd, .mha, .mhd)")
    twice = [
        f"  {' and '.join(path.name for path in paths)} in {folder}"
        for folder, files in ((reference_dir, references), (prediction_dir, predictions))
        for case, paths in files.items()
        if len(paths) > 1 and case in references
    ]
    if twice:
        raise InputError("several files have the same case name; keep one of each:\n" + "\n".join(twice))
    missing = sorted(set(references) - set(predictions))
    if missing:
        raise InputError(
            f"{prediction_dir} has no prediction for {len(missing)} of {len(references)} cases: {', '.join(missing)}; "
            "predict them, or remove their references from the folder"
        )
    return [Pair(case, references[case][0], predictions[case][0]) for case in sorted(references)]


def find_labels(reference_dir: Path, prediction_dir: Path) -> Labels | None:
    """Read the labels of a `dataset.json` with the predictions, with the references, or in their parent; else None."""
    for folder in (prediction_dir, reference_dir, reference_dir.resolve().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json").labels
    return None


def read_pair(labels: Labels | None, pair: Pair) -> Segmentations:
    """Read the files of a case.

    Args:
        labels: Meaning of the values; None: every value above 0 in either file is a class.
        pair: The files.

    Raises:
        InputError: If the grids differ, or the values are not those of segmentations.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that is not declared.
    """
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    reference, geometry = read_labels(pair.reference)
    prediction, other = read_labels(pair.prediction)
    if difference := geometry.difference(other):
        raise InputError(
            f"{pair.case}: the grid of {pair.prediction} is not that of {pair.reference}: {difference}; "
            "bring the prediction to the grid of the reference"
        )
    if labels is None:
        values, truth, guess = _compact(reference, prediction, pair.case)
        foreground: dict[str, tuple[int, ...]] = {str(value): (index,) for index, value in enumerate(values) if index}
    else:
        truth, guess = labels.encode(reference, str(pair.reference)), labels.encode(prediction, str(pair.prediction))
        foreground = labels.foreground
    return Segmentations(truth, guess, foreground, geometry.canonical_spacing_mm)


def _compact(
    reference: IntArray, prediction: IntArray, case: str
) -> tuple[list[int], NDArray[np.uint8], NDArray[np.uint8]]:
    """Find the values in either array, 0 first, and convert both arrays to positions in that list."""
    found = [np.unique(array) for array in (reference, prediction)]
    values = np.unique(np.concatenate([np.zeros(1), *found]))
    if values[0] < 0 or not np.array_equal(values, np.rint(values)) or len(values) > _MAX_VALUES:
        raise InputError(
            f"{case}: expected segmentations with at most {_MAX_VALUES} different values, whole numbers >= 0; there "
            f"are {len(values)} from {values[0]:g} to {values[-1]:g}: is one of the two a folder of images?"
        )
    truth, guess = (np.searchsorted(values, array).astype(np.uint8) for array in (reference, prediction))
    return [int(value) for value in values], truth, guess
