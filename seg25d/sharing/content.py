"""Checks of an archive's unpacked files: each must fit its name, and all together must be complete models."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from seg25d.core.errors import InputError, ModelError, RecordError
from seg25d.core.records import read_record
from seg25d.data.description import read_description
from seg25d.ensembling.load import files_of_model
from seg25d.evaluation.predicted_dice import read_calibration
from seg25d.evaluation.summary import Summary
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import ModelHeader, load_model
from seg25d.planning.plans_file import read_plans
from seg25d.planning.portable_model import GRAPH_SUFFIX, read_portable
from seg25d.selection.best import Best
from seg25d.sharing.manifest import BEST, Subject, in_fold, runs_of

READERS: Mapping[str, Callable[[Path], object]] = {
    BEST: partial(read_record, record_type=Best),
    "plans.json": read_plans,
    "dataset.json": read_description,
    "fingerprint.json": partial(read_record, record_type=Fingerprint),
    "summary.json": partial(read_record, record_type=Summary),
    "predicted_dice.json": read_calibration,
}
"""Reader of each JSON file, which raises InputError if the file does not fit."""
MODELS: Mapping[str, Callable[[Path], ModelHeader]] = {
    ".safetensors": lambda path: load_model(path)[0],
    GRAPH_SUFFIX: lambda path: read_portable(path).header,
}
"""Reader of each kind of model. That of graphs leaves these to the runtime, which gets their bytes and an empty folder
for other files that they name (`inference/graph_model.py`); the records beside them are read with them."""


def read_best(folder: Path) -> Best | None:
    """Read the choice that came with models.

    Args:
        folder: `results/DATASET`, or a folder with this layout.

    Returns:
        The choice; None if there is none, as the models were named one by one.

    Raises:
        RecordError: If the file is damaged.
    """
    path = folder / BEST
    return read_record(path, Best) if path.is_file() else None


def check_content(folder: Path, paths: Sequence[str], subject: Subject) -> None:
    """Read every file according to its name, and check that the files are complete and belong together.

    Args:
        folder: `results/DATASET`, or a folder with this layout.
        paths: The files to check, all with allowed names.
        subject: Data set, channels and labels that the models should have.

    Raises:
        InputError: At the first file that does not fit; names it.
    """
    kinds = {suffix for path in paths if (suffix := PurePosixPath(path).suffix) in MODELS}
    if len(kinds) > 1:
        raise InputError(f"expected models of one kind, got {' and '.join(sorted(kinds))}; export them again")
    for path in paths:
        suffix = PurePosixPath(path).suffix
        if suffix not in MODELS:
            if not in_fold(path):
                READERS[PurePosixPath(path).name](folder / path)
        elif Subject.of(MODELS[suffix](folder / path)) != subject:
            raise ModelError(f"{folder / path} is of another data set, or has other channels or labels than the rest")
    for run in runs_of(paths):
        _check_run(folder, run, paths, subject)
    if BEST in paths:
        _check_best(folder, paths, subject)


def _check_run(folder: Path, run: str, paths: Sequence[str], subject: Subject) -> None:
    missing = [name for name in ("plans.json", "dataset.json") if f"{run}/{name}" not in paths]
    finals = {f"/model_final{suffix}" for suffix in MODELS}
    models = [path for path in paths if path.startswith(f"{run}/fold_") and path.endswith(tuple(finals))]
    if missing or not models:
        raise InputError(f"{run} is incomplete: {' and '.join(missing) or 'a trained fold'} is missing")
    plans = read_plans(folder / run / "plans.json")
    if plans.dataset_name != subject.dataset_name:
        raise RecordError(f"{folder / run / 'plans.json'} is of another data set, {plans.dataset_name!r}")
    description = read_description(folder / run / "dataset.json")
    if (description.channel_names, description.labels) != (subject.channel_names, subject.labels):
        raise RecordError(f"{folder / run / 'dataset.json'} has other channels or labels than the models")
    needed = {file for model in models for file in files_of_model(folder / model)}
    there = {folder / path for path in paths if path.startswith(f"{run}/") and in_fold(path)}
    if needed != there:
        lines = [f"{path} is missing" for path in sorted(needed - there)]
        lines += [f"{path} belongs to no model" for path in sorted(there - needed)]
        raise InputError(f"the models of {run} are not complete: {'; '.join(lines)}")


def _check_best(folder: Path, paths: Sequence[str], subject: Subject) -> None:
    best = read_record(folder / BEST, Best)
    if best.dataset_name != subject.dataset_name:
        raise RecordError(f"{folder / BEST} is of another data set, {best.dataset_name!r}")
    steps, known = best.postprocessing, set(subject.labels.foreground)
    if not known.issuperset([*steps.largest, *steps.smallest_mm3]) or set(steps.thresholds) not in (set(), known):
        raise RecordError(f"{folder / BEST} has post-processing for other labels than {', '.join(sorted(known))}")
    for member in best.members:
        for fold in member.folds:
            if not any(f"{member.run}/fold_{fold}/model_final{suffix}" in paths for suffix in MODELS):
                raise RecordError(f"{folder / BEST} chose fold {fold} of {member.run!r}, which is missing")
