"""How long trainings take, reckoned from the seconds of an update, and in words."""

import math
from collections.abc import Sequence

from seg25d.core.lengths import count
from seg25d.core.progress import format_seconds
from seg25d.core.workspace import FoldFolder
from seg25d.planning.plan import ConfigurationPlan
from seg25d.training.checkpoint import read_done
from seg25d.training.config import TrainingConfig, read_config
from seg25d.training.sampling import VALIDATION_BATCHES, WINDOWS_PER_CASE
from seg25d.training.schedules import is_over_early

SHORT_BUDGET_S = 900.0
"""A shorter training, of which is told what it gives: the 15 minutes of the documentation."""


def expected_seconds(
    config: TrainingConfig, plan: ConfigurationPlan, num_validation_cases: int, seconds_per_update: float
) -> float:
    """How long a training takes from its beginning to its end, without the scores of whole cases afterwards."""
    if config.time_budget_seconds is not None:
        return config.time_budget_seconds
    return config.num_iterations() * _seconds_with_validation(config, plan, num_validation_cases, seconds_per_update)


def expected_updates(
    config: TrainingConfig,
    plan: ConfigurationPlan,
    num_validation_cases: int,
    seconds_per_update: float,
    budget_s: float,
) -> int:
    """How many updates a time budget has room for, in two digits."""
    number = budget_s / _seconds_with_validation(config, plan, num_validation_cases, seconds_per_update)
    if number < 1:
        return 1
    digits: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(number / digits) * digits


def share_left(folder: FoldFolder, config: TrainingConfig) -> float:
    """Share of a training that is still to be done, by its checkpoint: 1 if it has not begun, 0 if it is over.

    Raises:
        ModelError: If the checkpoint is damaged.
    """
    if not folder.checkpoint.exists():
        return 1.0
    done = read_done(folder.checkpoint)
    if is_over_early(config, [line["validation_loss"] for line in done.log]):
        return 0.0
    return 1 - config.length.share_done(done.updates, done.seconds)


def is_trained(folder: FoldFolder) -> bool:
    """Whether a model is done, and not being made longer: then it is one of before.

    Raises:
        ModelError: If the checkpoint is damaged.
        RecordError: If its settings cannot be read.
    """
    if not folder.model_final.exists() or not folder.checkpoint.exists():
        return folder.model_final.exists()
    # A longer training that was cut off before its first checkpoint has its settings already.
    config = read_config(folder)
    return read_done(folder.checkpoint).is_finished and share_left(folder, config) == 0


def format_duration(seconds: float) -> str:
    """A duration that is not known to the second: `about 8 s`, `about 4 min`, `about 2 h 5 min`, `about 3 days`."""
    days = seconds / 86400
    if days >= 2:
        return f"about {days:.3g} days"
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    return "about " + (f"{round(seconds / 60)} min" if seconds < 3600 else format_seconds(seconds))


def format_update(seconds: float) -> str:
    """Seconds of an update with two digits."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def describe_training(
    config: TrainingConfig,
    plan: ConfigurationPlan,
    num_validation_cases: int,
    seconds_per_update: float,
    shares_left: Sequence[float],
) -> str:
    """What is still to be trained of folds, and how long that takes, as a part of a sentence.

    Args:
        config: Settings of every fold.
        plan: Of the configuration.
        num_validation_cases: Of a fold.
        seconds_per_update: As timed.
        shares_left: Per fold, see `share_left`; one at least is above 0.
    """
    whole = expected_seconds(config, plan, num_validation_cases, seconds_per_update)
    total = whole * sum(shares_left)
    at = f"at {format_update(seconds_per_update)} per update on this machine"
    if config.time_budget_seconds is not None:
        updates = expected_updates(config, plan, num_validation_cases, seconds_per_update, total)
        return f"{format_seconds(total)} of training, in which there is time for about {count(updates, 'update')} {at}"
    number = round(config.num_iterations() * sum(shares_left))
    updates = expected_updates(config, plan, num_validation_cases, seconds_per_update, SHORT_BUDGET_S)
    at_the_most = ", or less (early_stopping)" if config.early_stopping is not None else ""
    each = " each" if len(shares_left) > 1 else ""
    shorter = f"; --time-budget 15min would be about {count(updates, 'update')}{each}" if whole > SHORT_BUDGET_S else ""
    to_go = " to go" if min(shares_left) < 1 else ""
    return f"{count(number, 'update')}{to_go}, {format_duration(total)}{at_the_most} {at}{shorter}"


def _seconds_with_validation(
    config: TrainingConfig, plan: ConfigurationPlan, num_validation_cases: int, seconds_per_update: float
) -> float:
    """Seconds per update with its share of the look at validation windows after each epoch."""
    windows = min(
        config.validation_windows, WINDOWS_PER_CASE * num_validation_cases, VALIDATION_BATCHES * plan.batch_size
    )
    batches = math.ceil(windows / plan.batch_size)
    return seconds_per_update * (1 + batches * plan.scoring_share / config.iterations_per_epoch)
