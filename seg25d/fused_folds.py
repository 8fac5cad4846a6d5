"""Training of `mv`: the models of views that are missing, what they predict, then the network that fuses them.

Every step leaves its record when it has run to its end, so that the same command goes on with what is missing.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, folder_lock
from seg25d.core.progress import format_seconds, track
from seg25d.core.records import Record, read_record, write_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.dataset import Split
from seg25d.ensembling.fused_predictor import coarse_view_model, load_predictor, view_model
from seg25d.ensembling.fusion_data import SetPredictors, case_key, models_key, write_case
from seg25d.ensembling.model_sets import FusionCases, ModelSet, fusion_cases, leaks
from seg25d.evaluation.summary import Summary
from seg25d.fine_folds import check_coarse, train_fine_folds
from seg25d.folds import RunToTrain, check_folds, model_header, split_of, summarize_folds, train_folds
from seg25d.inference.predictor import Predictor
from seg25d.inference.validate import validate_fold
from seg25d.planning.model_file import ModelHeader
from seg25d.preprocessing.store import Store
from seg25d.runs import check_run, run_name, write_run_files
from seg25d.training.config import TrainingConfig
from seg25d.training.trainer import FoldJob, clear_fold, train_fold

logger = logging.getLogger(__name__)


class FusionRecord(Record):
    """Who predicted what the fusion network of a fold learns from: `fusion_cases.json`."""

    held_out: tuple[str, ...]
    """Validation cases of the fold."""
    predicted_by: dict[str, str]
    """Per training case the set of models that predicts it."""
    trained_on: dict[str, tuple[str, ...]]
    """Per set the cases that its models were trained on."""


@dataclass(frozen=True)
class ViewModel:
    """A model of a view: that of an ordinary fold, or one that only the fusion needs."""

    view: RunToTrain
    models: ModelSet
    coarse: RunToTrain | None = None
    """The run of its coarse model, if it is a fine one."""

    @property
    def folder(self) -> FoldFolder:
        """Where it is, or will be."""
        return self.view.run.model_set(self.models.name)

    @property
    def fold(self) -> int | str | None:
        """The ordinary fold that it is, if it is one."""
        name = self.models.name.removeprefix("fold_")
        return None if name == self.models.name else int(name) if name.isdigit() else name

    @property
    def is_trained(self) -> bool:
        """Whether it is done."""
        return self.folder.model_final.exists()

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.view.run.root.name} {self.models.name}"


@dataclass(frozen=True)
class FusedFold:
    """One fold of `mv` and all that it needs."""

    task: RunToTrain
    views: Mapping[str, RunToTrain]
    fold: int | str
    cases: FusionCases
    coarse: Mapping[str, RunToTrain]
    """The runs of the coarse models, if the views are fine ones; else none."""

    @property
    def folder(self) -> FoldFolder:
        """Where it goes."""
        return self.task.run.fold(self.fold)

    @property
    def split(self) -> Split:
        """Cases that the fusion network learns from, and those of the fold."""
        return Split(train=tuple(self.cases.training), val=split_of(self.task.splits, self.fold).val)

    def view_models(self) -> list[ViewModel]:
        """All models of views, those of the fold itself first."""
        return [model for each in self.cases.sets for model in self.coarse_of(each) + self.models_of(each)]

    def models_of(self, models: ModelSet) -> list[ViewModel]:
        """The models of a set that are fused, in the order of the plan."""
        return [ViewModel(view, models, self.coarse.get(name)) for name, view in self.views.items()]

    def coarse_of(self, models: ModelSet) -> list[ViewModel]:
        """The coarse models of a set, in the same order; none if the views have none."""
        return [ViewModel(view, models) for view in self.coarse.values()]


def train_fused_folds(
    task: RunToTrain,
    views: Mapping[str, RunToTrain],
    folds: Sequence[int | str],
    coarse: Mapping[str, RunToTrain] | None = None,
) -> dict[str, Summary]:
    """Train the fusion of folds one after the other, and before each what it lacks.

    Args:
        task: The run of `mv`.
        views: Per view its run; their options are for models that have not begun.
        folds: Numbers of folds, or `all`.
        coarse: Per view the run of its coarse models, if the views are fine ones.

    Returns:
        The scores per fold.

    Raises:
        InputError: If something does not fit; nothing is trained then.
        BusyError: If another command works on one of the models.
    """
    fusion = task.config.fusion
    assert fusion is not None, "the recipe of mv has it"
    jobs = [FusedFold(task, views, fold, fusion_cases(task.splits, fold, fusion.data), coarse or {}) for fold in folds]
    check_fused_folds(jobs)
    announce(jobs)
    execution = choose_execution(task.options.device, task.config.precision)
    summaries = {}
    for job in jobs:
        with folder_lock(job.folder.root, "training"):
            summaries[str(job.fold)] = _train_fused_fold(job, execution)
    summarize_folds(task.run, len(task.splits))
    return summaries


def fusion_task(workspace: Workspace, task: RunToTrain) -> RunToTrain:
    """The run of `mv` with its settings: `mv`, or `mv__holdout`, `mv__no_image`, `mv__joint` and so on.

    What is not as usual has a folder of its own, as it is there to be compared.
    """
    fusion = task.config.fusion
    assert fusion is not None, "the recipe of mv has it"
    parts = {"holdout": fusion.data == "holdout", "no_image": not fusion.image}
    parts |= {"joint": fusion.joint, "fine": fusion.fine}
    name = "__".join([task.configuration, *(part for part, asked in parts.items() if asked)])
    plan = task.plans.configurations[task.configuration]
    assert plan.representation.name == "fused_views", "others have no such settings"
    representation = plan.representation.model_copy(update={"image": plan.representation.image and fusion.image})
    changed = plan.model_copy(update={"representation": representation})
    plans = task.plans.model_copy(update={"configurations": {**task.plans.configurations, task.configuration: changed}})
    run = workspace.run(task.dataset_name, run_name(name, plans, task.options.recipe))
    return replace(task, run=run, plans=plans)


def check_fused_folds(jobs: Sequence[FusedFold]) -> None:
    """Make sure that folds can be fused, before anything is written.

    Raises:
        InputError: If not.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("mv trains with one process; train the views with several before (their folds are kept)")
    task = jobs[0].task
    check_folds(task, [job.fold for job in jobs])
    for view in task_views(jobs):
        check_run(view.run, view.folder, view.plans, view.configuration, ())
    for job in jobs:
        for model in job.view_models():
            if model.coarse is not None and model.fold is not None and not model.is_trained:
                check_coarse(model.view, model.coarse, [model.fold])
            if model.folder.split.exists() and read_record(model.folder.split, Split) != model.models.split:
                raise InputError(
                    f"{model.folder.root} was trained on other cases, as the folds changed since; put splits.json "
                    "back, or delete this folder to train it again"
                )


def task_views(jobs: Sequence[FusedFold]) -> list[RunToTrain]:
    """The runs of the views, and of their coarse models."""
    return [*jobs[0].coarse.values(), *jobs[0].views.values()]


def missing_models(jobs: Sequence[FusedFold]) -> list[ViewModel]:
    """Models of views that folds lack which are not done themselves, each once."""
    models = {model.name: model for job in jobs if not _is_done(job) for model in job.view_models()}
    return [model for model in models.values() if not model.is_trained]


def announce(jobs: Sequence[FusedFold]) -> None:
    """Say what will be trained and how long that takes, as far as it is known."""
    missing, name = missing_models(jobs), jobs[0].task.configuration
    fusions = [job for job in jobs if not _is_done(job)]
    if not fusions:
        return
    seconds = [_expected_seconds(model) for model in missing]
    budget = jobs[0].task.config.time_budget_seconds
    known = [each for each in [*seconds, *[budget] * len(fusions)] if each is not None]
    unknown = len(missing) + len(fusions) - len(known)
    time = format_seconds(sum(known)) if known else "a time that is not known yet"
    more = f", and {unknown} model(s) of unknown length" if unknown and known else ""
    logger.info(
        "%s: training %d model(s) of views (%s) and %d fusion network(s): %s%s, predictions aside",
        name,
        len(missing),
        ", ".join(model.name for model in missing) or "none is missing",
        len(fusions),
        time,
        more,
    )


def _expected_seconds(model: ViewModel) -> float | None:
    """As long as it was told to take, or as a model of the same view took."""
    trained = (FoldFolder(root=path.parent) for path in sorted(model.view.run.root.glob("*_*/model_final.safetensors")))
    lines = [folder.log.read_text(encoding="utf-8").splitlines() for folder in trained if folder.log.exists()]
    if lines:
        return float(json.loads(lines[0][-1])["total_seconds"])
    return model.view.options.time_budget_s


def _is_done(job: FusedFold) -> bool:
    """Whether the fusion network is trained with the settings that are asked for."""
    task, folder = job.task, job.folder
    if task.options.restart or not folder.model_final.exists() or not folder.config.exists():
        return False
    return task.settled(job.fold) == read_record(folder.config, TrainingConfig)


def _train_fused_fold(job: FusedFold, execution: Execution) -> Summary:
    task, folder = job.task, job.folder
    if not _is_done(job):
        if task.options.restart:
            clear_fold(folder)
            shutil.rmtree(folder.fusion_data, ignore_errors=True)
        for model in job.view_models():
            _train_view(model, job)
        _write_data(job, execution)
        _train_fusion(job)
    predictor = load_predictor([folder.model_final], execution)
    return validate_fold(folder, task.store, job.split.val, predictor)


def _train_view(model: ViewModel, job: FusedFold) -> None:
    """Train a model of a view, unless it is there."""
    if model.is_trained:
        return
    if model.fold is not None:
        begun = model.folder.checkpoint.exists()
        view = model.view.without_lengths() if begun else model.view
        if model.coarse is None:
            train_folds(view, [model.fold])
        else:
            train_fine_folds(view, model.coarse, [model.fold])
        return
    with folder_lock(model.folder.root, "training"):
        write_run_files(model.view.run, model.view.folder, model.view.plans)
        write_record(model.folder.split, model.models.split)
        if not model.folder.checkpoint.exists():
            write_record(model.folder.config, _config_like(model, job))
        config = read_record(model.folder.config, TrainingConfig)
        header = model_header(model.view, model.models.name, config)
        train_fold(_job(model.view, model.folder, model.models.split, config, header))


def _config_like(model: ViewModel, job: FusedFold) -> TrainingConfig:
    """The settings of the view's own fold, so that all predictions are of the same kind; else those of the recipe."""
    own = model.view.run.model_set(job.cases.own.name).config
    if own.exists():
        return read_record(own, TrainingConfig)
    return model.view.config


def _write_data(job: FusedFold, execution: Execution) -> None:
    """Let the models of the views predict what the fusion network learns from."""
    source, target = job.task.store, Store(job.folder.fusion_data)
    target.remove_leftovers()
    # Fold `all` validates on what it learns from.
    wanted = dict.fromkeys(job.split.val, job.cases.own) | job.cases.training
    files = {each.name: (_files(job.models_of(each)), _files(job.coarse_of(each))) for each in job.cases.sets}
    keys = {name: models_key([*views, *coarse]) for name, (views, coarse) in files.items()}
    todo = [case for case, models in wanted.items() if not target.has(case, case_key(source, case, keys[models.name]))]
    if todo and job.folder.checkpoint.exists():
        raise InputError(
            f"{job.folder.root} was begun with other predictions of the views, as for {todo[0]}: a model of a view was "
            "trained again since; begin this fold anew with --restart"
        )
    _write_record(job)
    todo.sort(key=lambda case: wanted[case].name)
    predictors: dict[str, SetPredictors] = {}
    for case in track(todo, len(todo), f"predictions of the views for {job.task.configuration}, fold {job.fold}"):
        models = wanted[case]
        if models.name not in predictors:
            # One set at a time in memory.
            views, coarse = ([Predictor.load([file], execution) for file in each] for each in files[models.name])
            predictors = {models.name: SetPredictors(views, coarse)}
        write_case(source, target, case, predictors[models.name], keys[models.name])
    for model in job.models_of(job.cases.own):
        copy_file(model.folder.model_final, view_model(job.folder.root, model.view.configuration))
    for model in job.coarse_of(job.cases.own):
        copy_file(model.folder.model_final, coarse_view_model(job.folder.root, model.view.configuration))


def _files(models: Sequence[ViewModel]) -> list[Path]:
    return [model.folder.model_final for model in models]


def _write_record(job: FusedFold) -> None:
    """Write down who predicts what.

    Raises:
        AssertionError: If that would let the fusion network see what it must not.
    """
    trained_on = {each.name: each.split.train for each in job.cases.sets}
    record = FusionRecord(
        held_out=job.split.val,
        predicted_by={case: models.name for case, models in job.cases.training.items()},
        trained_on=trained_on,
    )
    if job.fold != "all":
        assert not leaks(job.cases, job.split.val, trained_on), "a model saw what it predicts"
    write_record(job.folder.fusion_cases, record)


def _train_fusion(job: FusedFold) -> None:
    task, folder = job.task, job.folder
    write_run_files(task.run, task.folder, task.plans)
    config = task.settled(job.fold)
    write_record(folder.config, config)
    header = model_header(task, job.fold, config)
    train_fold(replace(_job(task, folder, job.split, config, header), store=Store(folder.fusion_data)))


def _job(task: RunToTrain, folder: FoldFolder, split: Split, config: TrainingConfig, header: ModelHeader) -> FoldJob:
    return FoldJob(folder, task.store, split, config, header, task.options.device, task.options.num_processes)
