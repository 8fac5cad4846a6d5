"""The types that many modules share. Axes are always (D, H, W)."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, int, int]
"""Voxels along (D, H, W)."""
Spacing: TypeAlias = tuple[float, float, float]
"""Millimetres per voxel along (D, H, W)."""
BoundingBox: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open ranges of voxels along (D, H, W)."""
FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]
