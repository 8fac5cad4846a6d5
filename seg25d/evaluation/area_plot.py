"""Area plots of Shivdeo et al. (arXiv 2101.07612, section 5.3): the area of foreground in each slice.

The area in slice-wise predictions tends to jump from slice to slice where the truth is smooth. The paper shows this
only in pictures; here it is measured too (methods.md 2.5).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.files import write_text
from seg25d.core.records import Record, write_record
from seg25d.core.types import FloatArray, Spacing
from seg25d.core.unfinished import Unfinished, map_and_keep
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.data.sizes import choose_workers
from seg25d.evaluation.pairs import BYTES_PER_VOXEL, Pair, find_labels, find_pairs, read_pair

Axis = Literal["axial", "coronal", "sagittal"]
"""Name of the direction of slices."""
AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
"""Names of the canonical axes, in the order (D, H, W)."""
FILES = ("area_plots.csv", "area_plots.json")
"""The files beside the plots."""
REFERENCE = "reference"
"""The name of the truth in tables."""


class AreaNumbers(Record):
    """Measures of an area curve A; the first two compare it with the truth and are null for the truth itself."""

    mean_absolute_difference: float | None = None
    """Mean over the slices of |A - A of the truth|; null if both are 0 everywhere."""
    correlation: float | None = None
    """Pearson's correlation with A of the truth; null if one of the two is constant."""
    total_variation: float | None = None
    """Sum of |A of a slice - A of the previous slice|: 2 for a curve that rises once to 1 and falls back to 0."""
    num_runs: float | None = None
    """Number of runs of neighbouring slices with foreground: 1 for one connected object, 0 for none."""


class AreaCurve(AreaNumbers):
    """The area curve of one segmentation, and its measures."""

    areas: tuple[float, ...]
    """A of every slice: its area divided by the largest area; 0 everywhere without foreground."""


class CaseAreas(Record):
    """The area plot of one case."""

    case: str
    axis: Axis
    """Axis along which slices are counted, from inferior, anterior or right."""
    slice_distance_mm: float
    reference: AreaCurve
    predictions: dict[str, AreaCurve]


class AreaPlots(Record):
    """Content of `area_plots.json`."""

    schema_version: Literal[1] = 1
    mean: dict[str, AreaNumbers] = Field(default_factory=dict)
    """Mean measures of each segmentation (the truth is `reference`) over the cases that have them."""
    per_case: tuple[CaseAreas, ...]


class AreaPlotOptions(NamedTuple):
    """Output folder and axis of area plots."""

    folder: Path
    axis: Axis | None = None
    """Direction of the slices; None: for each case the axis with the largest spacing, or axial if it is not unique."""


class _Job(NamedTuple):
    """A case with its files in all folders of predictions."""

    case: str
    pairs: dict[str, Pair]


class _SliceAreas(NamedTuple):
    """Foreground shares (n,) of all slices."""

    axis: Axis
    slice_distance_mm: float
    reference: FloatArray
    prediction: FloatArray


def area_plots(
    reference_dir: Path,
    predictions: Mapping[str, Path],
    axis: Axis | None = None,
    num_workers: int | None = None,
) -> AreaPlots:
    """Measure the areas of true and predicted foreground in the slices of every case.

    Foreground is all classes together; voxels that the truth ignores are left out. Labels are found as in
    `evaluate_folders`.

    Args:
        reference_dir: True segmentations.
        predictions: Folders of predictions by name, at least one; each contains every case of the truth.
        axis: Direction of the slices, see `AreaPlotOptions`.
        num_workers: Worker processes; 0 works in this process, None chooses.

    Returns:
        Curves and measures, cases sorted by name.

    Raises:
        InputError: If there is nothing to compare, a name is reserved, predictions are missing or a grid differs.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that `dataset.json` does not declare.
    """
    if not predictions or REFERENCE in predictions:
        raise InputError(
            f"expected folders of predictions by name, without the name {REFERENCE}; got {sorted(predictions)}"
        )
    labels = {name: find_labels(reference_dir, folder) for name, folder in predictions.items()}
    pairs = {name: find_pairs(reference_dir, folder) for name, folder in predictions.items()}
    return measure_areas(pairs, labels, axis, num_workers)


def measure_areas(
    pairs: Mapping[str, Sequence[Pair]],
    labels: Mapping[str, Labels | None],
    axis: Axis | None = None,
    num_workers: int | None = None,
    output: Path | None = None,
) -> AreaPlots:
    """Like `area_plots`, for files that are paired already.

    Args:
        pairs: Pairs of each predictions' name, of the same cases in the same order.
        labels: Meaning of the values, by name; None: every value above 0 is foreground.
        axis: Direction of the slices, see `AreaPlotOptions`.
        num_workers: Worker processes; 0 works in this process, None chooses.
        output: A file beside which measured cases are kept, see `Unfinished`; None: nowhere.

    Raises:
        InputError: If a grid differs.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that is not declared.
    """
    jobs = [
        _Job(together[0].case, dict(zip(pairs, together, strict=True)))
        for together in zip(*pairs.values(), strict=True)
    ]
    references = [pair.reference for pair in next(iter(pairs.values()))]
    workers = choose_workers(num_workers, references, BYTES_PER_VOXEL)
    meaning = [(name, each and each.model_dump_json()) for name, each in labels.items()]
    unfinished = None if output is None else Unfinished(output, CaseAreas, _stamp, {"labels": meaning, "axis": axis})
    measure = partial(_measure, labels, axis)
    done = map_and_keep(measure, jobs, "measuring areas", unfinished, name=lambda job: job.case, num_workers=workers)
    cases = sorted((each for _, each in done), key=lambda each: each.case)
    curves = {REFERENCE: [case.reference for case in cases]}
    curves |= {name: [case.predictions[name] for case in cases] for name in pairs}
    return AreaPlots(mean={name: _average(each) for name, each in curves.items()}, per_case=tuple(cases))


def write_area_plots(plots: AreaPlots, folder: Path) -> None:
    """Write `CASE.png` for each case, then `area_plots.csv` and `area_plots.json`; each is complete or absent."""
    from seg25d.evaluation.pictures import draw_curves  # noqa: PLC0415 - needed only for pictures

    for case in plots.per_case:
        curves = {REFERENCE: case.reference.areas} | {name: each.areas for name, each in case.predictions.items()}
        along = f"{case.axis} slice, {case.slice_distance_mm:.3g} mm apart"
        draw_curves(folder / f"{case.case}.png", curves, (case.case, along, "area / largest area"))
    write_text(folder / FILES[0], _table(plots))
    write_record(folder / FILES[1], plots)


def coarsest_axis(spacing_mm: Spacing) -> Axis:
    """The axis with the largest spacing; axial if it is not unique."""
    furthest = [axis for axis, spacing in zip(AXES, spacing_mm, strict=True) if spacing > 0.99 * max(spacing_mm)]
    return furthest[0] if len(furthest) == 1 else AXES[0]


def area_curve(areas: FloatArray, reference: FloatArray | None = None) -> AreaCurve:
    """Compute the curve of areas, and its measures.

    Args:
        areas: Areas (n,) of all slices, in any unit.
        reference: Areas (n,) of the truth; None for the truth itself.
    """
    curve = _normalise(areas)
    positive = np.concatenate([[False], areas > 0])
    difference = correlation = None
    if reference is not None:
        truth = _normalise(reference)
        if curve.any() or truth.any():
            difference = float(np.abs(curve - truth).mean())
        if np.ptp(curve) > 0 and np.ptp(truth) > 0:
            correlation = float(np.corrcoef(curve, truth)[0, 1])
    return AreaCurve(
        areas=tuple(curve.tolist()),
        mean_absolute_difference=difference,
        correlation=correlation,
        total_variation=float(np.abs(np.diff(curve)).sum()),
        num_runs=np.count_nonzero(positive[1:] & ~positive[:-1]),
    )


def _normalise(areas: FloatArray) -> NDArray[np.float64]:
    largest = areas.max(initial=0)
    return np.asarray(areas, np.float64) / (largest if largest > 0 else 1)


def _stamp(job: _Job) -> list[Any]:
    return [pair.stamp for pair in job.pairs.values()]


def _measure(labels: Mapping[str, Labels | None], axis: Axis | None, job: _Job) -> CaseAreas:
    measured = {name: _slice_areas(labels[name], axis, pair) for name, pair in job.pairs.items()}
    first = next(iter(measured.values()))
    return CaseAreas(
        case=job.case,
        axis=first.axis,
        slice_distance_mm=first.slice_distance_mm,
        reference=area_curve(first.reference),
        predictions={name: area_curve(each.prediction, each.reference) for name, each in measured.items()},
    )


def _slice_areas(labels: Labels | None, axis: Axis | None, pair: Pair) -> _SliceAreas:
    segmentations = read_pair(labels, pair)
    axis = axis or coarsest_axis(segmentations.spacing_mm)
    number = AXES.index(axis)
    others = tuple(other for other in range(3) if other != number)
    counts = segmentations.reference != IGNORE_INDEX
    reference, prediction = (
        ((each > 0) & counts).mean(axis=others) for each in (segmentations.reference, segmentations.prediction)
    )
    return _SliceAreas(axis, segmentations.spacing_mm[number], reference, prediction)


def _average(curves: Sequence[AreaNumbers]) -> AreaNumbers:
    means = {}
    for name in AreaNumbers.model_fields:
        values = [value for each in curves if (value := getattr(each, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return AreaNumbers(**means)


def _table(plots: AreaPlots) -> str:
    """Format CSV with one row per case and segmentation; null is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(AreaNumbers.model_fields)
    writer.writerow(["case", "axis", "segmentation", *columns])
    for case in plots.per_case:
        for name, curve in ({REFERENCE: case.reference} | case.predictions).items():
            writer.writerow([case.case, case.axis, name, *(getattr(curve, column) for column in columns)])
    return text.getvalue()
