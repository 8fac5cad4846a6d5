"""Slice by slice along one axis, each slice with its neighbours as channels.

Letters: B batch, C channels, K scores, D H W volume (D slices after the slicing axis is moved to the front), h w image.
"""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor, nn

from seg25d.core.types import Shape
from seg25d.representations.base import NetworkOutput, Representation, VolumeGeometry, map_scores, shrink
from seg25d.representations.context import slices_back, slices_first, with_neighbours

IN_PLANE_STEPS = 16
SMALLEST_IN_PLANE = 32
SMALLEST_DEPTH = 8
"""Slices that a window has if memory allows, however few cases there are."""


class Slices(Representation):
    """Slices along `axis` (0 axial, 1 coronal, 2 sagittal) with `context` neighbours per side."""

    network_dims: ClassVar[int] = 2
    name: Literal["slices"] = "slices"
    axis: int = Field(ge=0, le=2)
    context: int = Field(default=0, ge=0)

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
        """Every neighbour brings its channels."""
        return num_channels * (2 * self.context + 1)

    def step_sizes(self, window: Shape, step_size: float) -> tuple[float, float, float]:
        """Along the slicing axis deep windows need to overlap only so far that each slice has its neighbours in one."""
        steps = [step_size] * 3
        steps[self.axis] = max(step_size, 1 - 2 * self.context / window[self.axis])
        return (steps[0], steps[1], steps[2])

    def lift(self, network: nn.Module) -> nn.Module:
        """All slices of all volumes of a batch become one batch of images."""
        return LiftedSlices(network, self)

    @classmethod
    def candidates(
        cls, geometry: VolumeGeometry, *, axis: int = 0, context: int = 0, **_: int
    ) -> Iterator[tuple[Self, Shape]]:
        """Whole slices, fewer and fewer of them down to one with its neighbours; then smaller parts of slices.

        A slice sees no more than its neighbours, so windows need not be deeper than leaves enough updates.
        """
        representation = cls(axis=axis, context=context)
        shape = list(geometry.shape)
        smallest_depth = min(shape[axis], 2 * context + 1)
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
    def examples(cls) -> list[Self]:
        """Every axis, with and without neighbours."""
        return [cls(axis=0), cls(axis=1, context=1), cls(axis=2, context=2)]


class LiftedSlices(nn.Module):
    """(B, C, D, H, W) -> (B * D, C * (2k + 1), h, w) -> network -> (B, K, D, H, W)."""

    def __init__(self, network: nn.Module, representation: Slices) -> None:
        super().__init__()
        self.network = network
        self.representation = representation

    def forward(self, volume: Tensor) -> NetworkOutput:
        """Scores of volumes, see `Representation.lift`."""
        axis, batch = self.representation.axis, volume.shape[0]
        slices = with_neighbours(slices_first(volume, axis), self.representation.context)
        output = self.network(slices.transpose(1, 2).flatten(0, 1))

        def undo(scores: Tensor) -> Tensor:
            volumes = scores.reshape(batch, -1, *scores.shape[1:])
            return slices_back(volumes.transpose(1, 2), axis)

        return map_scores(output, undo)
