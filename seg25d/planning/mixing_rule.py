"""Which mixing between slices a configuration should have by default: the best that was measured on data of its kind.

Data sets are of one kind if their voxels are anisotropic or not, and their images have one channel or several. A mixing
is taken where `MEASURED` says that it gains on such data, over cases and seeds, in equal time. The table is empty until
there are figures of three data sets (`benchmarks/mixing.py`), and so long nothing is mixed by default. Papers' recipes
never mix.
"""

from collections.abc import Sequence
from typing import NamedTuple

from seg25d.core.grids import ANISOTROPY
from seg25d.core.types import Spacing
from seg25d.networks import MIXINGS

LEAST_SEEDS = 3
"""Trainings of each of the two that were compared: one of each ranks nothing, as two seeds of one plan may differ as
much as two plans (documentation/reference/tables_of_the_papers.md)."""


class DataKind(NamedTuple):
    """What decides which data sets are alike."""

    anisotropic: bool
    """Whether voxels are more than `ANISOTROPY` times longer along one axis than along another."""
    multimodal: bool
    """Whether images have several channels."""

    @classmethod
    def of(cls, spacing_mm: Spacing, num_channels: int) -> "DataKind":
        """The kind of a data set.

        Args:
            spacing_mm: Target spacing (D, H, W).
            num_channels: Of an image.
        """
        return cls(max(spacing_mm) > ANISOTROPY * min(spacing_mm), num_channels > 1)

    def __str__(self) -> str:
        """For people: `anisotropic voxels and one channel`."""
        voxels = "anisotropic" if self.anisotropic else "isotropic"
        return f"{voxels} voxels and {'several channels' if self.multimodal else 'one channel'}"


class MeasuredGain(NamedTuple):
    """What a mixing gained on a data set over the same configuration without it, trained for the same time."""

    kind: DataKind
    configuration: str
    """Without mixing: `si`, `axial`."""
    mixing: str
    """One of `MIXINGS`."""
    gain: float
    """Difference of the mean Dice."""
    low: float
    """Ends of the interval of 95 % of the difference, of a test that knows cases and seeds."""
    high: float
    num_seeds: int
    """Trainings of each."""
    source: str
    """Data set, minutes and processor, and the file of the table."""

    def __str__(self) -> str:
        """For people."""
        return f"{self.mixing} {self.gain:+.3f} ({self.low:+.3f} to {self.high:+.3f}; {self.source})"


MEASURED: tuple[MeasuredGain, ...] = ()
"""Lines that benchmarks/mixing_facts.py makes of benchmarks/results/mixing_*.json; none yet."""


class MixingChoice(NamedTuple):
    """The mixing of a configuration by default."""

    mixing: str | None
    """None: none."""
    reason: str


def default_mixing(
    configuration: str, spacing_mm: Spacing, num_channels: int, measured: Sequence[MeasuredGain] = MEASURED
) -> MixingChoice:
    """Choose the mixing of a configuration for a data set.

    Args:
        configuration: Its own name, without a network and without a mixing.
        spacing_mm: Target spacing (D, H, W).
        num_channels: Of an image.
        measured: What is known.

    Returns:
        The mixing with the largest gain of those that are known to gain, by three seeds or more and with all of the
        interval above 0; none if there is none.
    """
    kind = DataKind.of(spacing_mm, num_channels)
    alike = [each for each in measured if (each.kind, each.configuration) == (kind, configuration)]
    enough = [each for each in alike if each.num_seeds >= LEAST_SEEDS]
    if not enough:
        few = f" with {LEAST_SEEDS} seeds or more" if alike else ""
        return MixingChoice(None, f"nothing was measured of {configuration} on {kind}{few}")
    best = max(enough, key=lambda each: (each.low > 0, each.gain))
    if best.low > 0:
        return MixingChoice(best.mixing, f"on {kind} the best that was measured: {best}")
    return MixingChoice(None, f"on {kind} none is known to gain; the best that was measured: {best}")


def mixing_asked_for(name: str) -> str | None:
    """The mixing that a configuration's name asks for, with or without a network; None: none."""
    last = name.rsplit("__", maxsplit=1)[-1]
    return last if "__" in name and last in MIXINGS else None


def default_mixing_reason(name: str, spacing_mm: Spacing, num_channels: int) -> dict[str, str]:
    """What `--explain` says of mixing: of configurations whose name asks for one, what would be the default.

    Args:
        name: Of a configuration, with or without a network and a mixing.
        spacing_mm: Target spacing (D, H, W).
        num_channels: Of an image.
    """
    asked = mixing_asked_for(name)
    if asked is None:
        return {}
    usual = default_mixing(name.partition("__")[0], spacing_mm, num_channels)
    return {"default_mixing": f"{asked} is asked for; by default {usual.mixing or 'none'}: {usual.reason}"}
