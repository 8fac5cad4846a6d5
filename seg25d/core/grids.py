"""Boxes and shapes on voxel grids, shared by planning and preprocessing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.limits import CommonShape
from seg25d.core.types import BoundingBox, Shape, Spacing

ANISOTROPY = 3.0
"""Ratio of the coarsest to the finest spacing above which an axis is handled apart (nnU-Net, configuration.py,
ANISO_THRESHOLD)."""
SAME_SPACING = 0.99
"""Spacings that differ by less than 1 % count as equal where an axis is chosen by them."""
AXIS_NAMES = ("D (inferior-superior)", "H (anterior-posterior)", "W (right-left)")
"""Axes in words."""
NO_COMMON_SHAPE: CommonShape = (None, None, None)
"""Every axis is resampled by spacing."""
ALIKE = 1.5
"""Axes whose spacings differ by this factor at most may be turned into each other by a quarter turn, which changes the
shape of things no more than nnU-Net's scaling does (0.7 to 1.4). Our choice; the paper's data are CT of the abdomen."""
COUNTED_TOGETHER = 1 << 20
"""Voxels that are counted at a time: 8 MiB in numpy's integers."""


def bounding_box(mask: NDArray[np.bool_]) -> BoundingBox | None:
    """The smallest box that holds every true voxel.

    Args:
        mask: (D, H, W).

    Returns:
        Half-open ranges along (D, H, W), or None when no voxel is true.
    """
    planes: NDArray[np.bool_] = np.any(mask, axis=0)
    lines = (np.any(mask, axis=(1, 2)), np.any(planes, axis=1), np.any(planes, axis=0))
    ranges = []
    for line in lines:
        hits = np.flatnonzero(line)
        if hits.size == 0:
            return None
        ranges.append((int(hits[0]), int(hits[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]


def content_box(image: NDArray[Any]) -> BoundingBox:
    """The box of everything that is not zero in any channel, as nnU-Net crops (preprocessing/cropping/cropping.py).

    Args:
        image: (C, D, H, W).

    Returns:
        Half-open ranges along (D, H, W); the whole volume when all voxels are zero.
    """
    content = image[0] != 0
    for channel in image[1:]:
        content |= channel != 0
    depth, height, width = content.shape
    return bounding_box(content) or ((0, depth), (0, height), (0, width))


def box_slices(box: BoundingBox) -> tuple[slice, slice, slice]:
    """The box as an index of a (D, H, W) array."""
    depth, height, width = (slice(start, stop) for start, stop in box)
    return depth, height, width


def box_shape(box: BoundingBox) -> Shape:
    """Voxels of the box along (D, H, W)."""
    depth, height, width = (stop - start for start, stop in box)
    return depth, height, width


def with_margin(box: BoundingBox, margin: Sequence[int], shape: Sequence[int]) -> BoundingBox:
    """A box with so many voxels more on each side, as far as the volume reaches.

    Args:
        box: Half-open ranges along (D, H, W).
        margin: Voxels along (D, H, W).
        shape: Of the volume.
    """
    depth, height, width = (
        (max(0, start - more), min(size, stop + more))
        for (start, stop), more, size in zip(box, margin, shape, strict=True)
    )
    return depth, height, width


def even_margin(margin: int, spacing_mm: Spacing) -> Shape:
    """A margin of so many voxels of the finest axis, and of as many millimetres along the others, rounded up."""
    finest = min(spacing_mm)
    depth, height, width = (math.ceil(margin * (finest / step)) for step in spacing_mm)
    return depth, height, width


def sampled_shape(
    shape: Sequence[int], spacing_mm: Spacing, target_spacing_mm: Spacing, common_shape: CommonShape | None = None
) -> Shape:
    """The shape of a volume after resampling to another spacing: rounded, at least one voxel along every axis.

    Along axes of a common size it is that size, whatever the spacing.
    """
    depth, height, width = (
        common or max(1, round(size * spacing / target))
        for size, spacing, target, common in zip(
            shape, spacing_mm, target_spacing_mm, common_shape or NO_COMMON_SHAPE, strict=True
        )
    )
    return depth, height, width


def sampled_spacing(
    shape: Sequence[int], spacing_mm: Spacing, target_spacing_mm: Spacing, common_shape: CommonShape | None
) -> Spacing:
    """The spacing of a volume after resampling: the target, but along axes of a common size what that gives it.

    Args:
        shape: Of the whole volume.
        spacing_mm: Of the whole volume.
        target_spacing_mm: Of axes without a common size.
        common_shape: Of the others.
    """
    depth, height, width = (
        size * spacing / common if common else target
        for size, spacing, target, common in zip(
            shape, spacing_mm, target_spacing_mm, common_shape or NO_COMMON_SHAPE, strict=True
        )
    )
    return depth, height, width


def count_voxels(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels per value 0..255.

    Args:
        labels: (D, H, W), may be empty.
    """
    return count_numbers(labels, 256)


def count_numbers(
    numbers: NDArray[np.integer[Any]], length: int, where: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Count voxels per number 0 .. length - 1, some planes at a time: numpy makes eight bytes of every voxel for it.

    Args:
        numbers: (D, H, W), all below `length`; may be empty.
        length: Numbers to count.
        where: (D, H, W), the voxels that count; None: all.
    """
    counts = np.zeros(length, np.int64)
    step = max(1, COUNTED_TOGETHER // max(1, math.prod(numbers.shape[1:])))
    for start in range(0, len(numbers), step):
        part = numbers[start : start + step]
        counts += np.bincount(part.ravel() if where is None else part[where[start : start + step]], minlength=length)
    return counts


def joint_box(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box around several (at least one), all as indices of an array."""
    along_axes = zip(*boxes, strict=True)
    return tuple(slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in along_axes)


def regular_starts(size: int, window: int, step: int, *, flush: bool = False) -> list[int]:
    """Starts of windows that cover an axis in whole steps: 0, step, 2 step, ... (methods.md 2.1).

    The last one may reach beyond the end, by the last start + window - size voxels. 601 slices in stacks of 32 give 49
    starts with a step of 12 (the last stack fills up 7 slices) and 19 with a step of 32.

    Args:
        size: Voxels of the volume.
        window: Voxels of a window.
        step: Voxels from one window to the next, at most `window`.
        flush: Let the last of several windows end with the volume instead.
    """
    count = 1 if size <= window else math.ceil((size - window) / step) + 1
    starts = [index * step for index in range(count)]
    return [min(start, max(0, size - window)) for start in starts] if flush else starts


def repeated_planes(size: int, first: int, stop: int) -> list[int]:
    """Indices of planes that put the first and the last ones of a volume in place of its padding.

    Args:
        size: Planes of the padded volume.
        first: The first one that is the volume's.
        stop: The one behind its last.

    Returns:
        For each of `size` planes the one that belongs there: 2 2 2 3 4 4 for planes 2 to 4 of six.
    """
    return [min(max(index, first), stop - 1) for index in range(size)]


def even_parts(size: int, most: int) -> list[slice]:
    """Divide an axis into as few parts as possible, which differ in size by one at most.

    What is prepared for each size, as kernels of a GPU are chosen, is prepared for two sizes, and nothing is computed
    twice.

    Args:
        size: Of the axis, at least 1.
        most: Of a part, at least 1.

    Returns:
        The parts in their order.
    """
    number = -(-size // most)
    return [slice(size * part // number, size * (part + 1) // number) for part in range(number)]


def slicing_axis(spacing_mm: Spacing) -> int:
    """The axis with the coarsest spacing, along which slices are taken; the first of equal ones."""
    coarsest = max(spacing_mm)
    return next(axis for axis in range(3) if spacing_mm[axis] >= SAME_SPACING * coarsest)


def alike_axes(spacing_mm: Spacing, window: Sequence[int] | None = None) -> tuple[int, int, int]:
    """For each axis, the first axis that it may be exchanged with: itself, if there is none before it.

    Args:
        spacing_mm: (D, H, W); axes are alike up to a factor of `ALIKE`.
        window: If given, axes along which it has another size are not alike.
    """

    def alike(first: int, second: int) -> bool:
        fine, coarse = sorted((spacing_mm[first], spacing_mm[second]))
        return coarse <= ALIKE * fine and (window is None or window[first] == window[second])

    groups = [next(first for first in range(axis + 1) if alike(first, axis)) for axis in range(3)]
    # Exchange must go both ways with all of a group: the second and third may be less alike than both to the first.
    if groups == [0, 0, 0] and not alike(1, 2):
        groups = [0, 0, 2]
    return (groups[0], groups[1], groups[2])
