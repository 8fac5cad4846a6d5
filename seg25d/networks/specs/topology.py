"""Stages of networks: strides and kernel sizes, as settings."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import Field

from seg25d.core.limits import MAX_STAGES
from seg25d.core.records import Record
from seg25d.core.types import Sizes

NormName: TypeAlias = Literal["instance", "batch", "none"]
ActivationName: TypeAlias = Literal["leaky_relu", "relu"]
MAX_SIZE = 31
"""Of kernels and strides; the largest published kernel is 31 (Ding et al. 2022, RepLKNet)."""


class Topology(Record):
    """Strides and kernel sizes of a network with stages; stage 0 works at full size."""

    strides: tuple[Sizes, ...] = Field(max_length=MAX_STAGES)
    """Downsampling on entering each stage, per axis; the first is 1."""
    kernels: tuple[Sizes, ...] = Field(max_length=MAX_STAGES)
    """Kernel size per stage and axis."""

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.strides[0])

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis."""
        return product(self.strides)


def check_stages(strides: Sequence[Sizes], kernels: Sequence[Sizes], *others: Sequence[int]) -> None:
    """Check that the stages of a network fit together.

    Args:
        strides: Downsampling on entering each stage, per axis.
        kernels: Kernel size per stage and axis.
        others: Other settings with one entry per stage.

    Raises:
        ValueError: If numbers of stages or axes differ, the first stage downsamples, or a size is invalid.
    """
    if not strides or {len(entries) for entries in (kernels, *others)} != {len(strides)}:
        raise ValueError("widths, strides and kernels must have one entry per stage")
    if {len(sizes) for sizes in (*strides, *kernels)} not in ({2}, {3}):
        raise ValueError("strides and kernels must all have 2 or all have 3 axes")
    if set(strides[0]) != {1} or any(size < 1 or size % 2 == 0 for kernel in kernels for size in kernel):
        raise ValueError("the first stride must be 1 and kernel sizes odd")
    if any(step < 1 for stride in strides for step in stride):
        raise ValueError("strides must be at least 1")
    if max(size for sizes in (*strides, *kernels) for size in sizes) > MAX_SIZE:
        raise ValueError(f"strides and kernels must be at most {MAX_SIZE}")
    if any(entry < 1 for entries in others for entry in entries):
        raise ValueError("channels and numbers of convolutions must be at least 1")


def product(sizes: Sequence[Sizes]) -> Sizes:
    """Multiply sizes axis by axis."""
    total = [1] * len(sizes[0])
    for size in sizes:
        total = [a * b for a, b in zip(total, size, strict=True)]
    return tuple(total)
