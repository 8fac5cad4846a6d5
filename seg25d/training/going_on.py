"""Folds that have begun: which settings go with them, and for how long they are trained.

The rule for lengths (documentation/how_to/training.md): a command means the length that it names, or without words the
recipe's. A fold of another length goes on to a longer one, which is said; a shorter one is an error.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.progress import format_seconds
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.config import EXTENDABLE, TrainingConfig, apply_settings, changed_settings

logger = logging.getLogger(__name__)


class KeptLength(NamedTuple):
    """A model that others need, which was begun before."""

    name: str
    own: TrainingConfig
    asked: TrainingConfig


def settle_config(folder: FoldFolder, recipe: TrainingConfig, changes: Mapping[str, str]) -> TrainingConfig:
    """The settings of a fold: the recipe's with the changes; or those that it was begun with, of the length asked for.

    Nothing is written: the one process that may puts them into `config.json`, from where the same command goes on
    with the same ones.

    Args:
        folder: The fold's folder.
        recipe: Where a new run starts from, also its length where the changes name none.
        changes: Settings by name, as text; see `apply_settings`.

    Raises:
        InputError: If the changes do not fit a run that has begun: only its length may change, and not to a shorter
            one.
        ModelError: If its checkpoint is damaged.
    """
    if not folder.checkpoint.exists():
        return apply_settings(recipe, changes)
    config = begun_config(folder, recipe, changes)
    before, asked = read_record(folder.config, TrainingConfig), apply_settings(recipe, changes)
    return config.model_copy(update=_length_to_go_on(folder, before, asked))


def begun_config(folder: FoldFolder, recipe: TrainingConfig, changes: Mapping[str, str]) -> TrainingConfig:
    """The settings that a fold was begun with, also its length, with the file to begin with that is named now.

    Raises:
        InputError: If it was begun with other settings than these.
    """
    before = read_record(folder.config, TrainingConfig)
    config = apply_settings(before, {key: text for key, text in changes.items() if key not in EXTENDABLE})
    if recipe.pretrained is not None:
        begun_with = config.pretrained or recipe.pretrained
        asked_for = begun_with.model_copy(update={"digest": recipe.pretrained.digest})
        config = config.model_copy(update={"pretrained": asked_for})
    others = changed_settings(before, config)
    if others:
        raise InputError(
            f"{folder.root} was begun with other settings ({', '.join(others)}); leave them as they were to go on, or "
            "start over with --restart"
        )
    return config


def tell_changes(folder: FoldFolder, config: TrainingConfig, asked: TrainingConfig) -> None:
    """Say how a fold that has begun differs from one that would begin now, if it does.

    Args:
        folder: The fold's folder, with the settings that it has had so far.
        config: What `settle_config` gives.
        asked: The settings of a fold that has not begun.
    """
    if not folder.checkpoint.exists():
        return
    before = read_record(folder.config, TrainingConfig)
    if _length(before) != _length(config):
        there, wanted = describe_length(before), describe_length(config)
        logger.info("%s: so far its length was %s; it goes on to what is asked for, %s", folder.name, there, wanted)
    elif _length(config) != _length(asked):
        logger.info(
            "%s: it is trained to the end, in %s; asked for are other epochs, %s, with which --restart trains it anew",
            *(folder.name, describe_length(config), describe_length(asked)),
        )
    kept = [name for name in changed_settings(asked, config) if name not in EXTENDABLE]
    if kept:
        logger.info("%s: it keeps the settings that it was begun with (%s)", folder.name, ", ".join(kept))


def tell_kept_lengths(models: Iterable[KeptLength]) -> None:
    """Say in one line which models that others need have another length than the one that is asked for."""
    by_lengths: dict[tuple[str, str], list[str]] = {}
    for model in models:
        if _length(model.own) != _length(model.asked):
            lengths = describe_length(model.own), describe_length(model.asked)
            by_lengths.setdefault(lengths, []).append(model.name)
    for (own, asked), names in by_lengths.items():
        logger.info(
            "needed too, and kept at the length that was begun with, %s, not %s: %s", own, asked, ", ".join(names)
        )


def describe_length(config: TrainingConfig) -> str:
    """The length of a run for people: `300 updates (3 epochs of 100)`, `a time budget of 15 min 0 s`."""
    if config.time_budget_seconds is not None:
        return f"a time budget of {format_seconds(config.time_budget_seconds)}"
    number, per_epoch = config.num_iterations(), config.iterations_per_epoch
    epochs = math.ceil(number / per_epoch)
    return f"{number:,} update{'s' * (number > 1)} ({epochs:,} epoch{'s' * (epochs > 1)} of {min(number, per_epoch):,})"


def length_words(config: TrainingConfig, recipe: TrainingConfig) -> str:
    """The words of a command that ask for the length of a run."""
    if _length(config) == _length(recipe):
        return "no words for the length"
    if config.time_budget_seconds is not None:
        return f"--time-budget {config.time_budget_seconds:g}s"
    if config.iterations is None and config.iterations_per_epoch == recipe.iterations_per_epoch:
        return f"--epochs {config.epochs}"
    return f"--epochs {config.epochs} --iterations {config.num_iterations()}"


def _length(config: TrainingConfig) -> dict[str, Any]:
    """What decides how long a run is; the rest of it does not matter with a time budget."""
    return {name: getattr(config, name) for name in sorted(EXTENDABLE)}


def _length_to_go_on(folder: FoldFolder, before: TrainingConfig, asked: TrainingConfig) -> dict[str, Any]:
    """The settings of length with which a fold goes on.

    Two numbers of updates, or two times, are compared with each other; a time with the time that the fold has taken so
    far, and a number of updates with those that it has made.

    Raises:
        InputError: If what is asked for is shorter.
    """
    if _length(before) == _length(asked):
        return _length(before)
    done = load_checkpoint(folder.checkpoint)
    old_seconds, seconds = before.time_budget_seconds, asked.time_budget_seconds
    if seconds is not None:
        there, wanted = done["seconds"] if old_seconds is None else old_seconds, seconds
    else:
        there, wanted = (
            done["iteration"] if old_seconds is not None else before.num_iterations(),
            asked.num_iterations(),
        )
    if wanted > there:
        return _length(asked)
    if wanted == there and (old_seconds is None) == (seconds is None):
        # Epochs that are over cannot be cut in another way.
        return _length(before) if done["finished"] else _length(asked)
    so_far = f"{done['iteration']:,} updates in {format_seconds(done['seconds'])} are done"
    raise InputError(
        f"the length of {folder.root} is {describe_length(before)} ({so_far}), and what is asked for is not longer: "
        f"{describe_length(asked)}. Ask for the same ({length_words(before, asked)}) or for more to go on, or "
        "start over with --restart"
    )
