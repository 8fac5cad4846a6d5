"""Pretraining without labels: the network of a configuration learns to restore images, and `train` begins with it."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.files import folder_lock
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset, Split, read_description
from seg25d.data.inputs import find_inputs
from seg25d.planning.model_file import load_header
from seg25d.planning.pretext import PretextTask
from seg25d.preprocessing.preprocess import preprocess_dataset
from seg25d.preprocessing.store import Store
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import settle_config
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
from seg25d.workflows.folds import RunToTrain, model_header
from seg25d.workflows.options import PretrainingOptions

logger = logging.getLogger(__name__)
OF_LABELS = ("loss", "dice_smooth", "foreground_share", "small_windows", "threshold")
"""Settings that say what is learnt of labels."""
OF_OTHER_TASK: dict[PretextTask, tuple[str, ...]] = {
    "inpainting": ("pretext.grid", "pretext.exchanged_share"),
    "jigsaw": ("pretext.hidden_share", "pretext.piece", "pretext.whole_slices"),
}
"""Settings of the tasks that a task is not."""


def pretraining_folder(workspace: Workspace, task: RunToTrain, options: PretrainingOptions) -> FoldFolder:
    """Where a network is pretrained: one folder per run and task."""
    return FoldFolder(
        root=workspace.results / task.dataset_name / "pretraining" / f"{task.run.root.name}__{options.task}"
    )


def pretrain_network(workspace: Workspace, task: RunToTrain, options: PretrainingOptions) -> Path:
    """Pretrain the network of a configuration on all images; a run that was cut off goes on.

    Args:
        workspace: Where everything is.
        task: The configuration, planned and preprocessed.
        options: How.

    Returns:
        The file for `train --pretrained`.

    Raises:
        InputError: If images do not fit; nothing is written then.
        BusyError: If another command pretrains it.
    """
    folder = pretraining_folder(workspace, task, options)
    base, changes = options.base(task.configuration), options.changes(task.configuration)
    execution = choose_execution(local_device(options.device), base.precision)
    join_processes(execution.device)
    first = is_first_process()
    further = _further_cases(workspace, task, options)
    with folder_lock(folder.root, "pretraining") if first else nullcontext():
        if first:
            if options.restart:
                _clear(folder)
            _preprocess(task, further, options)
        wait_for_all(execution.device)
        config = settle_config(folder, base, changes)
        store = Store(task.store.folder, [_further_store(task)])
        cases = tuple(sorted({*task.store.cases(), *(case.name for case in further)}))
        if first:
            logger.info("pretraining on the images of %d cases", len(cases))
            write_record(folder.config, config)
        # Nothing is held out: there are no labels that could leak.
        split = Split(train=cases, val=cases)
        header = model_header(task, "all", config)
        where = (options.device, options.num_processes)
        train_fold(FoldJob(folder, store, split, config, header, *where, tensorboard=options.tensorboard))
    leave_processes()
    return folder.model_final


def check_pretraining(workspace: Workspace, task: RunToTrain, options: PretrainingOptions) -> None:
    """Make sure that a configuration can be pretrained so, before anything is written.

    Raises:
        InputError: If the task makes no sense for it, says what would; or if a run that goes on had another plan.
    """
    plan, description = task.plans.configurations[task.configuration], read_description(task.folder.dataset)
    check_processes(plan, len(description.channel_names), len(description.channel_names))
    asked_for = options.config(task.configuration).pretext
    assert asked_for is not None, "the options say which task it is"
    _check_settings(options)
    try:
        check_task(plan.representation, asked_for)
    except ValueError as error:
        raise InputError(f"{task.configuration} cannot be pretrained by {asked_for.task}: {error}") from None
    begun = pretraining_folder(workspace, task, options).model_best
    if not options.restart and begun.exists() and load_header(begun).plan.decisions != plan.decisions:
        raise InputError(
            f"the plan of {task.configuration} changed since {begun.parent} began; put it back, or begin anew with "
            "--restart"
        )


def _check_settings(options: PretrainingOptions) -> None:
    """Refuse settings that contradict the command, and say which have no effect on it."""
    if options.fine:
        raise InputError("a fine model sees what is around labels, of which pretraining knows none: leave `fine` out")
    if options.settings.get("pretext.task", options.task) != options.task:
        raise InputError(f"--task says {options.task}; leave pretext.task out")
    without_effect = sorted(set(options.settings) & {*OF_LABELS, *OF_OTHER_TASK[options.task]})
    if without_effect:
        logger.warning("%s: no effect on pretraining by %s", ", ".join(without_effect), options.task)


def _clear(folder: FoldFolder) -> None:
    clear_fold(folder)
    for picture in folder.root.glob("reconstruction_*.png"):
        picture.unlink()


def _further_cases(workspace: Workspace, task: RunToTrain, options: PretrainingOptions) -> list[Case]:
    """The images without labels: those of `imagesTr`, where it is there, and of the folders that were named."""
    description = read_description(task.folder.dataset)
    known = set(task.store.cases())
    found: dict[str, Case] = {}
    own = workspace.raw_dataset(task.dataset_name) / "imagesTr"
    for folder in ([own] if own.is_dir() else []) + list(options.images):
        for case in find_inputs(folder, len(description.channel_names), description.file_ending):
            other = found.setdefault(case.name, case).images
            if [image.resolve() for image in other] != [image.resolve() for image in case.images]:
                raise InputError(f"two cases are called {case.name}: {other[0]} and {case.images[0]}; rename one")
            if not own.is_dir() and case.name in known:
                logger.warning("%s is left out: the data set has a case of that name", case.images[0])
    return [found[name] for name in sorted(set(found) - known)]


def _preprocess(task: RunToTrain, cases: Sequence[Case], options: PretrainingOptions) -> None:
    """Fill the store of images without labels."""
    if not cases:
        return
    plan = task.plans.configurations[task.configuration]
    target = plan.model_copy(update={"store": _further_store(task).name})
    dataset = Dataset(
        name=task.dataset_name,
        root=task.folder.root,
        description=read_description(task.folder.dataset),
        cases=tuple(cases),
    )
    preprocess_dataset(dataset, [target], task.folder, options.num_processes, unlabelled=True)


def _further_store(task: RunToTrain) -> Path:
    plan = task.plans.configurations[task.configuration]
    return task.folder.store(f"{plan.store}__unlabelled")
