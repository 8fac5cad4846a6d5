"""Sizes of the images of a data set, from their headers."""

from seg25d.core.types import Shape, Spacing
from seg25d.data.dataset import Dataset
from seg25d.data.sizes import largest_geometry


def largest_shape(dataset: Dataset) -> tuple[Shape, Spacing]:
    """Find shape and spacing (canonical) of approximately the largest case, for estimates of memory.

    Raises:
        ImageError: If a file cannot be read.
    """
    largest = largest_geometry(case.images[0] for case in dataset.cases)
    return largest.canonical_shape, largest.canonical_spacing_mm
