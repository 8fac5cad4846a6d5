"""How many slices of each case are labelled, where others have the `ignore` label: counted and put into words."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import AXIS_NAMES
from seg25d.core.types import Shape
from seg25d.data.labels import IGNORE_INDEX

FEWEST_LONE = 3
"""Slices with foreground, none of them neighbours, from which on it is no chance; our choice."""


def count_labelled_slices(indices: NDArray[np.uint8]) -> Shape:
    """Count the slices along each axis that have a voxel which is not ignored.

    Args:
        indices: (D, H, W), internal indices.

    Returns:
        Slices along (D, H, W).
    """
    labelled = indices != IGNORE_INDEX
    depth, height, width = (int(np.count_nonzero(labelled.any(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1)))
    return depth, height, width


def find_lone_slices(indices: NDArray[np.uint8]) -> int | None:
    """Find an axis along which three slices or more have foreground and no two of them are neighbours.

    Structures hardly ever lie so; labels of every other slice do. Where the slices between are ignored it is as it
    should be.

    Args:
        indices: (D, H, W), internal indices.

    Returns:
        The axis; None if there is none.
    """
    labelled = indices != IGNORE_INDEX
    foreground = labelled & (indices > 0)
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        shown = np.flatnonzero(foreground.any(axis=others))
        if len(shown) < FEWEST_LONE or (np.diff(shown) == 1).any():
            continue
        if np.count_nonzero(labelled.any(axis=others)[shown[0] : shown[-1] + 1]) > len(shown):
            return axis
    return None


def hide_unlabelled(indices: NDArray[np.uint8], axis: int, every: int | None = None) -> NDArray[np.uint8]:
    """Ignore the slices that do not count as labelled.

    Args:
        indices: (D, H, W), internal indices without ignored voxels; not changed.
        axis: Along which slices are taken: 0 D, 1 H, 2 W.
        every: One slice in so many is labelled, counted from the first with foreground, or from the first where there
            is none; None: the slices with foreground are.

    Returns:
        (D, H, W).
    """
    shown: NDArray[np.bool_] = np.any(indices > 0, axis=tuple(other for other in range(3) if other != axis))
    if every is not None:
        shown = np.arange(len(shown)) % every == int(shown.argmax()) % every
    hidden = indices.copy()
    np.moveaxis(hidden, axis, 0)[np.logical_not(shown)] = IGNORE_INDEX
    return hidden


def describe_labelled_slices(cases: Sequence[tuple[Shape, Shape]]) -> str | None:
    """Describe how many slices of a data set are labelled, along the axis along which the fewest are.

    Args:
        cases: Slices that are labelled and all slices, along (D, H, W), of each case that may have ignored voxels.

    Returns:
        None where every slice of every case is labelled.
    """
    if not cases:
        return None
    labelled, slices = np.array([case for case, _ in cases]), np.array([shape for _, shape in cases])
    axis = int((labelled / slices).mean(axis=0).argmin())
    partly = labelled[:, axis] < slices[:, axis]
    if not partly.any():
        return None
    some, every = (f"{np.median(numbers[partly, axis]):g}" for numbers in (labelled, slices))
    return (
        f"{partly.sum()} of {len(cases)} case(s) are labelled in some slices along {AXIS_NAMES[axis]} only, in the "
        f"median in {some} of {every}; the others are ignored, and windows are drawn where labels are"
    )
