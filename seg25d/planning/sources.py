"""Sizes of the images of a data set, from their headers."""

from seg25d.core.types import Shape, Spacing
from seg25d.data.dataset import Dataset

NUM_PROBES = 3


def largest_shape(dataset: Dataset) -> tuple[Shape, Spacing]:
    """Find shape and spacing (canonical) of approximately the largest case, for estimates of memory.

    Only the headers of the three largest files are read; as files compress differently, this is an estimate.

    Raises:
        ImageError: If such a file cannot be read.
    """
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

    files = sorted((case.images[0] for case in dataset.cases), key=lambda path: path.stat().st_size)[-NUM_PROBES:]
    geometries = [read_geometry(path) for path in files]
    largest = max(geometries, key=lambda geometry: geometry.shape[0] * geometry.shape[1] * geometry.shape[2])
    return largest.canonical_shape, largest.canonical_spacing_mm
