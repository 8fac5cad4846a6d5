"""Sizes of images from their headers, for estimates of memory."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from seg25d.core.parallel import choose_num_workers
from seg25d.data.image_geometry import Geometry

NUM_PROBES = 3
_WORKER_BYTES = 200 << 20
"""Of a worker beside its case: libraries, as `verify_dataset` counts them."""


def largest_geometry(files: Iterable[Path]) -> Geometry:
    """The grid of approximately the largest image.

    Only the headers of the three largest files are read; as files compress differently, this is an estimate.

    Args:
        files: At least one.

    Raises:
        ImageError: If such a file cannot be read.
    """
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

    probes = sorted(files, key=lambda path: path.stat().st_size)[-NUM_PROBES:]
    return max(map(read_geometry, probes), key=lambda geometry: math.prod(geometry.shape))


def choose_workers(requested: int | None, files: Sequence[Path], bytes_per_voxel: int) -> int:
    """Choose the number of worker processes by the largest of the images that they read, see `choose_num_workers`.

    Args:
        requested: What the user asked for, or None.
        files: An image of each case.
        bytes_per_voxel: Peak memory of a worker per voxel of its case.

    Raises:
        InputError: If the system cannot hold as many as were requested.
        ImageError: If one of the largest files cannot be read.
    """
    if requested == 0 or len(files) < 2:
        return 0
    num_voxels = math.prod(largest_geometry(files).shape)
    return workers_for(requested, num_voxels, bytes_per_voxel, len(files))


def workers_for(requested: int | None, num_voxels: int, bytes_per_voxel: int, num_items: int) -> int:
    """Choose the number of worker processes by the voxels of the largest case, otherwise as `choose_workers`."""
    return choose_num_workers(requested, num_voxels * bytes_per_voxel + _WORKER_BYTES, num_items)
