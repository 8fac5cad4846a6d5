"""Learning rate over the course of a run, and early stopping: pure functions of the log.

A run that continues after an interruption therefore has the same learning rates as without it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from seg25d.core import lengths
from seg25d.core.lengths import Losses
from seg25d.training.config import TrainingConfig


class Moment(NamedTuple):
    """Position in a run."""

    progress: float
    """Share of the run that is over, 0 to 1."""
    validation_losses: Losses = ()


def learning_rate_factor(config: TrainingConfig, moment: Moment) -> float:
    """The factor on the learning rate, above `lowest_learning_rate` except in the warm-up.

    Schedules by epoch take `epochs` equal parts of the run for its epochs: with a time budget, a recipe runs through
    its whole schedule in that time. Only `plateau` counts the epochs that were validated.

    Args:
        config: Schedule, warm-up and their numbers.
        moment: Progress outside of 0 to 1 counts as 0 or 1.
    """
    progress = min(max(moment.progress, 0.0), 1.0)
    lowest = config.lowest_learning_rate / config.learning_rate
    factor = max(lowest, SCHEDULES[config.schedule](config, Moment(progress, moment.validation_losses)))
    if progress < config.warmup:
        # Never quite zero: the first update would be lost.
        factor *= max(progress / config.warmup, 0.01)
    return factor


def is_over_early(config: TrainingConfig, validation_losses: Losses) -> bool:
    """Whether `early_stopping` ends the run, see `seg25d/core/lengths.py`."""
    return lengths.is_over_early(config.early_stopping, config.length, validation_losses)


def _cosine(config: TrainingConfig, moment: Moment) -> float:
    """Half a cosine down to the lowest rate (Loshchilov & Hutter 2017, without restarts)."""
    return _half_cosine(config, moment.progress)


def _cosine_restarts(config: TrainingConfig, moment: Moment) -> float:
    """Repeated half cosines (Loshchilov & Hutter 2017); at whole epochs torch's CosineAnnealingWarmRestarts."""
    return _half_cosine(config, _epoch(config, moment) % config.schedule_epochs / config.schedule_epochs)


def _step(config: TrainingConfig, moment: Moment) -> float:
    """A constant that falls every `schedule_epochs` epochs; torch's StepLR."""
    return float(config.schedule_factor ** (_epoch(config, moment) // config.schedule_epochs))


def _drops(config: TrainingConfig, moment: Moment) -> float:
    """A constant that falls after given shares of the run."""
    return float(config.schedule_factor ** sum(moment.progress >= share for share in config.schedule_drops))


def _plateau(config: TrainingConfig, moment: Moment) -> float:
    """A constant that falls whenever `schedule_epochs` epochs in a row brought no lower validation loss.

    As Keras' ReduceLROnPlateau counts (torch's, with one epoch less of patience), for any improvement at all.
    """
    best, waited, steps = math.inf, 0, 0
    for loss in moment.validation_losses:
        if loss is not None and loss < best:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == config.schedule_epochs:
            waited, steps = 0, steps + 1
    return float(config.schedule_factor**steps)


def _poly(config: TrainingConfig, moment: Moment) -> float:
    """(1 - progress) ** 0.9, as in nnU-Net."""
    del config
    return float((1 - moment.progress) ** 0.9)


def _constant(config: TrainingConfig, moment: Moment) -> float:
    """Always 1."""
    del config, moment
    return 1.0


def _half_cosine(config: TrainingConfig, share: float) -> float:
    lowest = config.lowest_learning_rate / config.learning_rate
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * share))


def _epoch(config: TrainingConfig, moment: Moment) -> float:
    """Compute the number of finished epochs, with fraction; rounded where only rounding errors are missing."""
    epoch = moment.progress * config.epochs
    return round(epoch) if math.isclose(epoch, round(epoch), rel_tol=1e-9) else epoch


SCHEDULES: dict[str, Callable[[TrainingConfig, Moment], float]] = {
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "step": _step,
    "drops": _drops,
    "plateau": _plateau,
    "poly": _poly,
    "constant": _constant,
}
"""Schedules by name: the factor on the learning rate."""
