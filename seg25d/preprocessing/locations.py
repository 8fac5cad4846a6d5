"""Locations of the classes: a bounded, repeatable sample of voxels per class."""

import zlib

import numpy as np
from numpy.typing import NDArray

MAX_LOCATIONS = 10_000
"""Maximum number of voxels kept per class (nnU-Net, default_preprocessor.py, _sample_foreground_locations)."""


def sample_locations(
    labels: NDArray[np.uint8], counts: NDArray[np.int64], case: str, ignore: int
) -> dict[int, NDArray[np.int32]]:
    """Sample voxels of every class that occurs, except background, which any window contains.

    Args:
        labels: (D, H, W).
        counts: As `seg25d.core.grids.count_voxels` gives them.
        case: Seeds the choice, the same in every process.
        ignore: The value to leave out.

    Returns:
        Per class (n, 3) voxels (D, H, W) in scan order: all of them, or 10,000 drawn without replacement.
    """
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    return {
        int(value): _sample(labels, int(value), int(counts[value]), rng)
        for value in np.flatnonzero(counts)
        if value not in (0, ignore)
    }


def _sample(labels: NDArray[np.uint8], value: int, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw ranks among the voxels of a class, then find them slice by slice, without an index of every voxel."""
    ranks = np.sort(rng.choice(count, MAX_LOCATIONS, replace=False)) if count > MAX_LOCATIONS else np.arange(count)
    found = []
    start = 0
    for depth, plane in enumerate(labels):
        voxels = np.flatnonzero(plane == value)
        first, last = np.searchsorted(ranks, (start, start + len(voxels)))
        rows, columns = np.divmod(voxels[ranks[first:last] - start], plane.shape[1])
        found.append(np.stack([np.full(last - first, depth), rows, columns], axis=1))
        start += len(voxels)
    return np.concatenate(found).astype(np.int32)
