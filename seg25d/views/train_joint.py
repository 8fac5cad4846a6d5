"""Training views and their fusion together, from the parts that were trained apart."""

import logging
from contextlib import closing
from dataclasses import replace

from seg25d.core.device import Execution, choose_execution
from seg25d.core.files import copy_file
from seg25d.core.locks import folder_lock
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, JointFolder
from seg25d.ensembling.fused_predictor import view_model
from seg25d.evaluation.summary import Summary
from seg25d.planning.model_file import ModelHeader, load_model, save_model
from seg25d.representations.fused_views import FusedViews
from seg25d.runs.files import write_run_files
from seg25d.training.trainer import train_fold
from seg25d.views.joint import JointFusion, PaddedView
from seg25d.workflows.folds import RunToTrain, fold_job, score_fold, split_of, summarize_folds

logger = logging.getLogger(__name__)


def train_joint_folds(task: RunToTrain, apart: RunToTrain) -> dict[str, Summary]:
    """Train folds jointly whose views and fusion have been trained separately.

    Args:
        task: The run to train.
        apart: The run of the separately trained parts.

    Returns:
        The scores per fold.
    """
    execution = choose_execution(task.device, task.config.precision)
    summaries = {}
    for fold in task.folds:
        with folder_lock(task.run.fold(fold).root, "training", deep=True):
            summaries[str(fold)] = _train_joint_fold(task, apart.run.fold(fold), fold, execution)
    summarize_folds(task.run, len(task.splits))
    return summaries


def _train_joint_fold(task: RunToTrain, parts: FoldFolder, fold: int | str, execution: Execution) -> Summary:
    ready, split = task.run.fold(fold), split_of(task.splits, fold)
    together = JointFolder(root=ready.root)
    config = task.settled(fold)

    def begin() -> None:
        write_run_files(task.run, task.folder, task.plans)
        write_record(ready.config, config)
        copy_file(parts.fusion_cases, ready.fusion_cases)

    job = fold_job(task, together, fold, split, config)
    model, headers = _load_parts(parts, job.header)
    with closing(job.loggers):
        train_fold(replace(job, model=model), begin)
        if not ready.model_final.exists() or _is_older(ready, together):
            # New views must never exist together with the old fusion.
            ready.model_final.unlink(missing_ok=True)
            model.load_state_dict(load_model(together.model_final)[1])
            for (name, header), view in zip(headers.items(), model.views, strict=True):
                assert isinstance(view, PaddedView), "made by _load_parts"
                save_model(view_model(ready.root, name), view.model.state_dict(), header)
            save_model(ready.model_final, model.fusion.state_dict(), job.header)
        return score_fold(task, job, execution)


def _is_older(ready: FoldFolder, together: JointFolder) -> bool:
    return ready.model_final.stat().st_mtime_ns < together.model_final.stat().st_mtime_ns


def _load_parts(parts: FoldFolder, header: ModelHeader) -> tuple[JointFusion, dict[str, ModelHeader]]:
    """The trained parts as one model, and the headers of the views' files, by name."""
    representation = FusedViews.of(header.plan.representation)
    views, headers = [], {}
    for name in representation.views:
        headers[name], weights = load_model(view_model(parts.root, name))
        view = headers[name].build_model()
        view.load_state_dict(weights)
        views.append(PaddedView.of(view, headers[name].plan))
    fusion = header.build_model()
    fusion.load_state_dict(load_model(parts.model_final)[1])
    return JointFusion(views, fusion, header.description.labels), headers
