"""Pretraining without labels: a configuration's network learns to restore images, as initial weights of `train`."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.locks import folder_lock
from seg25d.core.names import check_case_name
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset, Split, read_description
from seg25d.data.inputs import find_inputs
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.planning.model_file import load_header
from seg25d.planning.pretext import PretextTask
from seg25d.preprocessing.preprocess import preprocess_dataset, stores_to_change
from seg25d.preprocessing.store import Store
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import TrainingConfig
from seg25d.training.durations import share_left
from seg25d.training.going_on import settle_config, tell_changes
from seg25d.training.pretext_tasks import check_task
from seg25d.training.processes import (
    check_processes,
    is_first_process,
    join_processes,
    leave_processes,
    local_device,
    wait_for_all,
)
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.workflows.durations import announce_models
from seg25d.workflows.folds import RunToTrain, loggers_of, model_header
from seg25d.workflows.options import PretrainingOptions
from seg25d.workflows.planned_run import PlannedRun
from seg25d.workflows.settings import Settings, asks_for_fine

logger = logging.getLogger(__name__)
OF_LABELS = ("loss", "dice_smooth", "foreground_share", "largest_slices", "small_windows", "threshold")
"""Settings of learning from labels."""
OF_OTHER_TASK: dict[PretextTask, tuple[str, ...]] = {
    "inpainting": ("pretext.grid", "pretext.exchanged_share"),
    "jigsaw": ("pretext.hidden_share", "pretext.piece", "pretext.whole_slices"),
}
"""Settings that apply only to other tasks, by task."""


class PretrainingRun(NamedTuple):
    """A network to pretrain."""

    task: RunToTrain
    """Run of the configuration whose network is pretrained; without folds."""
    folder: FoldFolder
    """Folder of the results: one per run and pretext task."""
    settings: Settings
    further: tuple[Case, ...]
    """Images without labels."""
    left_out: frozenset[str]
    """Cases whose images are not seen."""
    restart: bool

    @property
    def unlabelled(self) -> Path:
        """The store of images without labels."""
        return self.task.folder.store(f"{self.task.plan.store}__unlabelled")


def plan_pretraining(planned: PlannedRun, options: PretrainingOptions) -> PretrainingRun:
    """Resolve the network, images and settings of a pretraining; nothing is written.

    Raises:
        InputError: If the configuration cannot use the pretext task (names a task that it can use); if a run that
            continues had another plan or other settings; if images do not fit; or if there is no such fold.
    """
    _check_settings(options)
    task, settings = planned.run(planned.settings, ()), planned.settings
    check_pretraining(task)
    name, left_out = f"{task.run.root.name}__{options.task}", frozenset[str]()
    if (fold := options.without_fold) is not None:
        if fold >= len(task.splits):
            raise InputError(f"--without-fold: expected a fold from 0 to {len(task.splits) - 1}, got {fold}")
        name, left_out = f"{name}__without_fold_{fold}", frozenset(task.splits[fold].val)
    folder = FoldFolder(root=planned.workspace.results / task.dataset_name / "pretraining" / name)
    if not options.restart:
        settle_config(folder, settings.recipe, settings.changes)
        _check_plan(folder, task)
    further = tuple(_further_cases(planned.workspace, task, options.images))
    return PretrainingRun(task, folder, settings, further, left_out, options.restart)


def pretrain_network(run: PretrainingRun) -> Path:
    """Pretrain a network on all images; an interrupted run continues.

    Returns:
        The file for `train --pretrained`.

    Raises:
        InputError: If another command has begun it with other settings in the meantime.
        BusyError: If another command pretrains it.
    """
    task, folder = run.task, run.folder
    execution = choose_execution(local_device(task.device), run.settings.config.precision)
    join_processes(execution.device)
    first = is_first_process()
    with folder_lock(folder.root, "pretraining", deep=True) if first else nullcontext():
        if first:
            if run.restart:
                _clear(folder)
            _preprocess(run)
        wait_for_all(execution.device)
        config = settle_config(folder, run.settings.recipe, run.settings.changes)
        store = Store(task.store.folder, [run.unlabelled])
        cases = tuple(sorted({*task.store.cases(), *(case.name for case in run.further)} - run.left_out))
        if first:
            logger.info("pretraining on the images of %d cases", len(cases))
            tell_changes(folder, config, run.settings.config)
            left = share_left(folder, config)
            if left > 0:
                announce_models(task, folder.name, (config, len(cases)), [left])
        # No cases are held out by default: there are no labels that could leak.
        split = Split(train=cases, val=cases)
        header = model_header(task, "all", config)
        where = (task.device, task.num_processes)
        job = FoldJob(folder, store, split, config, header, *where, loggers=loggers_of(task, folder, header, config))
        with closing(job.loggers):
            train_fold(job, partial(_begin, run, config))
    leave_processes()
    return folder.model_final


def _begin(run: PretrainingRun, config: TrainingConfig) -> None:
    """Write what a network is pretrained with."""
    write_record(run.folder.config, config)


def check_pretraining(task: RunToTrain) -> None:
    """Check that a network can be pretrained this way.

    Raises:
        InputError: If the network cannot be pretrained, or the configuration cannot use the pretext task; names one
        that it can use.
    """
    description, pretext = read_description(task.folder.dataset), task.config.pretext
    assert pretext is not None, "the options say which task it is"
    if isinstance(task.plan.network, RSTNSpec):
        raise InputError(
            f"{task.configuration} cannot be pretrained: what its first network restores is no crop for the "
            "second one; pretrain another network, such as unet"
        )
    check_processes(task.plan, len(description.channel_names), len(description.channel_names))
    try:
        check_task(task.plan.representation, pretext)
    except ValueError as error:
        raise InputError(f"{task.configuration} cannot be pretrained by {pretext.task}: {error}") from None


def _check_plan(folder: FoldFolder, task: RunToTrain) -> None:
    begun = folder.model_best
    if begun.exists() and load_header(begun).plan.decisions != task.plan.decisions:
        raise InputError(
            f"the plan of {task.configuration} changed since {begun.parent} began; put it back, or start over with "
            "--restart"
        )


def _check_settings(options: PretrainingOptions) -> None:
    """Refuse settings that contradict the command, and warn of those without effect."""
    if options.pretrained is not None:
        raise InputError("pretraining starts from random weights: leave `pretrained` out")
    if asks_for_fine(options.settings):
        raise InputError("a fine model needs labels to crop around, and pretraining has none: leave `fine` out")
    if options.settings.get("pretext.task", options.task) != options.task:
        raise InputError(f"--task says {options.task}; leave pretext.task out")
    without_effect = sorted(set(options.settings) & {*OF_LABELS, *OF_OTHER_TASK[options.task]})
    if without_effect:
        logger.warning("%s: no effect on pretraining by %s", ", ".join(without_effect), options.task)


def _clear(folder: FoldFolder) -> None:
    clear_fold(folder)
    for picture in folder.root.glob("reconstruction_*.png"):
        picture.unlink()


def _further_cases(workspace: Workspace, task: RunToTrain, folders: Sequence[Path]) -> list[Case]:
    """The images without labels: those of `imagesTr`, if it exists, and of the given folders."""
    description = read_description(task.folder.dataset)
    known = set(task.store.cases())
    found: dict[str, Case] = {}
    own = workspace.raw_dataset(task.dataset_name) / "imagesTr"
    for folder in ([own] if own.is_dir() else []) + list(folders):
        for case in find_inputs(folder, len(description.channel_names), description.file_ending):
            try:
                check_case_name(case.name)
            except ValueError as error:
                raise InputError(f"{case.images[0]}: {error}; rename the file") from None
            other = found.setdefault(case.name, case).images
            if [image.resolve() for image in other] != [image.resolve() for image in case.images]:
                raise InputError(f"two cases are called {case.name}: {other[0]} and {case.images[0]}; rename one")
            if not own.is_dir() and case.name in known:
                logger.warning("%s is left out: the data set has a case of that name", case.images[0])
    return [found[name] for name in sorted(set(found) - known)]


def _preprocess(run: PretrainingRun) -> None:
    """Fill the store of images without labels."""
    if not run.further:
        return
    task = run.task
    target = task.plan.model_copy(update={"store": run.unlabelled.name})
    dataset = Dataset(
        name=task.dataset_name,
        root=task.folder.root,
        description=read_description(task.folder.dataset),
        cases=run.further,
    )
    with ExitStack() as locks:
        for store in filter(Path.is_dir, stores_to_change(dataset, [target], task.folder, unlabelled=True)):
            locks.enter_context(folder_lock(store, "preprocessing"))
        preprocess_dataset(dataset, [target], task.folder, task.num_processes, unlabelled=True)
