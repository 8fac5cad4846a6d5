"""Lengths of trainings, and the share of them that is done: from settings and logs alone, without torch."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from seg25d.core.progress import format_seconds

Losses = Sequence[float | None]
"""Validation loss of each epoch so far; None where it was NaN, which is never an improvement."""


class Length(NamedTuple):
    """How long a training is; trainings of equal lengths have the same updates and the same epochs."""

    seconds: float | None
    """Of a time budget."""
    updates: int | None
    """Or how many updates."""
    per_epoch: int
    """Updates of an epoch, at the most."""
    epochs: int
    """Parts of the run that the schedule takes for epochs."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Length":
        """The length that settings give a run.

        Args:
            settings: As in `config.json`.

        Raises:
            KeyError: If one is missing.
        """
        seconds = settings.get("time_budget_seconds")
        epochs, per_epoch = settings["epochs"], settings["iterations_per_epoch"]
        if seconds:
            return cls(float(seconds), None, int(per_epoch), int(epochs))
        updates = int(settings.get("iterations") or epochs * per_epoch)
        return cls(None, updates, min(int(per_epoch), updates), int(epochs))

    def share_done(self, updates: int, seconds: float) -> float:
        """Share of the run that so many updates or seconds are, 1 at the most."""
        if self.updates is None:
            assert self.seconds is not None, "a length is a time or a number of updates"
            return min(1.0, seconds / self.seconds)
        return min(1.0, updates / self.updates)

    def describe(self) -> str:
        """The length for people: `300 updates (3 epochs of 100)`, `a time budget of 15 min 0 s`."""
        if self.updates is None:
            assert self.seconds is not None, "a length is a time or a number of updates"
            return f"a time budget of {format_seconds(self.seconds)}"
        epochs = math.ceil(self.updates / self.per_epoch)
        return f"{count(self.updates, 'update')} ({count(epochs, 'epoch')} of {self.per_epoch:,})"

    def describe_exactly(self) -> str:
        """The same with all that distinguishes it from other lengths."""
        own = f"a time budget of {plain_seconds(self.seconds)} s" if self.seconds is not None else self.describe()
        return f"{own}, with epochs of {self.per_epoch:,} at the most and {self.epochs:,} in the schedule"


def describe_two(one: Length, other: Length) -> tuple[str, str]:
    """Two unequal lengths for people, in words that differ."""
    short = one.describe(), other.describe()
    return short if short[0] != short[1] else (one.describe_exactly(), other.describe_exactly())


def count(number: int, noun: str) -> str:
    """A number of things: `1 update`, `2,000 updates`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain_seconds(seconds: float) -> str:
    """Seconds with all their digits, as an option takes them: `20`, `1080000`, `4.0000001`."""
    digits = format(Decimal(repr(seconds)), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def is_over_early(early_stopping: int | None, length: Length, validation_losses: Losses) -> bool:
    """Whether `early_stopping` ends a run: that many epochs have passed since the lowest validation loss.

    Never with a time budget, which fixes the length of the run, and whose epochs may be short.
    """
    if early_stopping is None or length.seconds is not None:
        return False
    return len(validation_losses) - num_epochs_to_best(validation_losses) >= early_stopping


def num_epochs_to_best(validation_losses: Losses) -> int:
    """Find the number (from 1) of the first epoch with the lowest validation loss; 0 if there is none."""
    known = [(loss, epoch) for epoch, loss in enumerate(validation_losses, 1) if loss is not None]
    return min(known)[1] if known else 0


def share_done(settings: Any, log: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of a run that is over after the epochs of its log; 1 also where `early_stopping` has ended it.

    Args:
        settings: As in `config.json`.
        log: The lines of `log.jsonl`.

    Returns:
        None if these are no such settings and lines, or there are none yet.
    """
    try:
        length, last = Length.of(settings), log[-1]
        stopping = settings.get("early_stopping")
        if stopping and is_over_early(stopping, length, [line["validation_loss"] for line in log]):
            return 1.0
        timed = length.seconds is not None
        return length.share_done(0, last["total_seconds"]) if timed else length.share_done(last["iteration"], 0.0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
