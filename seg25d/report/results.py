"""Everything known about a data set and the runs trained on it, read from small files; nothing is computed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import AnyRecord, read_record
from seg25d.core.workspace import FoldFolder, RunFolder, Workspace
from seg25d.data.description import DatasetDescription, read_description
from seg25d.evaluation.predicted_dice import Calibration, read_calibration
from seg25d.evaluation.slice_context import SliceContext, read_slice_context
from seg25d.evaluation.summary import Summary, summarize
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_file import read_plans
from seg25d.runs.progress import read_log
from seg25d.runs.task_records import RunRecord, run_record
from seg25d.selection.best import Best
from seg25d.selection.candidates import Ensemble, ValidatedRun, read_validated_run
from seg25d.selection.cost import Cost
from seg25d.selection.scoring import read_scores

logger = logging.getLogger(__name__)


class Contestant(NamedTuple):
    """A run, or the ensemble that was chosen, with its scores on validation cases."""

    name: str
    summary: Summary
    cost: Cost | None
    """Measured by `find_best_configuration`; None where that has not run."""
    on_front: bool
    """Nothing that it compared is as good and as fast."""


@dataclass(frozen=True)
class TrainedRun:
    """A run with at least one fold whose validation cases are scored."""

    validated: ValidatedRun
    plans: Plans | None
    """None for results of another program."""
    plan: ConfigurationPlan | None
    summary: Summary
    """Over the validation cases of all trained folds."""
    logs: Mapping[int, list[dict[str, Any]]]
    """Lines of `log.jsonl` per fold."""
    calibration: Calibration | None = None
    """How the Dice of its predictions is predicted; None for results of another program, and of seg25d 0.2."""
    contexts: Mapping[int, SliceContext] = field(default_factory=dict)
    """What the Dice owes to neighbouring slices, per fold of which it was measured."""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.validated.name

    @property
    def is_complete(self) -> bool:
        """Whether all folds are trained and their cases scored."""
        return not self.validated.missing_folds and len(self.summary.per_case) == len(self.validated.case_folds)

    @property
    def num_parameters(self) -> int | None:
        """Parameters of one fold; None where other models have their part in it, and for results of another program."""
        alone = self.plan is not None and not self.plan.representation.fuses_views
        return self.plan.num_parameters if self.plan is not None and alone else None

    @property
    def training_minutes(self) -> float | None:
        """Mean over the folds; None for results of another program."""
        spent = [log[-1]["total_seconds"] / 60 for log in self.logs.values() if log]
        return sum(spent) / len(spent) if spent else None

    def prediction(self, case: str) -> Path:
        """The file of the labels that the fold which validates on a case predicted for it."""
        fold = self.validated.run.fold(self.validated.case_folds[case])
        return fold.validation / f"{case}{self.validated.description.label_ending}"


@dataclass(frozen=True)
class Results:
    """All that a report shows, but for images."""

    dataset_name: str
    description: DatasetDescription
    fingerprint: Fingerprint | None
    plans: tuple[Plans, ...]
    runs: tuple[TrainedRun, ...]
    """The best first; those that lack folds after those that have all."""
    best: Best | None
    ensemble: Summary | None
    """Scores of what was chosen, where that is an ensemble."""
    run: RunRecord | None = None
    """What `seg25d run` did and decided; None where it was not used."""

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """The chosen ensemble, if there is one, and all runs."""
        candidates = {row.name: row for row in self.best.candidates} if self.best else {}
        return tuple(
            Contestant(name, summary, row.cost if row else None, row is not None and row.on_pareto_front)
            for name, summary, row in ((name, each, candidates.get(name)) for name, each in self._summaries().items())
        )

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """How the Dice is predicted with what was chosen, and with each run."""
        chosen = {} if self.best is None else {self.best.name: self.best.predicted_dice}
        both = {run.name: run.calibration for run in self.runs} | chosen
        first = [*chosen, *(name for name in both if name not in chosen)]
        return {name: each for name in first if (each := both[name]) is not None}

    @property
    def contexts(self) -> dict[str, SliceContext]:
        """What models owe to neighbouring slices, by run and fold, where that was measured."""
        return {f"{run.name}, fold {fold}": each for run in self.runs for fold, each in run.contexts.items()}

    def _summaries(self) -> dict[str, Summary]:
        runs = {run.name: run.summary for run in self.runs}
        return runs if self.best is None or self.ensemble is None else {self.best.name: self.ensemble, **runs}


def gather_results(workspace: Workspace, dataset_name: str) -> Results:
    """Read all that there is.

    Args:
        workspace: The workspace.
        dataset_name: Full name of a data set.

    Raises:
        InputError: If the data set is not planned and nothing is trained on it.
    """
    folder, results = workspace.preprocessed_dataset(dataset_name), workspace.results / dataset_name
    plans = tuple(_plans(folder.root))
    names = sorted(path.name for path in results.iterdir() if path.is_dir()) if results.is_dir() else []
    runs = [found for name in names if (found := _run(workspace, dataset_name, name)) is not None]
    if not plans and not runs:
        raise InputError(f"{dataset_name} is not planned; run `seg25d plan_and_preprocess -d {dataset_name}` first")
    best = _read(workspace.best(dataset_name), partial(read_record, record_type=Best))
    places = [folder.dataset, *(run.validated.run.dataset for run in runs)]
    return Results(
        dataset_name=dataset_name,
        description=read_description(next((path for path in places if path.exists()), folder.dataset)),
        fingerprint=_read(folder.fingerprint, partial(read_record, record_type=Fingerprint)),
        plans=plans,
        runs=tuple(sorted(runs, key=lambda run: (not run.is_complete, -(run.summary.foreground_mean.dice or 0.0)))),
        best=best,
        ensemble=None
        if best is None or len(best.members) == 1
        else _ensemble(best, workspace.candidate_scores(dataset_name)),
        run=_read(run_record(workspace, dataset_name), partial(read_record, record_type=RunRecord)),
    )


def _plans(folder: Path) -> list[Plans]:
    """The default ones first."""
    files = sorted(folder.glob("plans*.json")) if folder.is_dir() else []
    return [plans for path in files if (plans := _read(path, read_plans)) is not None]


def _run(workspace: Workspace, dataset_name: str, name: str) -> TrainedRun | None:
    run = workspace.run(dataset_name, name)
    if not (run.splits.exists() and (run.imported.exists() or set(run.trained_folds()) - {"all"})):
        if run.trained_folds():
            logger.warning("%s is left out: no model of it has cases that it is known not to have seen", name)
        return None
    try:
        validated = read_validated_run(run)
        summary = _summary(validated, workspace.candidate_scores(dataset_name))
        plans = read_plans(run.plans) if validated.store is not None else None
    except InputError as error:
        logger.warning("%s is left out: %s", name, error)
        return None
    if summary is None:
        logger.warning("%s is left out: its validation cases are not scored", name)
        return None
    logs = {fold: _log(run.fold(fold)) for fold in validated.folds} if plans is not None else {}
    plan = None if plans is None else _plan(run, plans)
    calibration = _read(run.predicted_dice, read_calibration)
    contexts = {fold: found for fold in validated.folds if (found := _context(run.fold(fold))) is not None}
    return TrainedRun(validated, plans, plan, summary, logs, calibration, contexts)


def _plan(run: RunFolder, plans: Plans) -> ConfigurationPlan | None:
    """That of the configuration a run is of; the folder's name begins with it."""
    names = sorted(plans.configurations, key=len, reverse=True)
    found = next((name for name in names if run.root.name == name or run.root.name.startswith(f"{name}__")), None)
    return None if found is None else plans.configurations[found]


def _summary(validated: ValidatedRun, scores: Path) -> Summary | None:
    """Scores over the validation cases of all trained folds, each case once."""
    if validated.store is None:
        return read_scores(scores, Ensemble((validated.name,)))
    cases = []
    for fold in validated.folds:
        path = validated.run.fold(fold).validation / "summary.json"
        summary = read_record(path, Summary) if path.exists() else None
        cases += [each for each in summary.per_case if validated.case_folds.get(each.case) == fold] if summary else []
    return summarize(cases) if cases else None


def _ensemble(best: Best, scores: Path) -> Summary | None:
    weights = next((row.weights for row in best.candidates if row.name == best.name), None)
    return read_scores(scores, Ensemble(tuple(member.run for member in best.members), weights))


def _context(folder: FoldFolder) -> SliceContext | None:
    return _read(folder.slice_context, partial(read_slice_context, model=folder.model_final))


def _log(folder: FoldFolder) -> list[dict[str, Any]]:
    try:
        return [{**line, "total_seconds": float(line["total_seconds"])} for line in read_log(folder.log)]
    except (RecordError, OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be read: %s", folder.log, error)
        return []


def _read(path: Path, read: Callable[[Path], AnyRecord | None]) -> AnyRecord | None:
    """A record, or None where it is missing or damaged."""
    try:
        return read(path) if path.exists() else None
    except RecordError as error:
        logger.warning("%s", error)
        return None
