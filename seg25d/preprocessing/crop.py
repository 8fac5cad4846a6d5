"""Cropping to content: borders that are zero in every channel are removed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import box_slices, content_box
from seg25d.core.types import BoundingBox, Shape

__all__ = ["content_box", "crop", "restore"]


def crop(array: NDArray[Any], box: BoundingBox) -> NDArray[Any]:
    """The part of an array (..., D, H, W) inside the box, as a view."""
    return array[(..., *box_slices(box))]


def restore(labels: NDArray[Any], box: BoundingBox, shape: Shape) -> NDArray[Any]:
    """Put a cropped array back into a whole volume.

    Args:
        labels: (D, H, W) of the box.
        box: Its position in the volume.
        shape: Of the whole volume.

    Returns:
        An array of `shape`, zero outside the box; the input itself if the box is the whole volume.
    """
    if labels.shape == tuple(shape):
        return labels
    whole = np.zeros(shape, labels.dtype)
    whole[box_slices(box)] = labels
    return whole
