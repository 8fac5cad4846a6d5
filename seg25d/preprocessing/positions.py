"""Positions of the voxels of a new grid on an old one along one axis, as weights of two neighbours.

Along an axis that is resampled separately, whole slices are taken for the model's grid. On the way back, where a file
has more slices than the model saw, each slice that was taken has its own scores and those between get a mixture:
repeated scores would repeat segmentations from slice to slice (nnU-Net issue 2951, documentation/concepts/choices.md).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.preprocessing.grid import Grid


class Positions(NamedTuple):
    """Positions of a new grid's voxels on an old one along one axis: between `low` and `high`, at `fraction`."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    fraction: NDArray[np.float64]


def nearest_voxels(size: int, new_size: int) -> NDArray[np.int64]:
    """The old voxel that contains the centre of each new one, as in nnU-Net's `map_coordinates` of order 0.

    Args:
        size: Voxels before.
        new_size: Voxels after.

    Returns:
        Ascending numbers (new_size,); no number comes twice where there are no more voxels than before.
    """
    source: NDArray[np.int64] = ((np.arange(new_size) + 0.5) * size / new_size).astype(np.int64)
    return source.clip(max=size - 1)


def linear_positions(size: int, new_size: int) -> Positions:
    """Positions for linear interpolation, clipped to the first and last voxel centre."""
    return _between(((np.arange(new_size) + 0.5) * size / new_size - 0.5).clip(0, size - 1))


def nearest_positions(size: int, new_size: int) -> Positions:
    """Positions for nearest neighbours, see `nearest_voxels`."""
    index = nearest_voxels(size, new_size)
    return Positions(index, index, np.zeros(new_size))


def taken_positions(size: int, new_size: int) -> Positions:
    """Positions of slices on a grid of fewer slices that were taken from them (`nearest_voxels`).

    A slice that was taken lies on its own, one between two of them lies in between by its distance to both, and what is
    before the first or behind the last one lies on that.

    Args:
        size: Slices that were taken.
        new_size: Slices that they were taken from, at least as many.
    """
    taken = nearest_voxels(new_size, size)
    return _between(np.interp(np.arange(new_size), taken, np.arange(size)))


def separate_positions(grid: Grid, axis: int) -> Positions | None:
    """Positions of the voxels of a file on the model's grid, along an axis where they are not simply interpolated.

    Where the file has more voxels than the model saw, and the model saw whole slices of it: between these slices. Where
    it has no more: the nearest ones along the axis that nnU-Net resamples separately (default_resampling.py).

    Args:
        grid: Grids of preprocessing.
        axis: 0 D, 1 H, 2 W.

    Returns:
        None where scores are interpolated between voxel centres, see `linear_positions`.
    """
    size, new_size = grid.shape[axis], grid.cropped_shape[axis]
    if size < new_size:
        return taken_positions(size, new_size) if axis == grid.separate_axis else None
    return nearest_positions(size, new_size) if axis == grid.inverse_separate_axis else None


def _between(position: NDArray[np.float64]) -> Positions:
    """Neighbours and fractions of positions in voxels, none of them negative."""
    low = np.floor(position).astype(np.int64)
    fraction = position - low
    return Positions(low, low + (fraction > 0), fraction)
