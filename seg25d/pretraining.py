"""Pretraining without labels: the network of a configuration learns to restore images, and `train` begins with it."""

import logging
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import folder_lock
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset, Split, read_description
from seg25d.data.inputs import find_inputs
from seg25d.folds import RunToTrain, model_header
from seg25d.options import PretrainingOptions
from seg25d.preprocessing.preprocess import preprocess_dataset
from seg25d.preprocessing.store import Store
from seg25d.training.config import settle_config
from seg25d.training.pretext_tasks import check_task
from seg25d.training.trainer import FoldJob, clear_fold, train_fold

logger = logging.getLogger(__name__)


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
    with folder_lock(folder.root, "pretraining"):
        if options.restart:
            _clear(folder)
        base, changes = options.base(task.configuration), options.changes(task.configuration)
        config = settle_config(folder, base, changes)
        store = Store(task.store.folder, _further_images(workspace, task, options))
        cases = tuple(store.cases())
        logger.info("pretraining on the images of %d cases", len(cases))
        write_record(folder.config, config)
        # Nothing is held out: there are no labels that could leak.
        split = Split(train=cases, val=cases)
        header = model_header(task, "all", config)
        train_fold(FoldJob(folder, store, split, config, header, options.device, options.num_processes))
    return folder.model_final


def check_pretraining(task: RunToTrain, options: PretrainingOptions) -> None:
    """Make sure that a configuration can be pretrained so, before anything is written.

    Raises:
        InputError: If the task makes no sense for it; says what would.
    """
    asked_for = options.config(task.configuration).pretext
    assert asked_for is not None, "the options say which task it is"
    try:
        check_task(task.plans.configurations[task.configuration].representation, asked_for)
    except ValueError as error:
        raise InputError(f"{task.configuration} cannot be pretrained by {asked_for.task}: {error}") from None


def _clear(folder: FoldFolder) -> None:
    clear_fold(folder)
    for picture in folder.root.glob("reconstruction_*.png"):
        picture.unlink()


def _further_images(workspace: Workspace, task: RunToTrain, options: PretrainingOptions) -> list[Path]:
    """Preprocess images without labels: those of `imagesTr`, where it is there, and of the folders that were named."""
    plan = task.plans.configurations[task.configuration]
    description = read_description(task.folder.dataset)
    known = set(task.store.cases())
    found: dict[str, Case] = {}
    own = workspace.raw_dataset(task.dataset_name) / "imagesTr"
    for folder in ([own] if own.is_dir() else []) + list(options.images):
        for case in find_inputs(folder, len(description.channel_names), description.file_ending):
            if case.name in found and found[case.name].images != case.images:
                raise InputError(
                    f"two cases are called {case.name}: {found[case.name].images[0]} and {case.images[0]}; rename one"
                )
            if case.name not in known:
                found[case.name] = case
    target = plan.model_copy(update={"store": f"{plan.store}__unlabelled"})
    folder = task.folder.store(target.store)
    if not found:
        return []
    dataset = Dataset(
        name=task.dataset_name,
        root=workspace.raw_dataset(task.dataset_name),
        description=description,
        cases=tuple(sorted(found.values(), key=lambda case: case.name)),
    )
    preprocess_dataset(dataset, [target], task.folder, options.num_processes, unlabelled=True)
    return [folder]
