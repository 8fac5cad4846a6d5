"""Scores of a segmentation against the truth, from its voxels, its surface and its components.

Formulas and sources of all scores: documentation/reference/scores.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.records import Record
from seg25d.core.types import Spacing
from seg25d.data.labels import IGNORE_INDEX, NUM_INDICES
from seg25d.evaluation.lesions import LesionCounts, count_lesions
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM, SurfaceScores, find_surfaces, surface_scores

MM3_PER_ML = 1000


class Counts(NamedTuple):
    """Voxels of one class: true positive, false positive, false negative, true negative."""

    tp: int
    fp: int
    fn: int
    tn: int


class Scores(Record):
    """The scores of a class; null if a score is undefined, as for a class that is in neither segmentation.

    Scores below `mean_accuracy` are null in files of earlier versions of seg25d.
    """

    dice: float | None = None
    """2 TP / (2 TP + FP + FN)"""
    hd95_mm: float | None = None
    """The larger of the two directed 95th percentiles of surface distances; the diagonal of the volume if one of the
    two segmentations is empty."""
    precision: float | None = None
    """TP / (TP + FP)"""
    recall: float | None = None
    """TP / (TP + FN)"""
    iou: float | None = None
    """TP / (TP + FP + FN)"""
    mean_accuracy: float | None = None
    """(TN / (TN + FP) + TP / (TP + FN)) / 2 (Angermann & Haltmeier 2019, section 4)"""
    mean_iou: float | None = None
    """(TN / (TN + FP + FN) + TP / (TP + FP + FN)) / 2 (as above)"""
    surface_dice: float | None = None
    """Share of both surfaces within a tolerance of the other one; 0 if one segmentation is empty."""
    lesion_f1: float | None = None
    """2 found / (2 found + missed + false) components, see `count_lesions`; 0 if one segmentation is empty."""
    volume_error_ml: float | None = None
    """Predicted minus true volume."""
    volume_error_percent: float | None = None
    """Volume error in percent of the true volume; null if that is 0."""


class Metrics(Scores):
    """The scores of a class in one case, and the voxels and components behind them."""

    tp: int
    fp: int
    fn: int
    tn: int
    num_true_components: int | None = None
    """Number of connected components of the truth, found and missed."""
    num_found_components: int | None = None
    """Number of true components of which at least one voxel is predicted."""
    num_missed_components: int | None = None
    """Number of true components without any predicted voxel."""
    num_false_components: int | None = None
    """Number of predicted components without any true voxel."""


def confusion(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    foreground: Mapping[str, Sequence[int]],
    ignore: int | None = IGNORE_INDEX,
) -> dict[str, Counts]:
    """Count true and false positives and negatives of every class.

    Args:
        reference: (D, H, W) internal indices.
        prediction: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.
        ignore: Voxels where the reference has this index are not counted.

    Returns:
        The counts per class; all zero for a volume without voxels.
    """
    joint = _joint_histogram(reference, prediction)
    if ignore is not None:
        joint[ignore] = 0
    total = int(joint.sum())
    counts = {}
    for name, members in foreground.items():
        index = list(members)
        tp = int(joint[np.ix_(index, index)].sum())
        fp = int(joint[:, index].sum()) - tp
        fn = int(joint[index].sum()) - tp
        counts[name] = Counts(tp, fp, fn, total - tp - fp - fn)
    return counts


def case_metrics(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    foreground: Mapping[str, Sequence[int]],
    spacing_mm: Spacing,
    surface_tolerance_mm: float = SURFACE_TOLERANCE_MM,
) -> dict[str, Metrics]:
    """Score every class of one case; ignored voxels of the reference are not counted.

    Args:
        reference: (D, H, W) internal indices, `IGNORE_INDEX` where ignored.
        prediction: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.
        spacing_mm: Spacing of both.
        surface_tolerance_mm: Distance between surfaces that is tolerated in `surface_dice`.

    Returns:
        The metrics per class. A class that is in neither array has null scores.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"the reference has shape {reference.shape}, the prediction {prediction.shape}")
    ignored = reference == IGNORE_INDEX
    if ignored.any():
        prediction = np.where(ignored, np.uint8(IGNORE_INDEX), prediction)
    del ignored  # of a large volume, a byte per voxel
    counts = confusion(reference, prediction, foreground)
    diagonal_mm = float(np.linalg.norm(np.multiply(reference.shape, spacing_mm)))
    box = _foreground_box(reference, prediction)
    reference, prediction = reference[box], prediction[box]
    lesions = count_lesions(reference, prediction, foreground)
    surfaces = find_surfaces(reference), find_surfaces(prediction)
    metrics = {}
    for name, members in foreground.items():
        scores = surface_scores(*surfaces, members, spacing_mm, surface_tolerance_mm)
        if scores is None:
            present = counts[name].tp + counts[name].fp + counts[name].fn > 0
            scores = SurfaceScores(diagonal_mm, 0.0) if present else None
        metrics[name] = overlap_metrics(counts[name], spacing_mm, scores, lesions[name])
    return metrics


def overlap_metrics(
    counts: Counts,
    spacing_mm: Spacing | None = None,
    surfaces: SurfaceScores | None = None,
    lesions: LesionCounts | None = None,
) -> Metrics:
    """Compute the scores from voxel counts, and add other scores that were measured before; missing ones are null."""
    tp, fp, fn, tn = counts
    specificity, recall = _ratio(tn, tn + fp), _ratio(tp, tp + fn)
    iou, iou_of_background = _ratio(tp, tp + fp + fn), _ratio(tn, tn + fp + fn)
    excess_percent = _ratio(100 * (fp - fn), tp + fn)
    return Metrics(
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        hd95_mm=surfaces.hd95_mm if surfaces else None,
        precision=_ratio(tp, tp + fp),
        recall=recall,
        iou=iou,
        mean_accuracy=_mean_or_none(recall, specificity),
        mean_iou=_mean_or_none(iou, iou_of_background),
        surface_dice=surfaces.surface_dice if surfaces else None,
        lesion_f1=lesions.f1 if lesions else None,
        volume_error_ml=(fp - fn) * math.prod(spacing_mm) / MM3_PER_ML if spacing_mm and tp + fp + fn else None,
        volume_error_percent=excess_percent,
        **counts._asdict(),
        **_component_counts(lesions),
    )


def _component_counts(lesions: LesionCounts | None) -> dict[str, int]:
    if lesions is None:
        return {}
    found, missed, false = lesions
    return {
        "num_true_components": found + missed,
        "num_found_components": found,
        "num_missed_components": missed,
        "num_false_components": false,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean_or_none(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _joint_histogram(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the voxels of each pair of indices (256, 256), slice by slice, as counting needs 8 bytes per voxel."""
    joint = np.zeros(NUM_INDICES**2, np.int64)
    for truth, guess in zip(reference, prediction, strict=True):
        pairs = truth.astype(np.uint16) * NUM_INDICES + guess
        joint += np.bincount(pairs.ravel(), minlength=NUM_INDICES**2)
    return joint.reshape(NUM_INDICES, NUM_INDICES)


def _foreground_box(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> tuple[slice, ...]:
    """The smallest box around all values above 0 in either array; empty if there are none."""
    occupied = (reference > 0) | (prediction > 0)
    along_axes = (np.flatnonzero(occupied.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    return tuple(slice(found[0], found[-1] + 1) if len(found) else slice(0) for found in along_axes)
