"""Comparing a folder of segmentations with a folder of true ones."""

import csv
import io
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.files import write_text
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.types import IntArray
from seg25d.data.cases import by_stem, image_files
from seg25d.data.description import read_description
from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import Counts, Metrics, case_metrics, overlap_metrics
from seg25d.evaluation.summary import CaseSummary, Summary, summarize

_BYTES_PER_WORKER = 2 << 30
_MAX_VALUES = 254


class _Pair(NamedTuple):
    case: str
    reference: Path
    prediction: Path


class _Scored(NamedTuple):
    """A case with the metrics of all values in either file, and what is needed for the values in neither."""

    summary: CaseSummary
    num_voxels: int
    reference_values: tuple[str, ...]


def evaluate_folders(reference_dir: Path, prediction_dir: Path, num_workers: int | None = None) -> Summary:
    """Compare every segmentation of a folder of true ones with the prediction of the same name.

    The labels, regions and the ignored value are those of a `dataset.json` in the predictions' folder, in the
    references' folder or in its parent (taken in that order); without one, every value above 0 that any reference has.

    Args:
        reference_dir: True segmentations, `CASE.ENDING`.
        prediction_dir: Predicted ones; the endings may differ, and further cases are left out.
        num_workers: Worker processes; 0 works in this process, None chooses.

    Returns:
        The summary, cases sorted by name.

    Raises:
        InputError: If there is nothing to compare, predictions are missing (lists all) or a grid differs.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that `dataset.json` does not declare.
    """
    pairs = _find_pairs(reference_dir, prediction_dir)
    labels = _find_labels(reference_dir, prediction_dir)
    workers = choose_num_workers(num_workers, _BYTES_PER_WORKER)
    done = map_cases(partial(_score, labels), pairs, name=lambda pair: pair.case, num_workers=workers)
    scored = [result for _, result in track(done, len(pairs), "evaluating")]
    if labels is not None:
        return summarize([each.summary for each in scored])
    values = sorted({value for each in scored for value in each.reference_values}, key=int)
    return summarize([_complete(each, values) for each in scored])


def write_csv(summary: Summary, path: Path) -> None:
    """Write a table with a row per case and label; a score that is null is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(Metrics.model_fields)
    writer.writerow(["case", "label", *columns])
    for case in summary.per_case:
        for label, metrics in case.metrics.items():
            writer.writerow([case.case, label, *(getattr(metrics, column) for column in columns)])
    write_text(path, text.getvalue())


def _find_pairs(reference_dir: Path, prediction_dir: Path) -> list[_Pair]:
    for folder in (reference_dir, prediction_dir):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; wanted a folder of segmentations")
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
            "predict them, or take their references out of the folder"
        )
    return [_Pair(case, references[case][0], predictions[case][0]) for case in sorted(references)]


def _find_labels(reference_dir: Path, prediction_dir: Path) -> Labels | None:
    for folder in (prediction_dir, reference_dir, reference_dir.resolve().parent):
        if (folder / "dataset.json").is_file():
            return read_description(folder / "dataset.json").labels
    return None


def _score(labels: Labels | None, pair: _Pair) -> _Scored:
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
    metrics = case_metrics(truth, guess, foreground, geometry.canonical_spacing_mm)
    present = tuple(name for name, each in metrics.items() if each.tp + each.fn > 0)
    return _Scored(CaseSummary(case=pair.case, metrics=metrics), truth.size, present)


def _compact(
    reference: IntArray, prediction: IntArray, case: str
) -> tuple[list[int], NDArray[np.uint8], NDArray[np.uint8]]:
    """The values in either array, 0 first, and both arrays as positions in that list."""
    found = [np.unique(array) for array in (reference, prediction)]
    values = np.unique(np.concatenate([np.zeros(1), *found]))
    if values[0] < 0 or not np.array_equal(values, np.rint(values)) or len(values) > _MAX_VALUES:
        raise InputError(
            f"{case}: wanted segmentations with at most {_MAX_VALUES} different values, whole numbers from 0 on; there "
            f"are {len(values)} from {values[0]:g} to {values[-1]:g}: is one of the two folders one of images?"
        )
    truth, guess = (np.searchsorted(values, array).astype(np.uint8) for array in (reference, prediction))
    return [int(value) for value in values], truth, guess


def _complete(scored: _Scored, values: list[str]) -> CaseSummary:
    """The case with just these values; one that is in neither file has null scores."""
    metrics = scored.summary.metrics
    absent = overlap_metrics(Counts(0, 0, 0, scored.num_voxels))
    return CaseSummary(case=scored.summary.case, metrics={value: metrics.get(value, absent) for value in values})
