"""Candidates for the best model: runs with predictions of cases that they were not trained on, and their ensembles."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.records import digest
from seg25d.core.workspace import RunFolder
from seg25d.data.dataset import read_splits
from seg25d.data.description import DatasetDescription, read_description
from seg25d.planning.model_file import load_header
from seg25d.runs.imported import read_imported
from seg25d.runs.progress import warn_of_earlier_models


@dataclass(frozen=True)
class ValidatedRun:
    """A run with at least one fold that has validation cases."""

    run: RunFolder
    description: DatasetDescription
    threshold: float | None
    store: str | None
    """Folder of its preprocessed arrays; None for results of another program, which include probabilities."""
    num_folds: int
    held_out: Mapping[int, tuple[str, ...]]
    """The validation cases of every trained fold."""
    stamps: Mapping[int, str]
    """A string for each trained fold that changes when its model changes."""
    trained_on: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """The training cases of every trained fold."""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.run.root.name

    @property
    def folds(self) -> tuple[int, ...]:
        """The trained folds."""
        return tuple(sorted(self.held_out))

    @cached_property
    def case_folds(self) -> dict[str, int]:
        """The fold that predicts each case: the first of those that validate on it."""
        return {case: fold for fold in reversed(self.folds) for case in self.held_out[fold]}

    @property
    def seen(self) -> frozenset[str]:
        """Validation cases that the model which predicts them was trained on, as of a data set of a single case."""
        return frozenset(case for case, fold in self.case_folds.items() if case in self.trained_on.get(fold, ()))

    @property
    def stamp(self) -> str:
        """Digest that changes when a model changes, or the fold that predicts a case."""
        return digest({"folds": {str(fold): self.stamps[fold] for fold in self.folds}, "cases": self.case_folds})

    @property
    def missing_folds(self) -> tuple[int, ...]:
        """The folds that are not trained."""
        return tuple(fold for fold in range(self.num_folds) if fold not in self.folds)

    def only(self, folds: Collection[int]) -> "ValidatedRun":
        """The same run, restricted to some of its folds."""
        return replace(self, held_out={fold: cases for fold, cases in self.held_out.items() if fold in folds})

    def probability_map(self, case: str) -> Path:
        """The file of the probabilities of a case, by the fold that validates on it."""
        return self.run.fold(self.case_folds[case]).probabilities / f"{case}.b2nd"


class Ensemble(NamedTuple):
    """Runs whose probabilities are averaged; may be a single run."""

    runs: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    """None: equal weights."""

    @property
    def name(self) -> str:
        """Name in tables and of the file of its scores."""
        return " + ".join(self.runs) + (" (weighted)" if self.weights is not None else "")


def read_validated_run(run: RunFolder) -> ValidatedRun:
    """Read the trained folds and validation cases of a run; warn of folds that are being trained for longer.

    Raises:
        InputError: If it has no trained fold with validation cases, or files are missing or damaged.
    """
    if not run.splits.exists():
        raise InputError(
            f"{run.root} has no splits.json, as models from an archive have none: without known validation cases "
            "they cannot be compared"
        )
    splits = read_splits(run.splits)
    imported = read_imported(run)
    # Without fold `all`, which is trained on all cases.
    folds = [fold for fold in range(len(splits)) if _has_results(run, fold, imported=imported is not None)]
    if not folds:
        raise InputError(f"{run.root} has no trained fold; run `seg25d train` first")
    held_out = {fold: splits[fold].val for fold in folds}
    trained_on = {fold: splits[fold].train for fold in folds}
    if imported is not None:
        stamps = dict.fromkeys(folds, _stamp(run.imported))
        description, threshold, store = read_description(run.dataset), imported.threshold, None
        return ValidatedRun(run, description, threshold, store, len(splits), held_out, stamps, trained_on)
    warn_of_earlier_models(run, folds)
    header = load_header(run.fold(folds[0]).model_final)
    stamps = {fold: _stamp(run.fold(fold).model_final) for fold in folds}
    description, threshold, store = header.description, header.threshold, header.plan.store
    return ValidatedRun(run, description, threshold, store, len(splits), held_out, stamps, trained_on)


def shared_cases(runs: Sequence[ValidatedRun]) -> tuple[str, ...]:
    """The validation cases that all runs have in common, sorted."""
    return tuple(sorted(set.intersection(*(set(run.case_folds) for run in runs)))) if runs else ()


def shared_threshold(runs: Sequence[ValidatedRun]) -> float | None:
    """The threshold of an ensemble: that of its runs if they agree, else None."""
    thresholds = {run.threshold for run in runs}
    return thresholds.pop() if len(thresholds) == 1 else None


def pairs(names: Sequence[str]) -> list[Ensemble]:
    """Every pair of runs."""
    return [Ensemble(pair) for pair in itertools.combinations(names, 2)]


def _has_results(run: RunFolder, fold: int, *, imported: bool) -> bool:
    folder = run.fold(fold)
    return folder.probabilities.is_dir() if imported else folder.model_final.exists()


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
