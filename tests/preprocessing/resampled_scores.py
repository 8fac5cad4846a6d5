"""Scores on another grid, all at once: what the export does plane by plane."""

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import Shape
from seg25d.preprocessing.resample import axis_matrix


def resampled_scores(scores: NDArray[np.float32], shape: Shape, separate: int | None = None) -> NDArray[np.float32]:
    """Scores (K, D, H, W) on another grid (K, d, h, w): linear, but the nearest voxel along the axis `separate`."""
    for axis, size in enumerate(shape):
        if scores.shape[1 + axis] != size:
            matrix = axis_matrix(scores.shape[1 + axis], size, 0 if axis == separate else 1).toarray()
            scores = np.moveaxis(np.tensordot(matrix, scores, (1, 1 + axis)), 0, 1 + axis)
    return scores
