"""The planning rules that depend on spacings and shapes alone: pure functions of plain values."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import ANISOTROPY
from seg25d.core.types import Shape, Sizes, Spacing
from seg25d.networks.specs.topology import Topology

ANISOTROPIC_PERCENTILE = 10
"""Percentile of the coarse axis' spacings that such a data set gets (nnU-Net, default_experiment_planner.py)."""
SMALLEST_FEATURE_MAP = 4
"""Edge below which no axis is pooled (nnU-Net, default_experiment_planner.py: UNet_featuremap_min_edge_length)."""


def target_spacing(spacings_mm: NDArray[Any], shapes: NDArray[Any]) -> tuple[Spacing, bool]:
    """The spacing that all cases are resampled to (nnU-Net, default_experiment_planner.py).

    The median per axis. If one axis is more than 3 times coarser than the others and has less than a third of their
    voxels, the 10th percentile for that axis, but not finer than the others.

    Args:
        spacings_mm: (cases, 3), at least one case.
        shapes: (cases, 3) in voxels.

    Returns:
        The spacing, and whether the rule for anisotropic data was used.
    """
    target = np.median(spacings_mm, axis=0)
    shape = np.median(shapes, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    finest_allowed = float(target[others].max())
    anisotropic = target[coarse] > ANISOTROPY * finest_allowed and shape[coarse] * ANISOTROPY < shape[others].min()
    if anisotropic:
        percentile = float(np.percentile(spacings_mm[:, coarse], ANISOTROPIC_PERCENTILE))
        # A little coarser than the others, so that this stays the coarse axis (as nnU-Net does).
        target[coarse] = percentile if percentile >= finest_allowed else finest_allowed + 1e-5
    return (float(target[0]), float(target[1]), float(target[2])), bool(anisotropic)


def choose_topology(sizes: Sequence[int], spacing_mm: Sequence[float]) -> Topology:
    """Pooling and kernels that follow the spacing (nnU-Net, network_topology.py, get_pool_and_conv_props).

    An axis is halved while it keeps 4 voxels or more and its spacing is less than twice that of the finest such axis; a
    single axis only from 12 voxels on. An axis has kernel 1 until its spacing is less than twice the finest, then 3;
    the last stage has 3 everywhere. Beyond nnU-Net: an axis of one voxel has kernel 1 throughout.

    Args:
        sizes: Voxels or pixels per axis that the network sees, 2 or 3 axes.
        spacing_mm: Their spacing.

    Returns:
        The topology; sizes must still be rounded up to its divisor.
    """
    sizes, spacing = list(sizes), list(spacing_mm)
    flat = [size == 1 for size in sizes]
    kernel = [1] * len(sizes)
    strides: list[Sizes] = [(1,) * len(sizes)]
    kernels: list[Sizes] = []
    while pooled := _axes_to_pool(sizes, spacing):
        finest = min(spacing)
        kernel = [3 if now == 3 or step / finest < 2 else 1 for now, step in zip(kernel, spacing, strict=True)]
        kernels.append(_without(flat, kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(len(sizes))))
        for axis in pooled:
            spacing[axis] *= 2
            sizes[axis] = math.ceil(sizes[axis] / 2)
    kernels.append(_without(flat, [3] * len(sizes)))
    return Topology(strides=tuple(strides), kernels=tuple(kernels))


def round_up(window: Shape, axes: Sequence[int], divisor: Sizes) -> Shape:
    """The window with its sizes along `axes` rounded up to multiples of `divisor`."""
    sizes = list(window)
    for axis, step in zip(axes, divisor, strict=True):
        sizes[axis] = -(-sizes[axis] // step) * step
    return sizes[0], sizes[1], sizes[2]


def _axes_to_pool(sizes: Sequence[int], spacing: Sequence[float]) -> list[int]:
    large = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_FEATURE_MAP]
    if not large:
        return []
    finest = min(spacing[axis] for axis in large)
    pooled = [axis for axis in large if spacing[axis] / finest < 2]
    if len(pooled) == 1 and sizes[pooled[0]] < 3 * SMALLEST_FEATURE_MAP:
        return []
    return pooled


def _without(flat: Sequence[bool], kernel: Sequence[int]) -> Sizes:
    return tuple(1 if is_flat else size for is_flat, size in zip(flat, kernel, strict=True))
