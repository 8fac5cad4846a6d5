"""Training of a fusion of views: missing models of views, what they predict, then the network that fuses them.

Every step writes its record when it is complete, so that the same command continues with the missing steps.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import InputError
from seg25d.core.files import copy_file
from seg25d.core.locks import folder_lock
from seg25d.core.progress import track
from seg25d.core.records import read_record, write_record
from seg25d.data.dataset import Split
from seg25d.ensembling.fused_predictor import coarse_view_model, view_model
from seg25d.evaluation.summary import Summary
from seg25d.inference.predictor import Predictor
from seg25d.preprocessing.store import Store
from seg25d.runs.files import write_run_files
from seg25d.training.checkpoint import read_done
from seg25d.training.going_on import tell_kept_folds
from seg25d.training.trainer import train_fold
from seg25d.views.data import FusionRecord, SetPredictors, case_key, models_key, write_case
from seg25d.views.model_sets import leaks
from seg25d.views.tasks import FusedFold, Fusion, ViewModel, announce, announce_joint, plan_fusion, view_config
from seg25d.views.train_joint import train_joint_folds
from seg25d.workflows.coarse_to_fine import train_fine_folds
from seg25d.workflows.folds import RunToTrain, clear_folds, fold_job, score_fold, summarize_folds, train_folds
from seg25d.workflows.planned_run import PlannedRun

logger = logging.getLogger(__name__)


def train_views(planned: PlannedRun, folds: Sequence[int | str]) -> tuple[RunToTrain, dict[str, Summary]]:
    """Train folds of a fusion of views and all that they need, or one part of that, unless they are to be validated.

    Args:
        planned: A configuration that fuses views.
        folds: Numbers of folds, or `all`.

    Returns:
        The folds, and the scores of each; none of a part.

    Raises:
        InputError: If they cannot be trained, or there is no such part; raised before anything is written.
        BusyError: If another command works on one of the models.
    """
    fusion = plan_fusion(planned, folds)
    if planned.options.validation.validate_only:
        return fusion.task, {}
    part = planned.options.part
    if part is None:
        clear_folds(fusion.task)
    planned.keep_network()
    if part is not None:
        train_part(fusion, part)
        return fusion.task, {}
    return fusion.task, train_fusion(fusion)


def train_fusion(fusion: Fusion) -> dict[str, Summary]:
    """Train folds of a fusion of views, and before each the models that it lacks.

    Args:
        fusion: See `plan_fusion`, which has checked it.

    Returns:
        The scores per fold.

    Raises:
        BusyError: If another command works on one of the models.
    """
    if fusion.joint is None:
        return train_fused_folds(fusion.folds)
    apart = [job for job in fusion.folds if not job.is_complete]
    tell_kept_folds((job.folder, job.task.config) for job in fusion.folds)
    announce_joint(fusion.joint, fusion.folds[0])
    if apart:
        train_fused_folds(apart)
    return train_joint_folds(fusion.joint, fusion.folds[0].task)


def train_part(fusion: Fusion, name: str) -> None:
    """Train one model of a view that a fusion needs, unless that is done.

    Args:
        fusion: See `plan_fusion`, which has checked it.
        name: Run and set of models, such as `axial/pair_0_1`.

    Raises:
        InputError: If the fusion needs no such model; lists those that it needs.
        BusyError: If another command works on it.
    """
    parts = {model.folder.root: (model, job) for job in fusion.folds for model in job.view_models()}
    named = {f"{root.parent.name}/{root.name}": part for root, part in parts.items()}
    if name not in named:
        raise InputError(f"--part: {fusion.task.run.root.name} needs no {name}; it needs {', '.join(named)}")
    model, job = named[name]
    if model.is_complete:
        logger.info("%s is already trained", model.name)
    _train_view(model, job)


def train_fused_folds(jobs: Sequence[FusedFold]) -> dict[str, Summary]:
    """Train the fusion of folds one after the other, each after what it lacks; return the scores per fold."""
    task = jobs[0].task
    announce(jobs)
    execution = choose_execution(task.device, task.config.precision)
    summaries = {}
    for job in jobs:
        with folder_lock(job.folder.root, "training", deep=True):
            summaries[str(job.fold)] = _train_fused_fold(job, execution)
    summarize_folds(task.run, len(task.splits))
    return summaries


def _train_fused_fold(job: FusedFold, execution: Execution) -> Summary:
    task, folder = job.task, job.folder
    config = task.settled(job.fold)

    def begin() -> None:
        write_run_files(task.run, task.folder, task.plans)
        write_record(folder.config, config)

    training = fold_job(task, folder, job.fold, job.split, config)
    with closing(training.loggers):
        if job.is_done:
            logger.info("%s is already trained; --restart trains it anew", folder.name)
            if task.loggers and folder.checkpoint.exists():
                training.loggers.epochs(read_done(folder.checkpoint).log)
        else:
            for model in job.view_models():
                _train_view(model, job)
            _write_data(job, execution)
            train_fold(replace(training, store=Store(folder.fusion_data)), begin)
        return score_fold(task, training, execution)


def _train_view(model: ViewModel, job: FusedFold) -> None:
    """Train and score a model of a view, unless that is done."""
    if model.is_complete:
        return
    view, folder = model.view, model.folder
    if model.models.fold is not None:
        if model.fine is None:
            train_folds(view.only(model.models.fold))
        else:
            train_fine_folds(model.fine.only(model.models.fold))
        return
    with folder_lock(folder.root, "training", deep=True):
        config = view_config(model, job.cases.own)

        def begin() -> None:
            write_run_files(view.run, view.folder, view.plans)
            write_record(folder.split, model.models.split)
            write_record(folder.config, config)

        training = fold_job(view, folder, model.models.name, model.models.split, config)
        with closing(training.loggers):
            train_fold(training, begin)


def _write_data(job: FusedFold, execution: Execution) -> None:
    """Predict the training data of the fusion network with the models of the views."""
    folder, source, target = job.folder, job.task.store, Store(job.folder.fusion_data)
    # Fold `all` validates on its training cases.
    wanted = dict.fromkeys(job.split.val, job.cases.own) | job.cases.training
    files = {each.name: (_files(job.models_of(each)), _files(job.coarse_of(each))) for each in job.cases.sets}
    keys = {name: models_key([*views, *coarse]) for name, (views, coarse) in files.items()}
    _write_fusion_record(job, keys)

    def is_written(case: str, name: str) -> bool:
        return target.has(case, case_key(source, case, keys[name]))

    todo = [case for case, models in wanted.items() if not is_written(case, models.name)]
    todo.sort(key=lambda case: wanted[case].name)
    loaded, predictors = "", SetPredictors([], [])
    for case in track(todo, len(todo), f"predictions of the views for {job.task.run.root.name}, fold {job.fold}"):
        name = wanted[case].name
        if name != loaded:
            predictors = SetPredictors([], [])  # one set at a time in memory
            predictors = SetPredictors(*([Predictor.load([file], execution) for file in each] for each in files[name]))
            loaded = name
        write_case(source, target, case, predictors, keys[name])
    views, coarse = files[job.cases.own.name]
    for name, file in zip(job.views, views, strict=True):
        copy_file(file, view_model(folder.root, name))
    for name, file in zip(job.fine, coarse, strict=True):
        copy_file(file, coarse_view_model(folder.root, name))


def _files(models: Sequence[ViewModel]) -> list[Path]:
    return [model.folder.model_final for model in models]


def _write_fusion_record(job: FusedFold, keys: dict[str, str]) -> None:
    """Record which models predict which cases, as found in the folders.

    Raises:
        InputError: If the fusion network has begun with other models.
        AssertionError: If there is a data leak.
    """
    path = job.folder.fusion_cases
    if job.folder.checkpoint.exists() and path.exists():
        others = [name for name, key in read_record(path, FusionRecord).models.items() if keys.get(name) != key]
        if others:
            raise InputError(
                f"{job.folder.root} was begun with other models of the views ({', '.join(others)}), which were trained "
                "again since then; start this fold over with --restart"
            )
    trained_on = {each.name: each.split.train for each in job.cases.sets}
    for model in job.view_models():
        if model.folder.split.exists():
            trained_on[model.models.name] = read_record(model.folder.split, Split).train
    held_out = () if job.fold == "all" else job.split.val
    assert not leaks(job.cases, held_out, trained_on), "a model was trained on a case that it predicts"
    predicted_by = {case: models.name for case, models in job.cases.training.items()}
    record = FusionRecord(held_out=held_out, predicted_by=predicted_by, trained_on=trained_on, models=keys)
    write_record(path, record)
