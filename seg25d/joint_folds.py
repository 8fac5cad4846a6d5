"""Training views and fusion of `mv` together, from the parts that were trained apart."""

import logging
from collections.abc import Sequence

from torch import nn

from seg25d.core.device import Execution, choose_execution
from seg25d.core.files import folder_lock, remove_leftovers
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, JointFolder
from seg25d.ensembling.fused_predictor import load_predictor, view_model
from seg25d.ensembling.joint import JointFusion
from seg25d.evaluation.summary import Summary
from seg25d.folds import RunToTrain, check_folds, model_header, split_of, summarize_folds
from seg25d.inference.validate import validate_fold
from seg25d.planning.model_file import ModelHeader, load_model, save_model
from seg25d.runs import write_run_files
from seg25d.training.trainer import FoldJob, clear_fold, train_fold

logger = logging.getLogger(__name__)


def train_joint_folds(task: RunToTrain, apart: RunToTrain, folds: Sequence[int | str]) -> dict[str, Summary]:
    """Train folds whose views and fusion are trained.

    Args:
        task: The run to train.
        apart: The run of the parts.
        folds: Numbers of folds, or `all`.

    Returns:
        The scores per fold.
    """
    check_folds(task, folds)
    execution = choose_execution(task.options.device, task.config.precision)
    summaries = {}
    for fold in folds:
        folder = JointFolder(root=task.run.fold(fold).root)
        with folder_lock(folder.root, "training"):
            summaries[str(fold)] = _train_joint_fold(task, apart.run.fold(fold), folder, fold, execution)
    summarize_folds(task.run, len(task.splits))
    return summaries


def _train_joint_fold(
    task: RunToTrain, parts: FoldFolder, folder: JointFolder, fold: int | str, execution: Execution
) -> Summary:
    if task.options.restart:
        clear_fold(folder)
    remove_leftovers(folder.root)
    write_run_files(task.run, task.folder, task.plans)
    config = task.settled(fold)
    write_record(folder.config, config)
    header = model_header(task, fold, config)
    representation = header.plan.representation
    assert representation.name == "fused_views", "train has looked"
    model, headers = _load_parts(parts, representation.views, header)
    split = split_of(task.splits, fold)
    options = task.options
    job = FoldJob(folder, task.store, split, config, header, options.device, options.num_processes, model)
    train_fold(job)
    ready = FoldFolder(root=folder.root)
    if not ready.model_final.exists() or _older(ready, folder):
        _, weights = load_model(folder.model_final)
        model.load_state_dict(weights)
        for name, part in zip(representation.views, model.views, strict=True):
            save_model(view_model(folder.root, name), part.state_dict(), headers[name])
        save_model(ready.model_final, model.fusion.state_dict(), header)
    predictor = load_predictor([ready.model_final], execution)
    return validate_fold(ready, task.store, split.val, predictor)


def _older(ready: FoldFolder, joint: FoldFolder) -> bool:
    return ready.model_final.stat().st_mtime_ns < joint.model_final.stat().st_mtime_ns


def _load_parts(
    parts: FoldFolder, views: Sequence[str], header: ModelHeader
) -> tuple[JointFusion, dict[str, ModelHeader]]:
    """The trained models as one, and what belongs to the files of the views."""
    loaded = {name: load_model(view_model(parts.root, name)) for name in views}
    models: list[nn.Module] = []
    for view_header, weights in loaded.values():
        view = view_header.build_model()
        view.load_state_dict(weights)
        models.append(view)
    fusion_header, weights = load_model(parts.model_final)
    fusion = fusion_header.build_model()
    fusion.load_state_dict(weights)
    joint = JointFusion(models, fusion, header.description.labels)
    return joint, {name: view_header for name, (view_header, _) in loaded.items()}
