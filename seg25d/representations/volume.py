"""Volumes as they are, through a 3D network: the baseline."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from seg25d.core.types import Shape
from seg25d.representations.base import ConfigurationRules, Representation, VolumeGeometry

if TYPE_CHECKING:
    from torch import nn

SMALLEST_EDGE = 8


class Volume(Representation):
    """Windows of the volume, unchanged."""

    network_dims: ClassVar[int] = 3
    keeps_scores: ClassVar[bool] = True
    needs_third_dimension: ClassVar[bool] = True
    small_windows: ClassVar[float | None] = 0.0
    """Possible, but off by default, as the benefit has not been measured."""
    name: Literal["volume"] = "volume"

    @property
    def network_axes(self) -> tuple[int, ...]:
        """All three."""
        return (0, 1, 2)

    @property
    def piece_axes(self) -> tuple[int, ...]:
        """Pieces of the window."""
        return (0, 1, 2)

    def lift(self, network: "nn.Module") -> "nn.Module":
        """The network itself."""
        return network

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, **_: int) -> Iterator[tuple[Self, Shape]]:
        """The whole volume; then ever smaller windows.

        The axis that covers the largest part of the median shape gives way first; of equal ones the physically
        longest (nnU-Net, default_experiment_planner.py: the axis with the largest patch / median ratio).
        """
        window = list(geometry.shape)
        while True:
            yield cls(), (window[0], window[1], window[2])

            def covered(axis: int) -> tuple[float, float]:
                return window[axis] / geometry.shape[axis], window[axis] * geometry.spacing_mm[axis]

            shrinkable = [axis for axis in range(3) if window[axis] > SMALLEST_EDGE]
            if not shrinkable:
                return
            axis = max(shrinkable, key=covered)
            window[axis] = max(SMALLEST_EDGE, min(window[axis] - 1, round(window[axis] * 0.95)))

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Nothing is done."""
        del geometry, rules
        return "windows of the volume, unchanged"

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """For comparison."""
        del geometry, rules
        return "windows of the volume, unchanged, through a 3D network: what the other methods are compared with"

    @classmethod
    def examples(cls) -> list[Self]:
        """The only one."""
        return [cls()]
