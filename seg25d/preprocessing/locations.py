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
    values = [int(value) for value in np.flatnonzero(counts) if value not in (0, ignore)]
    ranks = {value: _draw_ranks(int(counts[value]), rng) for value in values}
    start = dict.fromkeys(values, 0)
    found: dict[int, list[NDArray[np.int32]]] = {value: [] for value in values}
    # One pass for all classes, slice by slice: an index of every voxel would take eight bytes of each.
    for depth, plane in enumerate(labels):
        for value, voxels in _voxels_of_classes(plane).items():
            if value not in ranks:
                continue
            first, last = np.searchsorted(ranks[value], (start[value], start[value] + len(voxels)))
            rows, columns = np.divmod(voxels[ranks[value][first:last] - start[value]], plane.shape[1])
            found[value].append(np.stack([np.full(last - first, depth), rows, columns], axis=1).astype(np.int32))
            start[value] += len(voxels)
    return {value: np.concatenate(parts) for value, parts in found.items()}


def _draw_ranks(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places, ascending, among the voxels of a class."""
    return np.sort(rng.choice(count, MAX_LOCATIONS, replace=False)) if count > MAX_LOCATIONS else np.arange(count)


def _voxels_of_classes(plane: NDArray[np.uint8]) -> dict[int, NDArray[np.intp]]:
    """The voxels of each class of a slice (H, W), background left out, as flat indices in scan order."""
    flat = plane.ravel()
    voxels = np.flatnonzero(flat != 0)
    values = flat[voxels]
    voxels = voxels[np.argsort(values, kind="stable")]
    counts = np.bincount(values, minlength=256)
    ends = np.cumsum(counts)
    return {int(value): voxels[ends[value] - counts[value] : ends[value]] for value in np.flatnonzero(counts)}
