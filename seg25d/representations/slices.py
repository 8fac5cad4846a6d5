"""Slice by slice along one axis, each slice with its neighbours as channels.

Letters: B batch, C channels, K scores, D H W volume (D slices after the slicing axis is moved to the front), h w image.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from seg25d.core.grids import ANISOTROPY, AXIS_NAMES
from seg25d.core.limits import NumNeighbours
from seg25d.core.types import Shape, Spacing
from seg25d.representations import ALIAS, ANATOMICAL
from seg25d.representations.base import (
    ConfigurationRules,
    Representation,
    VolumeGeometry,
    shrink,
)

if TYPE_CHECKING:
    from torch import nn

IN_PLANE_STEPS = 16
SMALLEST_IN_PLANE = 32
SMALLEST_DEPTH = 8
"""Minimum number of slices of a window if memory allows, however few cases there are."""
MOST_NEIGHBOURS = 3
"""Neighbours per side at isotropic spacing (FastSurfer: seven slices at 1 mm; Henschel et al. 2020)."""


class Slices(Representation):
    """Slices along `axis` (0 axial, 1 coronal, 2 sagittal) with `context` neighbours per side."""

    network_dims: ClassVar[int] = 2
    keeps_scores: ClassVar[bool] = True
    can_be_fine: ClassVar[bool] = True
    mixes_slices: ClassVar[bool] = True
    name: Literal["slices"] = "slices"
    axis: int = Field(ge=0, le=2)
    context: NumNeighbours = 0

    @property
    def summary(self) -> str:
        """Single slices, or how many the network sees together."""
        return f"slices, {2 * self.context + 1} at a time" if self.context else "single slices"

    @property
    def network_axes(self) -> tuple[int, ...]:
        """The two axes in the plane."""
        return tuple(axis for axis in range(3) if axis != self.axis)

    @property
    def piece_axes(self) -> tuple[int, ...]:
        """Pieces of slices."""
        return self.network_axes

    @property
    def free_axis(self) -> int:
        """Slices do not see each other, apart from their neighbours."""
        return self.axis

    def network_channels(self, num_channels: int) -> int:
        """The channels of each slice and all its neighbours."""
        return num_channels * (2 * self.context + 1)

    def step_sizes(self, window: Shape, step_size: float) -> tuple[float, float, float]:
        """Along the slicing axis windows overlap only as far as each slice needs its neighbours in one window."""
        steps = [step_size] * 3
        steps[self.axis] = max(step_size, 1 - 2 * self.context / window[self.axis])
        return (steps[0], steps[1], steps[2])

    def lift(self, network: "nn.Module") -> "nn.Module":
        """All slices of all volumes of a batch become one batch of images."""
        from seg25d.representations.lifted.slices import LiftedSlices  # noqa: PLC0415 - loads torch

        return LiftedSlices(network, self)

    @classmethod
    def suits_single_slices(cls, configuration: str, axis: int) -> bool:
        """Slices along the other axes would be one pixel wide."""
        return ANATOMICAL[axis] == configuration

    @classmethod
    def candidates(
        cls, geometry: VolumeGeometry, *, axis: int = 0, context: int = 0, **_: int
    ) -> Iterator[tuple[Self, Shape]]:
        """Whole slices, fewer and fewer of them down to one with its neighbours; then smaller parts of slices.

        A slice sees no more than its neighbours, so windows need not be deeper than leaves enough updates. Where the
        network mixes slices, parts of them come before fewer than `geometry.least_slices`.
        """
        representation = cls(axis=axis, context=context)
        shape = list(geometry.shape)
        smallest_depth = min(shape[axis], max(2 * context + 1, geometry.least_slices))
        if geometry.enough_voxels is not None:
            in_plane = math.prod(shape) // shape[axis]
            shape[axis] = min(shape[axis], max(SMALLEST_DEPTH, smallest_depth, geometry.enough_voxels // in_plane))
        while shape[axis] > smallest_depth:
            yield representation, (shape[0], shape[1], shape[2])
            shape[axis] = max(smallest_depth, shape[axis] * 3 // 4)
        for step in range(IN_PLANE_STEPS):
            window = [shrink(size, step, IN_PLANE_STEPS, SMALLEST_IN_PLANE) for size in geometry.shape]
            window[axis] = smallest_depth
            yield representation, (window[0], window[1], window[2])

    @classmethod
    def from_rules(
        cls, configuration: str, geometry: VolumeGeometry, rules: ConfigurationRules
    ) -> Iterator[tuple[Self, Shape]]:
        """The candidates along the axis that the configuration is named after."""
        axis = ANATOMICAL.index(configuration)
        context = rules.context
        if context is None:
            context = neighbour_context(geometry.spacing_mm, axis, geometry.shape[axis])
        if rules.batch_size is not None:
            geometry = geometry.model_copy(update={"enough_voxels": None})
        return cls.candidates(geometry.at_most(axis, rules.num_slices), axis=axis, context=context)

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Axis and neighbours."""
        why = (
            ": as many as three pixels in the plane are apart, from 1 to 3 (3 at 1 mm isotropic: FastSurfer), fewer "
            "only where there are not enough slices"
            if rules.context is None
            else ", the recipe's"
        )
        return f"{slices_apart(geometry.spacing_mm, self.axis)} with {self.context} neighbour(s) per side{why}"

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Slice by slice, and with how many neighbours."""
        if self.context == 0:
            why = "the recipe has no neighbours" if rules.context == 0 else "there are too few slices for neighbours"
            return f"each slice along {AXIS_NAMES[self.axis]} by itself through a 2D network, as {why}"
        pixel_mm = min(geometry.spacing_mm[axis] for axis in self.network_axes)
        neighbours = "1 neighbour" if self.context == 1 else f"{self.context} neighbours"
        return (
            f"each slice along {AXIS_NAMES[self.axis]} through a 2D network, with {neighbours} per side as further "
            f"channels, as slices are {geometry.spacing_mm[self.axis]:.4g} mm and pixels {pixel_mm:.4g} mm apart"
        )

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """Slices across a thin or a coarse axis are narrow, or have oblong pixels."""
        del window
        thin, coarse = geometry.thin_axis, geometry.slice_axis
        if thin is not None and thin != self.axis:
            size = geometry.shape[thin]
            wide = "1 pixel" if size == 1 else f"{size} pixels"
            return (
                f"each slice is only {wide} wide, as the volumes have no more voxels along {AXIS_NAMES[thin]}; take "
                f"{ANATOMICAL[thin]}"
            )
        sides_mm = sorted(geometry.spacing_mm[axis] for axis in self.network_axes)
        if sides_mm[1] > ANISOTROPY * sides_mm[0]:
            return (
                f"pixels of these slices are {sides_mm[1]:.4g} x {sides_mm[0]:.4g} mm, so that they show shapes "
                f"coarsely; take {ALIAS} ({ANATOMICAL[coarse]})"
            )
        return None

    def window_reason(self, window: Shape, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Explain why windows may have fewer slices than the volume."""
        if rules.num_slices is not None:
            return "as many slices as the recipe has fit"
        if window[self.axis] < geometry.shape[self.axis]:
            return (
                "whole slices, only so many that a batch covers little of the data set, which leaves more updates; "
                "they fit"
            )
        return super().window_reason(window, geometry, rules)

    @classmethod
    def examples(cls) -> list[Self]:
        """Every axis, with and without neighbours."""
        return [cls(axis=0), cls(axis=1, context=1), cls(axis=2, context=2)]


def neighbour_context(spacing_mm: Spacing, axis: int, num_slices: int) -> int:
    """Neighbours per side that a slice gets as channels.

    As many as three pixels are apart, from 1 to 3: 3 at isotropic spacing (FastSurfer), 1 from twice the in-plane
    spacing on (our choice). None where fewer than three slices exist.

    Args:
        spacing_mm: Spacing (D, H, W).
        axis: The slicing axis.
        num_slices: Slices of the median volume.
    """
    in_plane = min(spacing_mm[other] for other in range(3) if other != axis)
    wanted = round(MOST_NEIGHBOURS * in_plane / spacing_mm[axis])
    return min(max(1, min(wanted, MOST_NEIGHBOURS)), (num_slices - 1) // 2)


def slices_apart(spacing_mm: Spacing, axis: int) -> str:
    """Describe the slices in words."""
    return f"slices {spacing_mm[axis]:.4g} mm apart along {AXIS_NAMES[axis]}"
