"""The grid of an image file, and the conversion between the axes of the file and the canonical axes.

File axes are (z, y, x) as SimpleITK gives arrays. Canonical axes are (D, H, W) = (inferior to superior, anterior to
posterior, right to left), SimpleITK's `LPS` seen as an array.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg25d.core.records import Record
from seg25d.core.types import Shape, Spacing

Array = TypeVar("Array", bound=NDArray[Any])
Direction = tuple[float, float, float, float, float, float, float, float, float]
SMALLEST_MM, LARGEST_MM = 1e-6, 1e4
"""From the voxels of an electron microscope (nm) to ten metres: what lies outside is no size of a voxel."""
_TOLERANCE = 1e-3
_ORIGIN_TOLERANCE = 1e-2
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


class Geometry(Record):
    """The voxel grid of an image file, and the geometry fields of its header verbatim.

    Attributes:
        shape: Voxels along the file's axes (z, y, x).
        spacing_mm: Millimetres per voxel along (z, y, x).
        origin_mm: Position of the first voxel, (x, y, z) in LPS.
        direction: The 3 x 3 matrix of SimpleITK, row by row: column i is the direction of the file's axis i (x, y, z).
        nifti_geometry: The geometry bytes of a NIfTI header (base64), so that they can be written back unchanged.
        nrrd_geometry: The geometry lines of an NRRD header.
    """

    shape: Shape
    spacing_mm: Spacing
    origin_mm: tuple[float, float, float]
    direction: Direction
    nifti_geometry: str | None = None
    nrrd_geometry: tuple[str, ...] | None = None

    @property
    def canonical_shape(self) -> Shape:
        """Voxels along (D, H, W)."""
        return (self.shape[self._axes[0]], self.shape[self._axes[1]], self.shape[self._axes[2]])

    @property
    def canonical_spacing_mm(self) -> Spacing:
        """Millimetres per voxel along (D, H, W)."""
        return (self.spacing_mm[self._axes[0]], self.spacing_mm[self._axes[1]], self.spacing_mm[self._axes[2]])

    @property
    def orientation(self) -> str:
        """Three letters: the closest anatomical directions of the file's axes x, y, z; `LPS` is canonical."""
        letters = [""] * 3
        for canonical_axis, (axis, flipped) in enumerate(zip(self._axes, self._flips, strict=True)):
            letters[2 - axis] = _LETTERS[2 - canonical_axis][flipped]
        return "".join(letters)

    def to_canonical(self, array: Array) -> Array:
        """Bring an array from the file's axes to the canonical ones.

        Args:
            array: (..., z, y, x).

        Returns:
            A contiguous copy (..., D, H, W).
        """
        ordered = _transpose_last(array, self._axes)
        return np.array(np.flip(ordered, self._flipped_axes), order="C")  # type: ignore[return-value]

    def from_canonical(self, array: Array) -> Array:
        """Bring an array from the canonical axes back to the file's: undoes `to_canonical` exactly.

        Args:
            array: (..., D, H, W).

        Returns:
            A contiguous copy (..., z, y, x).
        """
        inverse = (self._axes.index(0), self._axes.index(1), self._axes.index(2))
        return np.array(_transpose_last(np.flip(array, self._flipped_axes), inverse), order="C")  # type: ignore[return-value]

    def canonical_window(self, start: int, stop: int) -> tuple[slice, slice, slice]:
        """Where some planes across the file's first axis lie on the canonical grid.

        Args:
            start: The first plane.
            stop: The plane after the last one.

        Returns:
            Slices along (D, H, W); `from_canonical` of what they cut out gives the planes.
        """
        axis = self._axes.index(0)
        first, last = (self.shape[0] - stop, self.shape[0] - start) if self._flips[axis] else (start, stop)
        window = [slice(None)] * 3
        window[axis] = slice(first, last)
        return window[0], window[1], window[2]

    def difference(self, other: "Geometry") -> str | None:
        """Description of the first difference between two grids, with numbers; None if they are equal up to rounding.

        Spacing and direction may differ by a thousandth, the origin by a hundredth of a voxel, as files written by
        different programs do.
        """
        if self.shape != other.shape:
            return f"shape {_show(self.shape)} against {_show(other.shape)} voxels (z, y, x)"
        spacing, other_spacing = np.array(self.spacing_mm), np.array(other.spacing_mm)
        if np.any(np.abs(spacing - other_spacing) > _TOLERANCE * spacing):
            return f"spacing {_show(self.spacing_mm)} against {_show(other.spacing_mm)} mm (z, y, x)"
        shift = np.abs(np.array(self.origin_mm) - np.array(other.origin_mm))
        if np.any(shift > _ORIGIN_TOLERANCE * spacing.min()):
            return f"origin {_show(self.origin_mm)} against {_show(other.origin_mm)} mm (x, y, z)"
        if np.any(np.abs(np.array(self.direction) - np.array(other.direction)) > _TOLERANCE):
            return f"direction {_show(self.direction)} against {_show(other.direction)}"
        return None

    @cached_property
    def _axes(self) -> tuple[int, int, int]:
        """Axis of the file's array (z, y, x) for each canonical axis (D, H, W)."""
        return self._closest[0]

    @cached_property
    def _flips(self) -> tuple[bool, bool, bool]:
        """Whether the file's axis runs in the opposite direction, for each canonical axis."""
        return self._closest[1]

    @property
    def _flipped_axes(self) -> tuple[int, ...]:
        return tuple(axis - 3 for axis in range(3) if self._flips[axis])

    @cached_property
    def _closest(self) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """The closest canonical orientation; if two file axes match one canonical axis, the better aligned wins."""
        matrix = np.array(self.direction).reshape(3, 3)
        remaining = np.abs(matrix)
        axes, flips = [0, 0, 0], [False, False, False]
        for _ in range(3):
            world, file = np.unravel_index(int(np.argmax(remaining)), (3, 3))
            axes[2 - int(world)] = 2 - int(file)
            flips[2 - int(world)] = bool(matrix[world, file] < 0)
            remaining[world, :] = -1
            remaining[:, file] = -1
        return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def _transpose_last(array: NDArray[Any], axes: tuple[int, int, int]) -> NDArray[Any]:
    leading = array.ndim - 3
    return np.transpose(array, (*range(leading), *(leading + axis for axis in axes)))


def _show(numbers: Sequence[float]) -> str:
    return (
        " x ".join(f"{number:.6g}" for number in numbers) if len(numbers) == 3 else str([round(n, 4) for n in numbers])
    )
