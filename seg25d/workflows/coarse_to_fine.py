"""Training for coarse-to-fine segmentation: the coarse model if it is missing, then the fine one on crops.

The coarse model is the ordinary fold of the same configuration. The fine one learns from crops around the true object,
so it needs the coarse one only for prediction: a copy is stored in its folder, which is thus self-contained.
"""

import filecmp
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file
from seg25d.core.grids import box_shape
from seg25d.core.locks import folder_lock
from seg25d.core.parallel import torchrun_processes
from seg25d.core.types import BoundingBox, Shape
from seg25d.core.workspace import FoldFolder
from seg25d.evaluation.summary import Summary
from seg25d.planning.coarse_to_fine import FineConfig, fine_plan
from seg25d.preprocessing.store import Store
from seg25d.runs.progress import warn_of_earlier_models
from seg25d.training.crops import crop_around, usual_margins
from seg25d.training.durations import is_trained
from seg25d.training.going_on import begun_config, tell_kept_folds
from seg25d.training.processes import is_first_process
from seg25d.workflows.durations import announce_folds
from seg25d.workflows.folds import Begun, RunToTrain, check_folds, clear_folds, is_scored, split_of, train_folds
from seg25d.workflows.planned_run import PlannedRun
from seg25d.workflows.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineRun:
    """Folds of fine models that are to be trained, and the coarse models that they need."""

    task: RunToTrain
    coarse: RunToTrain

    def only(self, fold: int | str) -> Self:
        """The same run, restricted to one fold."""
        return replace(self, task=self.task.only(fold), coarse=self.coarse.only(fold))


def plan_fine(planned: PlannedRun, folds: Sequence[int | str]) -> FineRun:
    """Plan the fine models and their coarse ones; settings other than lengths and seed apply to the fine models only.

    Args:
        planned: The planned run, with settings for fine models.
        folds: Numbers of folds, or `all`.

    Raises:
        InputError: If folds were begun with other settings.
    """
    settings = planned.settings_of_part({})
    coarse = planned.run(settings, folds, begun="kept")
    fine = fine_run(planned, planned.settings, coarse, begun=planned.begun)
    for folder in map(coarse.run.fold, _folds_without_coarse(fine)):
        if folder.checkpoint.exists():
            # A coarse model that has begun keeps its settings, but must have started from the same pretrained file.
            begun_config(folder, settings.recipe, {})
    return fine


def fine_run(planned: PlannedRun, settings: Settings, coarse: RunToTrain, *, begun: Begun) -> FineRun:
    """Plan the run of fine models, such as `axial__fine`, with windows as large as the crops need.

    Args:
        planned: The planned run.
        settings: Settings of the fine models.
        coarse: Folds of the coarse models that fine models are trained for.
        begun: Treatment of fine models that have begun.

    Raises:
        InputError: If folds were begun with other settings.
    """
    fine = settings.config.fine
    assert fine is not None, "its settings were asked for"
    changed = fine_plan(coarse.plan, _crops(coarse, fine))
    run = planned.run(
        settings, coarse.folds, configuration=coarse.configuration, plan=changed, variants=["fine"], begun=begun
    )
    return FineRun(run, coarse)


def train_network(planned: PlannedRun, folds: Sequence[int | str]) -> tuple[RunToTrain, dict[str, Summary]]:
    """Train folds of a configuration with one network, coarse-to-fine or not, unless they are only to be validated.

    Returns:
        The folds, and the scores of each; none on processes other than the first.

    Raises:
        InputError: If they cannot be trained; raised before anything is written.
        BusyError: If another command works on one of the models.
    """
    fine = plan_fine(planned, folds) if planned.settings.config.fine is not None else None
    task = fine.task if fine is not None else planned.run(planned.settings, folds, begun=planned.begun)
    check_folds(task)
    if planned.options.validation.validate_only:
        return task, {}
    if fine is not None:
        check_coarse(fine)
    clear_folds(task)
    if is_first_process():
        planned.keep_network()
    if fine is None and is_first_process():
        announce_folds(task)
    return task, train_folds(task) if fine is None else train_fine_folds(fine)


def train_fine_folds(fine: FineRun) -> dict[str, Summary]:
    """Train the fine models of folds, and first the coarse ones that are missing.

    Returns:
        The scores per fold, of both models together; none on processes other than the first.

    Raises:
        BusyError: If another command works on one of the models.
    """
    if is_first_process():
        announce_folds(fine.coarse, _folds_without_coarse(fine))
        announce_folds(fine.task)
        for fold in fine.task.folds:
            _provide_coarse(fine.only(fold), fold)
    return train_folds(fine.task)


def check_coarse(fine: FineRun) -> None:
    """Check that coarse models can be used or trained, before anything is written.

    Raises:
        InputError: If not.
    """
    task, coarse = fine.task, fine.coarse
    for fold in _folds_to_continue(fine):
        copy, source = task.run.fold(fold).coarse, coarse.run.fold(fold).model_final
        if source.exists() and not filecmp.cmp(copy, source, shallow=False):
            raise InputError(
                f"{copy.parent} was begun with another coarse model: {source.parent} was trained again since then; "
                "start this fold over with --restart"
            )
    missing = _folds_without_coarse(fine)
    if missing and torchrun_processes() > 1:
        raise InputError(
            f"the coarse model of {coarse.configuration}, fold {missing[0]}, is not trained, and several processes "
            "can train only one run at a time: run the same command without `fine` first"
        )
    for fold in missing:
        check_folds(coarse.only(fold))


def _folds_to_continue(fine: FineRun) -> list[int | str]:
    """Folds whose fine model continues."""
    restarted = fine.task.begun == "restarted"
    return [] if restarted else [fold for fold in fine.task.folds if _has_begun(fine.task.run.fold(fold))]


def _folds_without_coarse(fine: FineRun) -> list[int | str]:
    """Folds whose coarse model has to be trained."""
    begun = _folds_to_continue(fine)
    return [fold for fold in fine.task.folds if fold not in begun and not _is_complete(fine.coarse, fold)]


def _is_complete(coarse: RunToTrain, fold: int | str) -> bool:
    """Whether a coarse model can be taken as it is; one that is being made longer is one of before."""
    folder = coarse.run.fold(fold)
    if not folder.model_final.exists():
        return False
    return not is_trained(folder) or is_scored(folder, split_of(coarse.splits, fold).val)


def _provide_coarse(fine: FineRun, fold: int | str) -> None:
    """Copy the coarse model into the folder of a fine one that has not begun; train it if it is missing."""
    folder, coarse = fine.task.run.fold(fold), fine.coarse
    source = coarse.run.fold(fold)
    with folder_lock(folder.root, "training", deep=True):
        if _has_begun(folder):
            return
        tell_kept_folds([(source, coarse.config)])
        if not _is_complete(coarse, fold):
            logger.info("%s, fold %s: the coarse model is not complete; training it first", coarse.configuration, fold)
            train_folds(coarse)
        warn_of_earlier_models(coarse.run, [fold])
        copy_file(source.model_final, folder.coarse)


def _has_begun(folder: FoldFolder) -> bool:
    return folder.coarse.exists() and (folder.checkpoint.exists() or folder.model_final.exists())


def _crops(task: RunToTrain, fine: FineConfig) -> list[Shape]:
    """Shapes of the crops of all cases with an object, from the voxels that preprocessing stores of each class."""
    store, crops = task.store, []
    for case in sorted({case for split in task.splits for case in split.train + split.val}):
        box = _sampled_box(store, case)
        if box is not None:
            grid = store.record(case).grid
            crops.append(box_shape(crop_around(box, usual_margins(fine), grid.shape, task.plan.spacing_mm)))
    return crops


def _sampled_box(store: Store, case: str) -> BoundingBox | None:
    """The box of the object from up to 10,000 voxels per class: accurate enough to choose a window, fast to read."""
    voxels = [each for label, each in store.locations(case).items() if label != 0 and len(each)]
    if not voxels:
        return None
    every = np.concatenate(voxels)
    depth, height, width = zip(
        (int(low) for low in every.min(0)), (int(high) + 1 for high in every.max(0)), strict=True
    )
    return depth, height, width
