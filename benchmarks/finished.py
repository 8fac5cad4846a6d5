"""Trainings that are finished, in the JSON file of their table, which alone says what need not be trained again.

Each training, a contender with a seed, is written into the file as it ends: what shapes it (its table, its name, its
settings, its plan), the machine that it ran on, and its scores case by case. So a table goes on where nothing else is
left, as on another machine whose workspace has nothing but the raw data. Trainings with other settings stay in the
file; its rows are those of the last command.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from machines import distinct

from seg25d.core.errors import InputError
from seg25d.core.files import read_json, write_json
from seg25d.core.locks import file_lock
from seg25d.core.records import digest, read_record
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.representations.fused_views import FusedViews
from seg25d.runs.names import find_configuration

logger = logging.getLogger(__name__)
Training = dict[str, Any]
"""`facts_of` a training, and once it is finished also `dataset`, its full name, `machine`, and its results: `cases` and
`scores`, see `case_scores.scores_of`, or `results` with scores by case."""
KEY = "trainings"
"""Where they are in the file."""
SAME = ("table", "name", "settings")
"""What two records of one training have in common; the settings have the seed."""
NO_SETTINGS = ("data", "workspace", "output", "only", "training", "nnunet", "weights")
"""Options that are places, or say which trainings are wanted."""
OF_THE_PLAN = ("configuration", "spacing_mm", "num_channels", "window")
"""What all trainings of a contender share; those of other programs have none of it."""
PATIENCE_SECONDS = 60.0
"""How long to wait for another command that writes the same file, which takes it a part of a second."""


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """The options as text, without paths."""
    return {key: str(value) for key, value in vars(options).items() if key not in NO_SETTINGS and value is not None}


def facts_of(
    table: str, name: str, seed: int, options: argparse.Namespace, plan: str | None = None, **own: Any
) -> Training:
    """What distinguishes a training from all others.

    Args:
        table: Name of the table.
        name: Of the contender.
        seed: Of the training.
        options: Those of the command.
        plan: Digest of the plan that it is trained by; None: nothing is planned here, as on another machine.
        own: Its own settings in place of the command's; None: it does not have this one.
    """
    settings = settings_of(argparse.Namespace(**vars(options) | {"seeds": seed} | own))
    return {"table": table, "name": name, "seed": seed, "settings": settings, "plan": plan}


def plan_digest(*plans: ConfigurationPlan) -> str:
    """A digest of what a training depends on.

    Fields that later versions add and leave empty do not change it, nor does an estimate of the memory.
    """
    decisions = [plan.decisions.model_dump(mode="json", exclude_none=True) for plan in plans]
    return digest([{key: value for key, value in each.items() if key != "estimated_memory_gb"} for each in decisions])


def planned_digest(path: Path, configuration: str) -> str | None:
    """A digest of a configuration's plan and of those of its views; None if it is not planned here.

    Args:
        path: The file of the plans.
        configuration: Its name.
    """
    try:
        plans = read_record(path, Plans)
        plan = find_configuration(plans, configuration)[1]
        views = plan.representation.views if isinstance(plan.representation, FusedViews) else ()
        return plan_digest(plan, *(find_configuration(plans, view)[1] for view in views))
    except InputError:
        return None


def folder_name(readable: str, settings: Mapping[str, str], plan: str | None) -> str:
    """The name of a folder for what a training leaves, in which none with other settings or by another plan goes on.

    Args:
        readable: Its beginning.
        settings: Of the training.
        plan: Digest of its plan.
    """
    return f"{readable}_{digest([dict(settings), plan], 8)}"


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Any]]:
    """Give the content of a JSON file, which may be missing, to be changed, and write it; others that do so wait.

    Raises:
        BusyError: If another command holds it for long.
        RecordError: If it cannot be read.
    """
    with file_lock(path, "writing results", patience_seconds=PATIENCE_SECONDS):
        content: dict[str, Any] = read_json(path) if path.exists() else {}
        yield content
        write_json(path, content)


def read_trainings(output: Path) -> list[Training]:
    """All finished trainings of a file; none if it is not there.

    Raises:
        RecordError: If it cannot be read.
    """
    return list(read_json(output).get(KEY, ())) if output.exists() else []


def find_training(output: Path, wanted: Training) -> Training | None:
    """The record of a training; None if it is not finished, or was trained by another plan than there is here.

    Args:
        output: The file.
        wanted: Its facts, see `facts_of`.
    """
    known = next((each for each in read_trainings(output) if _is_same(each, wanted)), None)
    if known is None or wanted.get("plan") in (None, known.get("plan")):
        return known
    _tell_of_another_plan(known["name"], known["seed"], wanted["plan"])
    return None


@cache
def _tell_of_another_plan(name: str, seed: int, plan: str) -> None:
    """Say so once, however often a training is looked for."""
    logger.warning("%s, seed %d: trained by another plan than %s; it does not count", name, seed, plan[:8])


def keep_training(output: Path, training: Training) -> Training:
    """Add a finished training to a file, in place of an earlier record of it; all else stays as it is.

    Args:
        output: The file, made if it is missing.
        training: Its facts and results.

    Returns:
        The training.
    """
    with changing(output) as document:
        document[KEY] = [*(each for each in document.get(KEY, ()) if not _is_same(each, training)), training]
    return training


def _is_same(training: Training, wanted: Training) -> bool:
    """Whether two records are of one training."""
    return all(training.get(key) == wanted[key] for key in SAME)


def known_dataset(output: Path, identifier: str) -> str | None:
    """The full name of the data set of a file's trainings, where this machine may not have it; None if there are none.

    Args:
        output: The file.
        identifier: The data set as the command names it: `4`.
    """
    names = (each["dataset"] for each in read_trainings(output) if each["settings"].get("dataset") == identifier)
    return next(names, None)


def over_trainings(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of one contender: scores by training and case, means of the others over trainings.

    Raises:
        SystemExit: If the trainings were scored on different cases, as folds may differ from machine to machine.
    """
    first = trainings[0]
    if odd := [each for each in trainings if each["cases"] != first["cases"]]:
        raise SystemExit(
            f"error: expected the same validation cases in all trainings of {first['name']}, got {len(first['cases'])} "
            f"with seed {first['seed']} and others with seed {odd[0]['seed']}; remove one of the two from the file"
        )
    shared = [name for name in first["scores"] if all(name in each["scores"] for each in trainings)]
    merged: dict[str, Any] = {key: first[key] for key in OF_THE_PLAN if key in first}
    merged |= {
        "seeds": [each["seed"] for each in trainings],
        "machines": distinct(each["machine"] for each in trainings),
        "scores": {name: [each["scores"][name] for each in trainings] for name in shared},
    }
    for key in ("iterations", "training_s"):
        merged[key] = fmean(sum(each[key]) for each in trainings)
    merged["seconds_per_update"] = fmean(each["seconds_per_update"] for each in trainings)
    merged["training_memory_gb"] = max(each["training_memory_gb"] for each in trainings)
    merged["cases"] = first["cases"]
    seconds = fmean(each["cost"]["seconds_per_case"] for each in trainings)
    merged["cost"] = first["cost"] | {"seconds_per_case": seconds}
    return merged
