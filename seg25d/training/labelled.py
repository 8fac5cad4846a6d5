"""Where a case is labelled, if not everywhere: windows are drawn there, as one without any label teaches nothing.

Data sets in which only some slices are labelled have the `ignore` label in the others; so have scribbles and boxes.
Every labelled voxel is as likely as any other to be what a window is drawn for, and may lie anywhere in it: around its
middle, the labelled slice would always be the same one of a super image or a stack, and the others would learn nothing.
(nnU-Net centres such windows on labelled voxels, dataloading/data_loader.py: `annotated_classes_key`.)

Letters: D H W volume.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import BoundingBox, IntArray
from seg25d.data.labels import IGNORE_INDEX
from seg25d.preprocessing.store import CaseRecord

Loose = tuple[bool, bool, bool]
"""Axes (D, H, W) along which what a window is drawn for may lie anywhere in it, instead of in its middle."""
NOWHERE: Loose = (False, False, False)
EVERYWHERE: Loose = (True, True, True)


class LabelledPart(NamedTuple):
    """What is labelled of a case that has ignored voxels, too."""

    counts: IntArray
    """(D,), labelled voxels of each slice."""
    gaps: Loose
    """Axes along which some slices have no labelled voxel."""


def is_partly_labelled(record: CaseRecord) -> bool:
    """Whether some voxels of a case are labelled and others ignored."""
    return 0 < sum(record.voxels.values()) < math.prod(record.grid.shape)


def labelled_part(labels: NDArray[np.integer[Any]]) -> LabelledPart:
    """Find the slices that are labelled.

    Args:
        labels: (D, H, W), internal indices.
    """
    labelled = labels != IGNORE_INDEX
    counts = np.count_nonzero(labelled, axis=(1, 2))
    rows, columns = (labelled.any(axis=(0, other)) for other in (2, 1))
    return LabelledPart(counts, (not counts.all(), not rows.all(), not columns.all()))


def draw_labelled(
    rng: np.random.Generator, labels: Any, counts: IntArray, crop: BoundingBox
) -> NDArray[np.integer[Any]] | None:
    """Draw a labelled voxel (D, H, W) of a crop: a slice by its number of labelled voxels, then one of these.

    Args:
        rng: Draws it.
        labels: (D, H, W), internal indices, sliceable.
        counts: (D,), see `LabelledPart`.
        crop: Half-open ranges along (D, H, W).

    Returns:
        None if the crop has no labelled voxel in the slice that was drawn, or no labelled slice.
    """
    (first, stop), (top, bottom), (left, right) = crop
    weights = counts[first:stop]
    if not weights.any():
        return None
    number = first + int(rng.choice(len(weights), p=weights / weights.sum()))
    plane = np.asarray(labels[number : number + 1, top:bottom, left:right])
    voxels = np.argwhere(plane != IGNORE_INDEX)
    if not len(voxels):
        return None
    return np.asarray(np.add(voxels[int(rng.integers(len(voxels)))], (number, top, left)))


def place_to_show(
    rng: np.random.Generator,
    labels: Any,
    part: LabelledPart,
    centre: NDArray[np.integer[Any]] | None,
    crop: BoundingBox,
) -> tuple[NDArray[np.integer[Any]] | None, Loose]:
    """Choose the voxel that a window of a case with ignored voxels has to show, and the axes along which it is free.

    Args:
        rng: Draws it.
        labels: (D, H, W), internal indices, sliceable.
        part: What is labelled of them.
        centre: A voxel of the foreground, if the window is for that; else a labelled voxel is drawn.
        crop: Where windows come from.

    Returns:
        The voxel (D, H, W), None if no labelled one was found; and whether it may lie anywhere in the window.
    """
    if centre is not None:
        return centre, part.gaps
    return draw_labelled(rng, labels, part.counts, crop), EVERYWHERE
