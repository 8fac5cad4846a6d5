"""The crop of a volume that a fine model sees: the box of the object with margins, often random ones in training."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import bounding_box
from seg25d.core.types import BoundingBox, IntArray, Shape, Spacing
from seg25d.data.labels import IGNORE_INDEX
from seg25d.planning.coarse_to_fine import FineConfig


def object_mask(labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """All foreground without ignored voxels, of the same shape.

    Args:
        labels: Internal indices.
    """
    mask: NDArray[np.bool_] = (labels > 0) & (labels != IGNORE_INDEX)
    return mask


def object_box(labels: NDArray[np.integer[Any]]) -> BoundingBox | None:
    """Find the box of all foreground without ignored voxels; None where there is no foreground.

    Args:
        labels: (D, H, W), internal indices.
    """
    return bounding_box(object_mask(labels))


def usual_margins(fine: FineConfig) -> IntArray:
    """The margins (3, 2), before and behind along (D, H, W), in voxels of the finest axis: all the same."""
    return np.full((3, 2), fine.margin)


def draw_margins(rng: np.random.Generator, fine: FineConfig) -> IntArray:
    """Draw the margins (3, 2) of a training window: the usual ones, or six random ones (methods.md 4.1)."""
    if rng.random() >= fine.random_share:
        return usual_margins(fine)
    return rng.integers(0, fine.random_margin + 1, (3, 2))


def crop_around(box: BoundingBox | None, margins: IntArray, shape: Shape, spacing_mm: Spacing) -> BoundingBox:
    """Add margins to a box, within the volume.

    Args:
        box: Of the object; None: the whole volume is the crop.
        margins: (3, 2) voxels of the finest axis; as many millimetres along the others, rounded up.
        shape: Of the volume.
        spacing_mm: Of the volume.
    """
    if box is None:
        return (0, shape[0]), (0, shape[1]), (0, shape[2])
    finest = min(spacing_mm)
    depth, height, width = (
        (
            max(0, start - math.ceil(int(before) * (finest / step))),
            min(size, stop + math.ceil(int(behind) * (finest / step))),
        )
        for (start, stop), (before, behind), size, step in zip(box, margins, shape, spacing_mm, strict=True)
    )
    return depth, height, width
