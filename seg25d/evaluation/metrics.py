"""How well a segmentation agrees with the truth: overlap from voxel counts, and surface distances in millimetres."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg25d.core.records import Record
from seg25d.core.types import Spacing
from seg25d.data.labels import IGNORE_INDEX

NUM_INDICES = 256
Box: TypeAlias = tuple[slice, slice, slice]
PERCENTILE = 95


class Counts(NamedTuple):
    """Voxels of one class: right, wrongly predicted, missed, rightly left out."""

    tp: int
    fp: int
    fn: int
    tn: int


class Scores(Record):
    """The scores of a class; null where a score means nothing, as for a class that is in neither segmentation."""

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


class Metrics(Scores):
    """The scores of a class in one case, and the voxels behind them."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def mean_iou(self) -> float | None:
        """(TN / (TN + FP + FN) + TP / (TP + FP + FN)) / 2 (Angermann & Haltmeier 2019, section 4).

        Not in any file; None where either means nothing.
        """
        of_background = _ratio(self.tn, self.tn + self.fp + self.fn)
        return None if self.iou is None or of_background is None else (of_background + self.iou) / 2


def confusion(
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    foreground: Mapping[str, Sequence[int]],
    ignore: int | None = IGNORE_INDEX,
) -> dict[str, Counts]:
    """Count right and wrong voxels of every class.

    Args:
        reference: (D, H, W) internal indices.
        prediction: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.
        ignore: Voxels where the reference has this index count nowhere.

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
) -> dict[str, Metrics]:
    """Score every class of one case; ignored voxels of the reference count nowhere.

    Args:
        reference: (D, H, W) internal indices, `IGNORE_INDEX` where ignored.
        prediction: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.
        spacing_mm: Of both.

    Returns:
        The metrics per class. A class that is in neither has null scores.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"the reference has shape {reference.shape}, the prediction {prediction.shape}")
    ignored = reference == IGNORE_INDEX
    if ignored.any():
        prediction = np.where(ignored, np.uint8(IGNORE_INDEX), prediction)
    boxes = _boxes(reference), _boxes(prediction)
    metrics = {}
    for name, counts in confusion(reference, prediction, foreground).items():
        box = _joint_box([found[index] for index in foreground[name] for found in boxes if index in found])
        distance = None
        if box is not None:
            member = np.zeros(NUM_INDICES, np.bool_)
            member[list(foreground[name])] = True
            distance = hd95(member[reference[box]], member[prediction[box]], spacing_mm)
            if distance is None:
                distance = float(np.linalg.norm(np.multiply(reference.shape, spacing_mm)))
        metrics[name] = overlap_metrics(counts, distance)
    return metrics


def overlap_metrics(counts: Counts, hd95_mm: float | None = None) -> Metrics:
    """The scores that follow from voxel counts, with a surface distance that was measured before."""
    tp, fp, fn, tn = counts
    specificity, recall = _ratio(tn, tn + fp), _ratio(tp, tp + fn)
    return Metrics(
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        hd95_mm=hd95_mm,
        precision=_ratio(tp, tp + fp),
        recall=recall,
        iou=_ratio(tp, tp + fp + fn),
        mean_accuracy=None if recall is None or specificity is None else (specificity + recall) / 2,
        **counts._asdict(),
    )


def hd95(reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Spacing) -> float | None:
    """The 95 % Hausdorff distance as MONAI defines it.

    The surface of a mask is made of its voxels that touch, by a face, a voxel outside of it; voxels at the border of
    the arrays touch the outside. For each surface voxel of one mask the distance to the nearest surface voxel of the
    other is taken (between centres); the larger of the two 95th percentiles counts.

    Args:
        reference: (D, H, W).
        prediction: (D, H, W).
        spacing_mm: Of both.

    Returns:
        Millimetres, or None if a mask is empty.
    """
    if not (reference.any() and prediction.any()):
        return None
    from monai.metrics.utils import get_mask_edges, get_surface_distance  # noqa: PLC0415 - takes seconds

    # No surface may have a coordinate of 0: next to it scipy's KDTree, which MONAI asks, splits at a denormal number,
    # and recurses without end where those are flushed to zero, as training and prediction on a CPU do.
    truth, guess = get_mask_edges(np.pad(reference, 1), np.pad(prediction, 1), crop=False)
    distances = [
        get_surface_distance(here, there, spacing=spacing_mm) for here, there in ((truth, guess), (guess, truth))
    ]
    return max(float(np.percentile(each, PERCENTILE)) for each in distances)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _joint_histogram(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256, 256): voxels per pair of indices, slice by slice, as counting needs 8 bytes per voxel."""
    joint = np.zeros(NUM_INDICES**2, np.int64)
    for truth, guess in zip(reference, prediction, strict=True):
        pairs = truth.astype(np.uint16) * NUM_INDICES + guess
        joint += np.bincount(pairs.ravel(), minlength=NUM_INDICES**2)
    return joint.reshape(NUM_INDICES, NUM_INDICES)


def _boxes(labels: NDArray[Any]) -> dict[int, Box]:
    """The bounding box of every index above 0 that occurs."""
    from scipy import ndimage  # noqa: PLC0415 - heavy

    return {
        index: (box[0], box[1], box[2]) for index, box in enumerate(ndimage.find_objects(labels), 1) if box is not None
    }


def _joint_box(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all of them; None if there are none."""
    if not boxes:
        return None
    depth, height, width = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3)
    )
    return depth, height, width
