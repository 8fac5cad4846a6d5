"""Training for coarse-to-fine segmentation: the coarse model if it is missing, then the fine one on crops.

The coarse model is the ordinary fold of the same configuration. The fine one learns from crops around the true object,
so it needs the coarse one only when it is used: a copy lies in its folder, which thereby stands alone.
"""

import filecmp
import logging
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, folder_lock
from seg25d.core.grids import box_shape
from seg25d.core.types import BoundingBox, Shape
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.evaluation.summary import Summary
from seg25d.planning.coarse_to_fine import FineConfig, fine_plan
from seg25d.planning.configurations import known_names
from seg25d.preprocessing.store import Store
from seg25d.runs.names import run_name
from seg25d.training.crops import crop_around, usual_margins
from seg25d.training.processes import is_first_process
from seg25d.workflows.folds import RunToTrain, check_folds, clear_folds, train_folds

logger = logging.getLogger(__name__)


def fine_task(workspace: Workspace, task: RunToTrain) -> RunToTrain:
    """The run of the fine models, `axial__fine`, whose windows are as large as crops need.

    Raises:
        InputError: If the configuration cannot be trained so.
    """
    fine, plan = task.config.fine, task.plans.configurations[task.configuration]
    assert fine is not None, "its settings were asked for"
    if not plan.representation.can_be_fine:
        raise InputError(
            f"{task.configuration} cannot be trained coarse-to-fine: `fine` is a setting of "
            f"{', '.join(known_names(lambda each: each.can_be_fine))}; that of "
            f"{', '.join(known_names(lambda each: each.fuses_views))} is `fusion.fine`"
        )
    changed = fine_plan(plan, _crops(task, fine))
    plans = task.plans.model_copy(update={"configurations": {**task.plans.configurations, task.configuration: changed}})
    run = workspace.run(task.dataset_name, run_name(f"{task.configuration}__fine", plans, task.options.recipe))
    return replace(task, run=run, plans=plans)


def train_fine_folds(task: RunToTrain, coarse: RunToTrain, folds: Sequence[int | str]) -> dict[str, Summary]:
    """Train the fine models of folds, and before them the coarse ones that are missing.

    Args:
        task: The run of the fine models.
        coarse: That of the coarse ones; settings other than lengths and seed are for the fine ones alone.
        folds: Numbers of folds, or `all`.

    Returns:
        The scores per fold, of both models together; none on processes other than the first.

    Raises:
        InputError: If something does not fit; nothing is trained then.
        BusyError: If another command works on one of the models.
    """
    coarse = replace(coarse, options=coarse.options.of_coarse())
    check_coarse(task, coarse, folds)
    if task.options.restart:
        if is_first_process():
            clear_folds(task, folds)
        task = replace(task, options=task.options.model_copy(update={"restart": False}))
    if is_first_process():
        for fold in folds:
            _bring_coarse(task, coarse, fold)
    return train_folds(task, folds)


def check_coarse(task: RunToTrain, coarse: RunToTrain, folds: Sequence[int | str]) -> None:
    """Make sure that coarse models can be used or trained, before anything is written.

    Raises:
        InputError: If not.
    """
    begun = [] if task.options.restart else [fold for fold in folds if _has_begun(task.run.fold(fold))]
    for fold in begun:
        copy, source = task.run.fold(fold).coarse, coarse.run.fold(fold).model_final
        if source.exists() and not filecmp.cmp(copy, source, shallow=False):
            raise InputError(
                f"{copy.parent} was begun with another coarse model: {source.parent} was trained again since; begin "
                "this fold anew with --restart"
            )
    missing = [fold for fold in folds if fold not in begun and not coarse.run.fold(fold).model_final.exists()]
    if missing and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"the coarse model of {coarse.configuration}, fold {missing[0]}, is not trained, and several processes "
            "train one run at a time: run the same command without `fine` first"
        )
    for fold in missing:
        check_folds(_going_on(coarse, fold), [fold])


def _bring_coarse(task: RunToTrain, coarse: RunToTrain, fold: int | str) -> None:
    """Put the coarse model beside a fine one that has not begun; train it if it is missing."""
    folder, source = task.run.fold(fold), coarse.run.fold(fold)
    with folder_lock(folder.root, "training"):
        if _has_begun(folder):
            return
        if not source.model_final.exists():
            logger.info("%s, fold %s: the coarse model is not trained; training it first", coarse.configuration, fold)
            train_folds(_going_on(coarse, fold), [fold])
        copy_file(source.model_final, folder.coarse)


def _going_on(coarse: RunToTrain, fold: int | str) -> RunToTrain:
    """A coarse run as its fold is to be trained: one that has begun knows its length and seed."""
    return coarse.without_lengths() if coarse.run.fold(fold).checkpoint.exists() else coarse


def _has_begun(folder: FoldFolder) -> bool:
    return folder.coarse.exists() and (folder.checkpoint.exists() or folder.model_final.exists())


def _crops(task: RunToTrain, fine: FineConfig) -> list[Shape]:
    """Shapes of the crops of all cases with an object, by the voxels that preprocessing keeps of each class."""
    store, crops = task.store, []
    for case in sorted({case for split in task.splits for case in split.train + split.val}):
        box = _sampled_box(store, case)
        if box is not None:
            grid = store.record(case).grid
            crops.append(box_shape(crop_around(box, usual_margins(fine), grid.shape, grid.spacing_mm)))
    return crops


def _sampled_box(store: Store, case: str) -> BoundingBox | None:
    """The box of the object, of up to 10,000 voxels per class: close enough to choose a window, and read at once."""
    voxels = [each for label, each in store.locations(case).items() if label != 0 and len(each)]
    if not voxels:
        return None
    every = np.concatenate(voxels)
    depth, height, width = zip(
        (int(low) for low in every.min(0)), (int(high) + 1 for high in every.max(0)), strict=True
    )
    return depth, height, width
