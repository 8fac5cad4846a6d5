"""The files of cases: have they changed, and how large are they."""

from seg25d.core.types import Shape, Spacing
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset

NUM_PROBES = 3


def source_stamp(case: Case) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of every file of a case; it changes when a file does.

    Raises:
        OSError: If a file is missing.
    """
    files = [*case.images, *([case.label] if case.label else [])]
    statistics = [(path.name, path.stat()) for path in files]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in statistics]


def largest_shape(dataset: Dataset) -> tuple[Shape, Spacing]:
    """Shape and spacing (canonical) of about the largest case, for estimates of memory.

    Only the headers of the three largest files are read; files compress differently, so it is a guess.

    Raises:
        ImageError: If such a file cannot be read.
    """
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

    files = sorted((case.images[0] for case in dataset.cases), key=lambda path: path.stat().st_size)[-NUM_PROBES:]
    geometries = [read_geometry(path) for path in files]
    largest = max(geometries, key=lambda geometry: geometry.shape[0] * geometry.shape[1] * geometry.shape[2])
    return largest.canonical_shape, largest.canonical_spacing_mm
