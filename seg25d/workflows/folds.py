"""Training and scoring of folds; one process at a time writes into each."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self, TypeAlias

import torch

from seg25d.core.device import Execution, choose_execution, give_freed_memory_back
from seg25d.core.errors import RecordError
from seg25d.core.files import read_json
from seg25d.core.locks import file_lock, folder_lock
from seg25d.core.records import parse_record, read_record, write_record
from seg25d.core.workspace import FoldFolder, PreprocessedFolder, RunFolder
from seg25d.data.dataset import Split, read_description
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.predicted_dice import CaseSums, KnownCase, calibrate, is_of_other_figure
from seg25d.evaluation.summary import Summary, summarize
from seg25d.inference.predictor import PredictorOptions
from seg25d.inference.validate import is_validated, sums_path, validate_fold
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.files import check_run, write_run_files
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import EXTENDABLE, TrainingConfig, changed_settings, read_config
from seg25d.training.going_on import settle_config
from seg25d.training.largest_slices import check_largest_slices
from seg25d.training.logged_run import LoggedRun
from seg25d.training.logger_names import LoggerName
from seg25d.training.loggers import Loggers
from seg25d.training.processes import (
    check_processes,
    is_first_process,
    join_processes,
    leave_processes,
    local_device,
    wait_for_all,
)
from seg25d.training.small_windows import check_small_windows
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.training.transfer import PretrainedFile, Transfer, take_over
from seg25d.workflows.settings import Settings

logger = logging.getLogger(__name__)


PATIENCE_SECONDS = 120.0
"""How long to wait for another process that summarizes folds (6 s for 1,000 cases of 60 structures)."""
Begun: TypeAlias = Literal["checked", "kept", "restarted"]
"""Treatment of folds that have begun. "checked": they continue with the requested settings, which may differ in length
only; "kept": they continue with their own settings, as for models that others need; "restarted": they start over."""


@dataclass(frozen=True)
class RunToTrain:
    """Folds of a configuration to train, with everything that is known before the first update."""

    dataset_name: str
    configuration: str
    run: RunFolder
    folder: PreprocessedFolder
    plans: Plans
    splits: tuple[Split, ...]
    settings: Settings
    folds: tuple[int | str, ...]
    """Numbers of the folds to train, or `all`."""
    begun: Begun
    pretrained: PretrainedFile | None
    device: str | None
    num_processes: int | None
    loggers: tuple[LoggerName, ...]
    save_probabilities: bool
    """Whether probabilities of the validation cases are written, too."""
    keep_probabilities: bool
    """Whether they are kept for `find_best_configuration`."""
    quick_scores: bool = False
    """Whether scores without mirroring are enough, in a folder of their own."""

    @property
    def config(self) -> TrainingConfig:
        """The settings of a fold that has not begun."""
        return self.settings.config

    @property
    def plan(self) -> ConfigurationPlan:
        """The plan of the configuration."""
        return self.plans.configurations[self.configuration]

    @property
    def store(self) -> Store:
        """The preprocessed arrays."""
        return Store(self.folder.store(self.plan.store))

    def only(self, fold: int | str) -> Self:
        """The same run, restricted to one fold."""
        return replace(self, folds=(fold,))

    def settled(self, fold: int | str) -> TrainingConfig:
        """The current settings of a fold: another command may have begun it since the run was planned.

        Raises:
            InputError: If it was begun with other settings and is to continue with these.
        """
        folder = self.run.fold(fold)
        if self.begun == "kept":
            return read_config(folder) if folder.checkpoint.exists() else self.config
        return settle_config(folder, self.settings.recipe, self.settings.changes)


def check_folds(task: RunToTrain) -> None:
    """Check that folds can be trained, before anything is written.

    Raises:
        InputError: If kept folds were trained with something else, or the labels do not allow a threshold.
        ModelError: If the network cannot start from the pretrained file.
    """
    description = read_description(task.folder.dataset)
    description.labels.check_threshold(task.config.threshold)
    check_processes(task.plan, len(description.channel_names), description.labels.num_outputs)
    check_small_windows(task.config, task.plan)
    check_largest_slices(task.config, task.plan)
    restarted = task.folds if task.begun == "restarted" else ()
    check_run(task.run, task.folder, task.plans, task.configuration, restarted)
    if task.pretrained is not None:
        header = model_header(task, "all", task.config)
        take_over(header.build_model(), header, task.pretrained)


def train_folds(task: RunToTrain) -> dict[str, Summary]:
    """Train folds one after the other; with `torchrun` all processes work on the same fold.

    Returns:
        The scores per fold; none on processes other than the first.

    Raises:
        InputError: If another command has begun a fold with other settings in the meantime.
        BusyError: If another command works on a fold; that fold is not changed then.
    """
    execution = choose_execution(local_device(task.device), task.config.precision)
    if task.plans.cpu_gflops and execution.device.type != "cpu":
        logger.warning(
            "%s was planned for CPUs of %g GFLOP/s, whose windows are small for this %s; plan_and_preprocess "
            "--cpu-gflops 0 --gpu-memory-gb N plans larger ones, anew",
            *(task.dataset_name, task.plans.cpu_gflops, execution.device.type),
        )
    join_processes(execution.device)
    summaries = {}
    for fold in task.folds:
        with folder_lock(task.run.fold(fold).root, "training", deep=True) if is_first_process() else nullcontext():
            summary = _train_fold(task, fold, execution, last=fold == task.folds[-1])
        if summary is not None:
            summaries[str(fold)] = summary
    if is_first_process():
        summarize_folds(task.run, len(task.splits))
    return summaries


def clear_folds(task: RunToTrain) -> None:
    """Remove the folds that start over, all or none, before anything else is done.

    Raises:
        BusyError: If another command works on one of them.
    """
    if task.begun != "restarted" or not is_first_process():
        return
    folders = [task.run.fold(fold) for fold in task.folds]
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder_lock(folder.root, "restarting"))
        for folder in folders:
            clear_fold(folder)
        for path in (task.run.crossval, task.run.predicted_dice):
            path.unlink(missing_ok=True)


def _train_fold(task: RunToTrain, fold: int | str, execution: Execution, *, last: bool) -> Summary | None:
    """Train a fold to its end and score it; None on processes other than the first of several.

    After the last fold, all processes leave the group together, as nccl requires
    (docs.pytorch.org/docs/stable/distributed.html, shutdown), before the first one computes scores: otherwise the
    others and their GPUs would wait for it.
    """
    folder = task.run.fold(fold)
    wait_for_all(execution.device)  # the first one may just have cleared or made something
    config, split = task.settled(fold), split_of(task.splits, fold)
    job = fold_job(task, folder, fold, split, config)
    with closing(job.loggers):
        goes_on = train_fold(job, partial(_begin, task, fold, config))
        if last:
            leave_processes()
        if not goes_on:
            return None
        give_freed_memory_back()
        return score_fold(task, job, execution)


def score_fold(task: RunToTrain, job: FoldJob, execution: Execution) -> Summary:
    """Score the final model of a fold, for its folder and its loggers.

    Args:
        task: The run.
        job: The training of the fold; its folder has the final model.
        execution: Device and precision.
    """
    folder, cases = task.run.fold(job.header.fold), job.split.val
    if task.quick_scores and not is_validated(folder, cases):
        predictor = load_predictor([folder.model_final], execution, PredictorOptions(mirroring=False))
        return validate_fold(folder, task.store, cases, predictor, kind="quick")
    predictor = load_predictor([folder.model_final], execution)
    summary = validate_fold(
        folder,
        task.store,
        cases,
        predictor,
        save_probabilities=task.save_probabilities,
        keep_probabilities=task.keep_probabilities,
    )
    shutil.rmtree(folder.validation_quick, ignore_errors=True)
    job.loggers.scores(summary)
    return summary


def _begin(task: RunToTrain, fold: int | str, config: TrainingConfig) -> None:
    """Write what a fold is trained with."""
    folder = task.run.fold(fold)
    if not folder.checkpoint.exists():
        _warn_if_unlike_others(task, fold, config)
    write_run_files(task.run, task.folder, task.plans)
    write_record(folder.config, config)


def is_scored(folder: FoldFolder, cases: Sequence[str]) -> bool:
    """Whether the scores of a model and all that belongs to them are there; one that came without state has none."""
    return not folder.checkpoint.exists() or is_validated(folder, cases)


def _warn_if_unlike_others(task: RunToTrain, fold: int | str, config: TrainingConfig) -> None:
    """Warn if a new fold has other settings than an earlier one, such as the defaults of an older version.

    Lengths and seeds may differ, and `all` is independent of the folds.
    """
    for other in range(len(task.splits)) if fold != "all" else ():
        folder = task.run.fold(other)
        if other == fold or not folder.checkpoint.exists():
            continue
        with suppress(RecordError):  # of other versions: reported when that fold continues
            changed = changed_settings(read_config(folder), config)
            if unlike := [name for name in changed if name not in EXTENDABLE | {"seed"}]:
                logger.warning(
                    "fold %d begins with other settings than fold %d was trained with (%s): scores and ensembles of "
                    "these folds mix both; stop and use the settings of %s, or train all folds again with --restart",
                    *(fold, other, ", ".join(unlike), folder.config),
                )
                return


def fold_job(task: RunToTrain, folder: FoldFolder, fold: int | str, split: Split, config: TrainingConfig) -> FoldJob:
    """The job of the training loop for a fold, or for another named set of cases."""
    header = model_header(task, fold, config)
    where = (task.device, task.num_processes)
    job = FoldJob(folder, task.store, split, config, header, *where, loggers=loggers_of(task, folder, header, config))
    return job if config.pretrained is None else _add_pretrained(job, task.pretrained)


def loggers_of(task: RunToTrain, folder: FoldFolder, header: ModelHeader, config: TrainingConfig) -> Loggers:
    """The loggers of one training, which get nothing from processes other than the first."""
    described = header.model_dump(mode="json", include={"dataset_name", "configuration", "fold", "versions"})
    settings = {"training": config.model_dump(mode="json"), "plan": header.plan.decisions.model_dump(mode="json")}
    run = LoggedRun(folder, task.run.root.parents[1], task.dataset_name, described | settings)
    return Loggers(task.loggers if is_first_process() else (), run)


def _add_pretrained(job: FoldJob, file: PretrainedFile | None) -> FoldJob:
    """Add the pretrained weights to a job; a run that continues has them in its checkpoint."""
    if job.folder.checkpoint.exists():
        return replace(job, learnt=read_record(job.folder.transfer, Transfer).learnt)
    assert file is not None, "the settings of a run that has not begun name the file that was read"
    torch.manual_seed(job.config.seed)
    model = job.header.build_model()
    transfer = take_over(model, job.header, file)
    if is_first_process():
        write_record(job.folder.transfer, transfer)
        logger.info("weights of %s:\n%s", file.path, transfer.table())
    return replace(job, model=model, learnt=transfer.learnt)


def model_header(task: RunToTrain, fold: int | str, config: TrainingConfig) -> ModelHeader:
    """The header of the model files of a fold, stored together with the weights."""
    return ModelHeader(
        dataset_name=task.dataset_name,
        configuration=task.configuration,
        fold=fold,
        plan=task.plan,
        description=read_description(task.folder.dataset),
        threshold=config.threshold,
        fine=config.fine,
        pretext=config.pretext,
    )


def split_of(splits: Sequence[Split], fold: int | str) -> Split:
    """The cases of a fold; `all` trains and validates on every case, as nnU-Net does."""
    if isinstance(fold, int):
        return splits[fold]
    cases = tuple(sorted({case for split in splits for case in split.train + split.val}))
    return Split(train=cases, val=cases)


def summarize_folds(run: RunFolder, num_folds: int) -> None:
    """Write `crossval/summary.json` if all folds are trained, and `crossval/predicted_dice.json` of those that are.

    Raises:
        BusyError: If another process that has trained a fold does so for longer than `PATIENCE_SECONDS`.
    """
    with file_lock(run.predicted_dice, "summarizing folds", patience_seconds=PATIENCE_SECONDS):
        places = {fold: run.fold(fold).validation for fold in range(num_folds)}
        there = {fold: place for fold, place in places.items() if (place / "summary.json").exists()}
        summaries = {fold: read_record(place / "summary.json", Summary) for fold, place in there.items()}
        if len(there) == num_folds:
            write_record(run.crossval, summarize([case for each in summaries.values() for case in each.per_case]))
        known = [case for fold, place in there.items() for case in _known_cases(fold, place, summaries[fold])]
        if (calibration := calibrate(known)) is not None:
            write_record(run.predicted_dice, calibration)


def _known_cases(fold: int, results: Path, summary: Summary) -> Iterator[KnownCase]:
    """Scored cases whose probabilities were summed; seg25d 0.2 did not."""
    num_others = 0
    for case in summary.per_case:
        path = sums_path(results, case.case)
        if not path.exists():
            continue
        try:
            if is_of_other_figure(value := read_json(path)):
                num_others += 1
            else:
                yield KnownCase.of(case, fold, parse_record(value, CaseSums, str(path)).structures)
        except RecordError as error:
            logger.warning("%s; the case is left out of what predicts the Dice: `train --val` makes it again", error)
    if num_others:
        logger.warning(
            "%s: %d cases of fold %d are left out of what predicts the Dice, since an unreleased version of seg25d "
            "wrote their sums for another figure: `train --val` makes them again",
            *(results, num_others, fold),
        )
