"""How much of its Dice a trained model owes to the slices beside the one that it segments.

Its slices are shuffled before the network and brought back after it, or a slice is segmented while its neighbours at
some distance are blank. What that costs says whether, and from how far, a model uses the context between slices.
`benchmarks/slice_context.py` measures it.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, Self

from pydantic import Field, model_validator

from seg25d.core.names import CaseName
from seg25d.core.records import Record, read_record
from seg25d.evaluation.predicted_dice import Dice


class SliceChange(Record):
    """What is done to the slices of every window that the network sees."""

    kind: Literal["shuffled", "blanked"]
    nearest: int = Field(default=1, ge=1)
    """Of blanked neighbours: distance in slices, to either side, of the first ones from the slice that counts."""
    farthest: int | None = None
    """Distance of the last ones; None: as far as the window goes."""

    @model_validator(mode="after")
    def _check_distances(self) -> Self:
        if self.farthest is not None and self.farthest < self.nearest:
            raise ValueError(f"expected farthest to be at least nearest, got {self.farthest} and {self.nearest}")
        return self

    @property
    def title(self) -> str:
        """What was done, for tables."""
        if self.kind == "shuffled":
            return "slices shuffled"
        if self.farthest is None:
            return "all neighbours blank" if self.nearest == 1 else f"neighbours from {self.nearest} on blank"
        if self.farthest == self.nearest:
            return f"neighbours at {self.nearest} blank"
        return f"neighbours at {self.nearest} to {self.farthest} blank"


class ChangedSlices(Record):
    """The Dice with changed slices."""

    change: SliceChange
    dice: tuple[Dice | None, ...]
    """Of each case, in the order of `SliceContext.cases`: the mean over its classes; None where it has none."""


class SliceContext(Record):
    """What changes of the slices cost a model, on validation cases of its fold."""

    schema_version: Literal[1] = 1
    axis: int = Field(ge=0, le=2)
    """That the slices are stacked along (0 D, 1 H, 2 W)."""
    slice_mm: float = Field(gt=0)
    """Distance of slices that the network sees."""
    seed: int
    """Of the shuffling."""
    cases: tuple[CaseName, ...]
    dice: tuple[Dice | None, ...]
    """Of each case with its slices as they are, without mirroring."""
    changes: tuple[ChangedSlices, ...]

    @model_validator(mode="after")
    def _check_cases(self) -> Self:
        numbers = {len(self.cases), len(self.dice), *(len(each.dice) for each in self.changes)}
        if len(numbers) > 1:
            raise ValueError(f"expected a Dice for each of {len(self.cases)} cases, got numbers {sorted(numbers)}")
        return self

    @property
    def mean_dice(self) -> float | None:
        """The mean over cases with their slices as they are; None if no case has a Dice."""
        return _mean([each for each in self.dice if each is not None])

    def loss(self, changed: ChangedSlices) -> float | None:
        """How much Dice is lost by a change: the mean over the cases that have both; None if there are none."""
        pairs = zip(self.dice, changed.dice, strict=True)
        return _mean([before - after for before, after in pairs if before is not None and after is not None])

    @property
    def losses(self) -> dict[str, float | None]:
        """What each change costs, by its title."""
        return {each.change.title: self.loss(each) for each in self.changes}


def read_slice_context(path: Path, model: Path) -> SliceContext | None:
    """Read what was measured of a model.

    Args:
        path: The file.
        model: The model's file.

    Returns:
        None where it was not measured, or of an earlier model: then the file is older than the model.

    Raises:
        RecordError: If the file cannot be read.
    """
    if not path.exists() or not model.exists() or path.stat().st_mtime_ns < model.stat().st_mtime_ns:
        return None
    return read_record(path, SliceContext)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
