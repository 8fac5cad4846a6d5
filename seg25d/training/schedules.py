"""Learning rate over the course of a run, as a factor between 0 and 1."""

import math
from collections.abc import Callable


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def poly(progress: float) -> float:
    """(1 - progress) ** 0.9, as in nnU-Net."""
    return float((1 - progress) ** 0.9)


def constant(progress: float) -> float:
    """Always 1."""
    del progress
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "poly": poly, "constant": constant}
"""Schedules by name: functions of the share of the run that is over, 0 to 1."""


def learning_rate_factor(schedule: str, progress: float, warmup: float) -> float:
    """The factor on the learning rate.

    Args:
        schedule: A name in `SCHEDULES`.
        progress: Share of the run that is over, 0 to 1 (more counts as 1).
        warmup: Share of the run during which the factor rises linearly.
    """
    progress = min(max(progress, 0.0), 1.0)
    factor = SCHEDULES[schedule](progress)
    if progress < warmup:
        # Never quite zero: the first update would be lost.
        factor *= max(progress / warmup, 0.01)
    return factor
