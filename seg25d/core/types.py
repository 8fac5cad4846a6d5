"""The types that many modules share. Axes are always (D, H, W)."""

from typing import Any, Literal, TypeAlias

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
Sizes: TypeAlias = tuple[int, ...]
"""One number per spatial axis, of images two and of volumes three."""
Auto: TypeAlias = Literal["auto"]
"""What is chosen by the machine, in place of a number."""
