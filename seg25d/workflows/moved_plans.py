"""Plans of one data set for another one, so that models of the first can be the start of those of the second."""

import logging
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.locks import folder_lock
from seg25d.core.workspace import Workspace
from seg25d.planning.channel_rules import store_name
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import planning_digest
from seg25d.planning.plans_file import read_plans
from seg25d.workflows.options import PlanningOptions
from seg25d.workflows.preparation import DatasetToPlan, datasets_to_plan, measure, write_plans

logger = logging.getLogger(__name__)


def move_plans(workspace: Workspace, source: str, target: str, source_plans: str, target_plans: str) -> Path:
    """Give a data set the plans of another one: spacing, normalisation with its numbers, windows, networks.

    Arrays are then made by `preprocess` with the name of the plans. Axes that the target's labels forbid to mirror are
    not mirrored.

    Args:
        workspace: The workspace.
        source: The data set that is planned: `1`, `001` or `Dataset001_Name`.
        target: The data set that gets the plans; it is checked and measured.
        source_plans: Name of the plans.
        target_plans: Their name there.

    Returns:
        The new file.

    Raises:
        InputError: If there are no such plans, the target has other plans of that name or another number of channels,
            or there are problems with it; nothing is written then.
        BusyError: If another process plans the target.
    """
    name, new_name = workspace.dataset_name(source), workspace.dataset_name(target)
    path = workspace.preprocessed_dataset(name).plans(source_plans)
    if not path.exists():
        raise InputError(f"{name} has no {path.name}; run `seg25d plan_experiment -d {source}` first")
    plans = read_plans(path)
    with folder_lock(workspace.preprocessed_dataset(new_name).root, "moving plans", deep=True):
        (task,) = datasets_to_plan(workspace, [target], PlanningOptions(plans_name=target_plans)).values()
        moved = _moved(plans, task, target_plans)
        if task.stored is not None and task.stored.model_dump() != moved.model_dump():
            raise InputError(
                f"{new_name} has plans of its own in {task.plans_file.name}; give the moved ones another name: -tp NAME"
            )
        write_plans(task, moved)
    logger.info("%s: make its arrays with `seg25d preprocess -d %s -plans_name %s`", new_name, target, target_plans)
    return task.plans_file


def _moved(plans: Plans, task: DatasetToPlan, plans_name: str) -> Plans:
    description = task.dataset.description
    channels = description.channel_names
    for configuration, plan in plans.configurations.items():
        if len(plan.normalization) != len(channels):
            raise InputError(
                f"{task.dataset.name} has {len(channels)} channels, and the plan of {configuration} is for "
                f"{len(plan.normalization)}: plans can be moved between data sets with as many channels"
            )
    digest = planning_digest(measure(task), description, task.rules)
    forbidden = description.labels.directed_axes
    moved = {name: _renamed(plan, channels, forbidden) for name, plan in plans.configurations.items()}
    return plans.model_copy(
        update={
            "dataset_name": task.dataset.name,
            "plans_name": plans_name,
            "planned_from": digest,
            "configurations": moved,
            "reasons": {**plans.reasons, "moved": f"all of it was planned for {plans.dataset_name}"},
        }
    )


def _renamed(plan: ConfigurationPlan, channels: tuple[str, ...], forbidden: tuple[int, ...]) -> ConfigurationPlan:
    """The plan with the channels' names of the target, which are part of the name of the arrays' folder."""
    pairs = zip(plan.normalization, channels, strict=True)
    normalization = tuple(each.model_copy(update={"channel": channel}) for each, channel in pairs)
    return plan.model_copy(
        update={
            "normalization": normalization,
            "store": store_name(plan.spacing_mm, normalization, plan.common_shape),
            "mirror_axes": tuple(axis for axis in plan.mirror_axes if axis not in forbidden),
        }
    )
