"""Lesion-wise detection: components of the truth that were found or missed, and falsely predicted components."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.data.labels import NUM_INDICES


class LesionCounts(NamedTuple):
    """Numbers of connected components of a class, by their overlap with the other segmentation."""

    found: int
    """True components of which at least one voxel is predicted."""
    missed: int
    """True components without any predicted voxel."""
    false: int
    """Predicted components without any true voxel."""

    @property
    def f1(self) -> float | None:
        """2 found / (2 found + missed + false); None if there are no components."""
        whole = 2 * self.found + self.missed + self.false
        return 2 * self.found / whole if whole else None


def count_lesions(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], foreground: Mapping[str, Sequence[int]]
) -> dict[str, LesionCounts]:
    """Count found, missed and false components of every class.

    The rule is that of the ISLES 2022 challenge (`compute_lesion_f1_score` of its `utils/eval_utils.py`): voxels that
    share a corner are connected, and one common voxel is enough for a hit. A predicted component that covers several
    lesions finds them all, and several predicted components within one lesion count once.

    Args:
        reference: (D, H, W) internal indices.
        prediction: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.

    Returns:
        The counts per class; all zero for a class that is in neither array.
    """
    if all(len(members) == 1 for members in foreground.values()):
        # Classes do not overlap, so the components of all of them are found in one pass.
        counts = _count(reference, prediction)
        return {name: counts[members[0]] for name, members in foreground.items()}
    lesions = {}
    for name, members in foreground.items():
        inside = np.zeros(NUM_INDICES, np.uint8)
        inside[list(members)] = 1
        lesions[name] = _count(inside[reference], inside[prediction])[1]
    return lesions


def _count(reference: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> list[LesionCounts]:
    """Count the components of each index."""
    num_true, num_found = _count_components(reference, prediction)
    num_predicted, num_right = _count_components(prediction, reference)
    columns = (num_found, num_true - num_found, num_predicted - num_right)
    return [LesionCounts(*row) for row in np.stack(columns, axis=1).tolist()]


def _count_components(
    labels: NDArray[np.uint8], other: NDArray[np.uint8]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Numbers (256,) of components per index: all, and those that share a voxel with that index in the other array."""
    import cc3d  # noqa: PLC0415 - loaded only where it is needed

    if not labels.any():
        return np.zeros(NUM_INDICES, np.int64), np.zeros(NUM_INDICES, np.int64)
    ids, num_components = cc3d.connected_components(labels, connectivity=26, return_N=True)
    index_of = np.zeros(num_components + 1, np.uint8)
    shared = np.zeros(num_components + 1, np.bool_)
    # Plane by plane: what is looked up takes as much memory as the ids, which is four bytes per voxel.
    for plane, own, others in zip(ids, labels, other, strict=True):
        inside = own > 0
        index_of[plane[inside]] = own[inside]
        shared[plane[inside & (own == others)]] = True
    shared[0] = False
    return np.bincount(index_of[1:], minlength=NUM_INDICES), np.bincount(index_of[shared], minlength=NUM_INDICES)
