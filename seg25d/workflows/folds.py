"""Training of folds: one process at a time writes into each, and its scores follow."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from seg25d.core.device import Execution, choose_execution, give_freed_memory_back
from seg25d.core.errors import RecordError
from seg25d.core.files import folder_lock
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import FoldFolder, PreprocessedFolder, RunFolder
from seg25d.data.dataset import Split, read_description
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.summary import Summary, summarize
from seg25d.inference.validate import validate_fold
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.files import check_run, write_run_files
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import EXTENDABLE, TrainingConfig, changed_settings, settle_config
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
from seg25d.training.transfer import Transfer, take_over
from seg25d.workflows.options import TrainingOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunToTrain:
    """A configuration of a data set, and where its folds go."""

    dataset_name: str
    configuration: str
    run: RunFolder
    folder: PreprocessedFolder
    plans: Plans
    splits: tuple[Split, ...]
    options: TrainingOptions

    @property
    def config(self) -> TrainingConfig:
        """The settings of a fold that has not begun."""
        return self.options.config(self.configuration)

    def settled(self, fold: int | str) -> TrainingConfig:
        """The settings of a fold, see `settle_config`."""
        options = self.options
        return settle_config(self.run.fold(fold), options.base(self.configuration), options.changes(self.configuration))

    def without_lengths(self) -> Self:
        """The same for a run that has begun and knows its length."""
        unknown = dict.fromkeys(("epochs", "iterations", "time_budget_s", "seed"))
        return replace(self, options=self.options.model_copy(update={**unknown, "settings": {}}))

    @property
    def store(self) -> Store:
        """The preprocessed arrays."""
        return Store(self.folder.store(self.plans.configurations[self.configuration].store))


def check_folds(task: RunToTrain, folds: Sequence[int | str]) -> None:
    """Make sure that folds can be trained, before anything is written.

    Raises:
        InputError: If kept folds were trained with something else, a fold was begun with other settings, or the labels
            do not allow a threshold.
        ModelError: If the network cannot begin with the pretrained file.
    """
    description = read_description(task.folder.dataset)
    description.labels.check_threshold(task.config.threshold)
    plan = task.plans.configurations[task.configuration]
    check_processes(plan, len(description.channel_names), description.labels.num_outputs)
    check_small_windows(task.config, plan)
    if "early_stopping" in task.options.settings and task.config.time_budget_seconds is not None:
        logger.warning("early_stopping has no effect with a time budget, which says how long the run is")
    restarted = folds if task.options.restart else ()
    check_run(task.run, task.folder, task.plans, task.configuration, restarted)
    if not task.options.restart:
        for fold in folds:
            task.settled(fold)
    if task.options.pretrained is not None:
        header = model_header(task, "all", task.config)
        take_over(header.build_model(), header, task.options.pretrained)


def train_folds(task: RunToTrain, folds: Sequence[int | str]) -> dict[str, Summary]:
    """Train folds one after the other; with `torchrun` all processes work on the same one.

    Returns:
        The scores per fold; none on processes other than the first.

    Raises:
        BusyError: If another command works on a fold; nothing of that fold was touched then.
    """
    options = task.options
    execution = choose_execution(local_device(options.device), task.config.precision)
    if options.restart and is_first_process():
        clear_folds(task, folds)
    join_processes(execution.device)
    summaries = {}
    for fold in folds:
        with folder_lock(task.run.fold(fold).root, "training") if is_first_process() else nullcontext():
            summary = _train_fold(task, fold, execution, last=fold == folds[-1])
        if summary is not None:
            summaries[str(fold)] = summary
    if is_first_process():
        summarize_folds(task.run, len(task.splits))
    return summaries


def clear_folds(task: RunToTrain, folds: Sequence[int | str]) -> None:
    """Forget folds, all or none; first of all, so that none goes on with files that were written for another."""
    folders = [task.run.fold(fold) for fold in folds]
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder_lock(folder.root, "restarting"))
        for folder in folders:
            clear_fold(folder)
        task.run.crossval.unlink(missing_ok=True)


def _train_fold(task: RunToTrain, fold: int | str, execution: Execution, *, last: bool) -> Summary | None:
    """Train a fold to its end and score it; None on processes other than the first of several.

    After the last fold they leave the group together, as nccl wants it (docs.pytorch.org/docs/stable/distributed.html,
    shutdown), before the first one scores: the others and their GPUs would wait for that.
    """
    folder, first = task.run.fold(fold), is_first_process()
    if first:
        write_run_files(task.run, task.folder, task.plans)
    wait_for_all(execution.device)
    config = task.settled(fold)
    if first:
        if not folder.checkpoint.exists():
            _warn_if_unlike_others(task, fold, config)
        write_record(folder.config, config)
    split = split_of(task.splits, fold)
    goes_on = train_fold(fold_job(task, folder, fold, split, config))
    if last:
        leave_processes()
    if not goes_on:
        return None
    give_freed_memory_back()
    predictor = load_predictor([folder.model_final], execution)
    return validate_fold(folder, task.store, split.val, predictor)


def _warn_if_unlike_others(task: RunToTrain, fold: int | str, config: TrainingConfig) -> None:
    """Say so where a new fold has other settings than one before, such as the defaults of an older version.

    Lengths and seeds may differ, and `all` is a model for itself.
    """
    for other in range(len(task.splits)) if fold != "all" else ():
        folder = task.run.fold(other)
        if other == fold or not folder.checkpoint.exists():
            continue
        with suppress(RecordError):  # of other versions: told when that fold goes on
            changed = changed_settings(read_record(folder.config, TrainingConfig), config)
            if unlike := [name for name in changed if name not in EXTENDABLE | {"seed"}]:
                logger.warning(
                    "fold %d begins with other settings than fold %d was trained with (%s): scores and ensembles of "
                    "these folds mix both; stop it and give what %s says, or train all folds anew with --restart",
                    *(fold, other, ", ".join(unlike), folder.config),
                )
                return


def fold_job(task: RunToTrain, folder: FoldFolder, fold: int | str, split: Split, config: TrainingConfig) -> FoldJob:
    """What the training loop is to do for a fold, or for another set of cases that has a name."""
    header, options = model_header(task, fold, config), task.options
    where = (options.device, options.num_processes)
    job = FoldJob(folder, task.store, split, config, header, *where, tensorboard=options.tensorboard)
    return job if config.pretrained is None else _with_pretrained(job, options.pretrained)


def _with_pretrained(job: FoldJob, path: Path | None) -> FoldJob:
    """The job of a run that begins with weights of a file; one that goes on has them in its checkpoint."""
    if job.folder.checkpoint.exists():
        return replace(job, learnt=read_record(job.folder.transfer, Transfer).learnt)
    assert path is not None, "the settings of a run that has not begun name the file that the options name"
    torch.manual_seed(job.config.seed)
    model = job.header.build_model()
    transfer = take_over(model, job.header, path)
    if is_first_process():
        write_record(job.folder.transfer, transfer)
        logger.info("weights of %s:\n%s", path, transfer.table())
    return replace(job, model=model, learnt=transfer.learnt)


def model_header(task: RunToTrain, fold: int | str, config: TrainingConfig) -> ModelHeader:
    """What goes into the model files of a fold beside the weights."""
    return ModelHeader(
        dataset_name=task.dataset_name,
        configuration=task.configuration,
        fold=fold,
        plan=task.plans.configurations[task.configuration],
        description=read_description(task.folder.dataset),
        threshold=config.threshold,
        fine=config.fine,
        pretext=config.pretext,
    )


def split_of(splits: Sequence[Split], fold: int | str) -> Split:
    """The cases of a fold; `all` trains on every case, and validates on them too, as nnU-Net does."""
    if isinstance(fold, int):
        return splits[fold]
    cases = tuple(sorted({case for split in splits for case in split.train + split.val}))
    return Split(train=cases, val=cases)


def summarize_folds(run: RunFolder, num_folds: int) -> None:
    """Write `crossval/summary.json` when all folds are trained."""
    files = [run.fold(fold).validation / "summary.json" for fold in range(num_folds)]
    if all(file.exists() for file in files):
        cases = [case for file in files for case in read_record(file, Summary).per_case]
        write_record(run.crossval, summarize(cases))
