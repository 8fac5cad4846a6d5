"""Folds that have begun: which settings go with them, and for how long they are trained.

The rule for lengths (documentation/how_to/training.md): a command means the length that it names, or without words the
recipe's. A fold of another length goes on to a longer one, which is said; a shorter one is an error.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.lengths import Length, count, describe_two, plain_seconds
from seg25d.core.progress import format_seconds
from seg25d.core.workspace import FoldFolder
from seg25d.training.checkpoint import Done, read_done
from seg25d.training.config import EXTENDABLE, TrainingConfig, apply_settings, changed_settings, read_config
from seg25d.training.schedules import is_over_early

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
            one; or if there is a model without the checkpoint from which it could go on.
        ModelError: If its checkpoint is damaged.
    """
    if not folder.checkpoint.exists():
        _check_overwriting(folder)
        return apply_settings(recipe, changes)
    config = begun_config(folder, recipe, changes)
    before, asked = read_config(folder), apply_settings(recipe, changes)
    return config.model_copy(update=_length_to_go_on(folder, before, asked))


def accepted_seconds(folder: FoldFolder, seconds: float) -> float:
    """The time that a fold can be given where it is to be `seconds`: what it had, if that was not less.

    A fold whose checkpoint cannot be read is taken for one that has not begun; its training says so.
    """
    try:
        if not folder.checkpoint.exists():
            return seconds
        there, done = read_config(folder).length, read_done(folder.checkpoint)
    except InputError:
        return seconds
    spent = _spent(there, done)
    if seconds > max(there.seconds or 0.0, spent):
        return seconds
    return math.floor(spent) + 1.0 if there.seconds is None else there.seconds


def seconds_so_far(folder: FoldFolder) -> float:
    """The time that a fold has been trained for; 0 if it has not begun, or its checkpoint cannot be read."""
    with suppress(InputError):
        return read_done(folder.checkpoint).seconds if folder.checkpoint.exists() else 0.0
    return 0.0


def given_seconds(folder: FoldFolder) -> float | None:
    """The time that a training that has begun was given; None if there is none that can be read, or it had no time."""
    with suppress(InputError):
        return read_config(folder).time_budget_seconds if folder.checkpoint.exists() else None
    return None


def _check_overwriting(folder: FoldFolder) -> None:
    if folder.model_final.exists():
        raise InputError(
            f"{folder.root} has a model ({folder.model_final.name}) and no checkpoint ({folder.checkpoint.name}) from "
            "which it could go on, as models that were installed; predict with it, or train it anew with --restart, "
            "which removes it"
        )


def begun_config(folder: FoldFolder, recipe: TrainingConfig, changes: Mapping[str, str]) -> TrainingConfig:
    """The settings that a fold was begun with, also its length, with the file to begin with that is named now.

    Raises:
        InputError: If it was begun with other settings than these.
    """
    before = read_config(folder)
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
    before = read_config(folder)
    if before.length != config.length:
        done = read_done(folder.checkpoint)
        there, wanted = describe_two(before.length, config.length)
        over = count(len(done.log), "epoch")
        # Epochs end at whole multiples of their number of updates.
        more = config.length.updates is not None and done.updates % config.length.per_epoch
        logger.info(
            "%s: so far its length was %s; it goes on to what is asked for, %s%s",
            *(folder.name, there, wanted, f", beside the {over} of before" if more and done.log else ""),
        )
    elif config.length != asked.length:
        there, wanted = describe_two(config.length, asked.length)
        same = (config.length.seconds, config.length.updates) == (asked.length.seconds, asked.length.updates)
        ended = "it is trained to the end, in" if same else "early_stopping has ended it, in a training of at most"
        logger.info(
            "%s: %s %s; asked for %s %s, with which --restart trains it anew",
            *(folder.name, ended, there, "are other epochs," if same else "is", wanted),
        )
    kept = [name for name in changed_settings(asked, config) if name not in EXTENDABLE]
    if kept:
        logger.info("%s: it keeps the settings that it was begun with (%s)", folder.name, ", ".join(kept))


def tell_kept_lengths(models: Iterable[KeptLength]) -> None:
    """Say in one line which models that others need have another length than the one that is asked for."""
    by_lengths: dict[tuple[str, str], list[str]] = {}
    for model in models:
        if model.own.length != model.asked.length:
            by_lengths.setdefault(describe_two(model.own.length, model.asked.length), []).append(model.name)
    for (own, asked), names in by_lengths.items():
        logger.info(
            "needed too, and kept at the length that was begun with, %s, not %s: %s", own, asked, ", ".join(names)
        )


def tell_kept_folds(folds: Iterable[tuple[FoldFolder, TrainingConfig]]) -> None:
    """The same of folds, as far as they have begun, and the settings that are asked for."""
    begun = ((folder, asked) for folder, asked in folds if folder.config.exists())
    tell_kept_lengths(KeptLength(folder.name, read_config(folder), asked) for folder, asked in begun)


def length_words(config: TrainingConfig, recipe: TrainingConfig) -> str:
    """The words of a command that ask for the length of a run."""
    if config.length == recipe.length:
        return "no words for the length"
    if config.time_budget_seconds is not None:
        return f"--time-budget {plain_seconds(config.time_budget_seconds)}s"
    whole = config.num_iterations() == config.epochs * config.iterations_per_epoch
    if whole and config.iterations_per_epoch == recipe.iterations_per_epoch:
        return f"--epochs {config.epochs}"
    return f"--epochs {config.epochs} --iterations {config.num_iterations()}"


def _length_settings(config: TrainingConfig) -> dict[str, Any]:
    """The settings that decide how long a run is."""
    return {name: getattr(config, name) for name in sorted(EXTENDABLE)}


def _spent(there: Length, done: Done) -> float:
    """The time that a fold has taken so far, as far as a longer one has to be longer than that."""
    return done.seconds if done.is_finished or there.seconds is None else 0.0


def _length_to_go_on(folder: FoldFolder, before: TrainingConfig, asked: TrainingConfig) -> dict[str, Any]:
    """The settings of length with which a fold goes on.

    Two numbers of updates, or two times, are compared with each other; a time with the time that the fold has taken so
    far, and a number of updates with those that it has made. A time that is over may have been exceeded.

    Raises:
        InputError: If what is asked for is shorter.
    """
    there, wanted = before.length, asked.length
    if there == wanted:
        return _length_settings(before)
    done = read_done(folder.checkpoint)
    if (there.seconds, there.updates) == (wanted.seconds, wanted.updates):
        # Epochs that are over cannot be cut in another way.
        return _length_settings(before if done.is_finished else asked)
    if wanted.seconds is not None:
        longer = wanted.seconds > max(there.seconds or 0.0, _spent(there, done))
    else:
        assert wanted.updates is not None, "a length is a time or a number of updates"
        longer = wanted.updates > (done.updates if there.updates is None else there.updates)
    if longer:
        over_early = done.is_finished and is_over_early(asked, [line["validation_loss"] for line in done.log])
        return _length_settings(before if over_early else asked)
    texts = describe_two(there, wanted)
    so_far = f"{count(done.updates, 'update')} in {format_seconds(done.seconds)} are done"
    raise InputError(
        f"the length of {folder.root} is {texts[0]} ({so_far}), and what is asked for is not longer: {texts[1]}. Ask "
        f"for the same ({length_words(before, asked)}) or for more to go on, or start over with --restart"
    )
