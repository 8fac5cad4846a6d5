"""Trainings that are finished, in the JSON file of their table, which alone says what need not be trained again.

Each training, a contender with a seed, is written into the file as it ends: its settings, its scores case by case, and
the machine that it ran on. So a table goes on where nothing else is left, as on another machine whose workspace has
nothing but the raw data. Trainings with other settings stay in the file; its rows are those of the last command.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from machines import distinct

from seg25d.core.files import read_json, write_json
from seg25d.core.locks import file_lock

KEY = "trainings"
"""Where they are in the file."""
SAME = ("table", "name", "settings")
"""What two records of one training have in common; the settings have the seed."""
OF_THE_PLAN = ("configuration", "spacing_mm", "num_channels")
"""What all trainings of a contender share; those of other programs have none of it."""
PATIENCE_SECONDS = 60.0
"""How long to wait for another command that writes the same file, which takes it a part of a second."""


def read_trainings(output: Path) -> list[dict[str, Any]]:
    """All finished trainings of a file; none if it is not there.

    Raises:
        RecordError: If it cannot be read.
    """
    return list(read_json(output).get(KEY, ())) if output.exists() else []


def is_same(training: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two records are of one training."""
    return all(training.get(key) == wanted[key] for key in SAME)


def find_training(output: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a training; None if it is not finished.

    Args:
        output: The file.
        wanted: Its table, its name and its settings.
    """
    return next((each for each in read_trainings(output) if is_same(each, wanted)), None)


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


def known_dataset(output: Path, identifier: str) -> str | None:
    """The full name of the data set of a file's trainings, where this machine may not have it; None if there are none.

    Args:
        output: The file.
        identifier: The data set as the command names it: `4`.
    """
    names = (each["dataset"] for each in read_trainings(output) if each["settings"].get("dataset") == identifier)
    return next(names, None)


def keep_training(output: Path, training: dict[str, Any]) -> None:
    """Add a finished training to a file, in place of an earlier record of it; all else stays as it is.

    Args:
        output: The file, made if it is missing.
        training: With at least its table, its name and its settings.
    """
    with changing(output) as document:
        others = [each for each in document.get(KEY, ()) if not is_same(each, training)]
        document[KEY] = [*others, training]


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
