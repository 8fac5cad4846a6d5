"""Stacks of successive slices through a 3D network (Shivdeo, Lokwani, Kulkarni, Kharat, Pant 2021).

Letters: N slices of a volume, S slices of a stack, o slices that successive stacks share, t = S - o; B batch,
C channels, K scores, D H W volume.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from seg25d.core.grids import AXIS_NAMES
from seg25d.core.limits import Margin, NumSlices
from seg25d.core.types import Shape, Spacing
from seg25d.representations import ALIAS, LARGER_LIMITS
from seg25d.representations.base import ConfigurationRules, RegularSteps, Representation, VolumeGeometry, shrink
from seg25d.representations.slices import slices_apart

if TYPE_CHECKING:
    from torch import nn

OVERLAP_FACTOR = 0.625
"""Overlap of successive stacks in training, as a share of a stack: the best of the paper's (0, 0.375, 0.625)."""
SMALLEST_STACK = 8
LEAST_SLICES = 16
"""Slices below which a stack is not the paper's: half of its 32 (methods.md 2.1), or a third of a volume that has fewer
than 48; our choice."""
SHRINKING_STEPS = 16
SMALLEST_IN_PLANE = 32


class Stack(Representation):
    """`stack_size` slices along `axis` at a time."""

    network_dims: ClassVar[int] = 3
    keeps_scores: ClassVar[bool] = True
    needs_third_dimension: ClassVar[bool] = True
    default_network: ClassVar[str] = "vnet"
    small_windows: ClassVar[float | None] = 0.6
    """Hippocampus, six minutes on two cores: Dice 0.872, and 0.865 without (documentation/concepts/choices.md)."""
    padded_with_lowest: ClassVar[bool] = True
    """Windows are padded with the lowest value, that of air (methods.md 2.1)."""
    name: Literal["stack"] = "stack"
    stack_size: NumSlices
    """S."""
    overlap: Margin = 0
    """o, between the stacks that are trained on."""
    predicted_overlap: Margin = 0
    """The same at prediction, where scores are averaged with equal weights; the paper has 0."""
    last_stack: Literal["flush", "padded"] = "flush"
    """Position of the last of several predicted stacks: `flush` ends with the volume and is averaged with the stack
    before; `padded` starts a whole step after that one and is padded, as in the paper. Few remaining slices are then
    seen among empty ones, which training never shows: 4 slices of 40 reached a Dice of 0.03 instead of 0.73, 12 of 40
    0.49 instead of 0.78 (hippocampus, a short training)."""
    axis: int = Field(default=0, ge=0, le=2)

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if max(self.overlap, self.predicted_overlap) >= self.stack_size:
            raise ValueError(
                f"overlaps ({self.overlap} and {self.predicted_overlap}) must be smaller than stack_size "
                f"{self.stack_size}"
            )
        return self

    @property
    def summary(self) -> str:
        """How many slices."""
        return f"stacks of {self.stack_size}"

    @property
    def network_axes(self) -> tuple[int, ...]:
        """All three."""
        return (0, 1, 2)

    @property
    def piece_axes(self) -> tuple[int, ...]:
        """Pieces of the window."""
        return (0, 1, 2)

    @property
    def stacking_axis(self) -> int:
        """Slices are seen together."""
        return self.axis

    @property
    def regular_steps(self) -> RegularSteps:
        """Stacks follow each other from the first slice on."""
        return RegularSteps(
            self.axis,
            self.stack_size - self.overlap,
            self.stack_size - self.predicted_overlap,
            self.last_stack == "flush",
        )

    def check(self, window: Shape, spacing_mm: Spacing) -> None:
        """Check that the stack is as deep as the window."""
        del spacing_mm
        if self.stack_size != window[self.axis]:
            raise ValueError(
                f"stack_size {self.stack_size} differs from the window's {window[self.axis]} slices along axis "
                f"{self.axis}; give both the same number"
            )

    def refit(self, window: Shape) -> Self:
        """Return the stack of another window: all of its slices, with the same share of overlap."""
        size = window[self.axis]
        overlaps = {
            name: min(size - 1, round(size * getattr(self, name) / self.stack_size))
            for name in ("overlap", "predicted_overlap")
        }
        return self.model_copy(update={"stack_size": size, **overlaps})

    def lift(self, network: "nn.Module") -> "nn.Module":
        """Return the network itself, as a stack is a volume."""
        return network

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, *, axis: int = 0, **_: int) -> Iterator[tuple[Self, Shape]]:
        """All slices, then fewer of them down to eight, then smaller parts of slices.

        Whole slices come first, as in the paper.
        """
        depth = geometry.shape[axis]
        smallest = min(depth, SMALLEST_STACK)
        while depth > smallest:
            yield cls._part(geometry, axis, depth)
            depth = max(smallest, min(depth - 1, depth * 7 // 8))
        for step in range(SHRINKING_STEPS):
            yield cls._part(geometry, axis, smallest, step)

    @classmethod
    def _part(cls, geometry: VolumeGeometry, axis: int, num_slices: int, step: int = 0) -> tuple[Self, Shape]:
        """A stack of so many slices, shrunk in their plane by so many steps."""
        sizes = [shrink(side, step, SHRINKING_STEPS, SMALLEST_IN_PLANE) for side in geometry.shape]
        sizes[axis] = num_slices
        overlap = min(num_slices - 1, round(OVERLAP_FACTOR * num_slices))
        return cls(stack_size=num_slices, overlap=overlap, axis=axis), (sizes[0], sizes[1], sizes[2])

    @classmethod
    def from_rules(
        cls, configuration: str, geometry: VolumeGeometry, rules: ConfigurationRules
    ) -> Iterator[tuple[Self, Shape]]:
        """The candidates along the planned axis; a recipe's number of slices stays, whatever the memory."""
        del configuration
        axis, num_slices = geometry.slice_axis, rules.num_slices
        if num_slices is None:
            return cls.candidates(geometry, axis=axis)
        return (cls._part(geometry, axis, num_slices, step) for step in range(SHRINKING_STEPS))

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Axis and overlaps."""
        del rules
        return (
            f"stacks of {self.stack_size} {slices_apart(geometry.spacing_mm, self.axis)}, of which successive ones "
            f"share {self.overlap} while training (0.625 of a stack: the best of Shivdeo et al. 2021, section 5.5) and "
            f"{self.predicted_overlap} when a volume is predicted"
        )

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Slices with those around them."""
        del geometry, rules
        if self.stack_size == 1:
            return f"single slices along {AXIS_NAMES[self.axis]} through a 3D network, as there are no more"
        return (
            f"{self.stack_size} successive slices along {AXIS_NAMES[self.axis]} at a time through a 3D network, which "
            "sees each slice among those around it"
        )

    def window_reason(self, window: Shape, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Explain the window; a recipe may fix the number of slices of a stack."""
        if rules.num_slices is not None:
            return "as many slices as the recipe has fit"
        return super().window_reason(window, geometry, rules)

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """A stack of few slices shows little more than single ones."""
        slices = geometry.shape[self.axis]
        if self.stack_size >= min(LEAST_SLICES, slices / 3):
            return super().caution(window, geometry)
        return (
            f"stacks have 32 slices in Shivdeo et al. 2021, and here only {self.stack_size} of {slices} fit; "
            f"{LARGER_LIMITS}, or take {ALIAS}"
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """Every axis, with and without overlap."""
        return [cls(stack_size=4), cls(stack_size=4, overlap=2, axis=1), cls(stack_size=8, overlap=5, axis=2)]
