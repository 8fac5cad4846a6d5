"""How long the trainings of a data set take on this machine, for `plan_and_preprocess --explain` and `info`."""

import textwrap
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import torch

from seg25d.core.device import choose_execution, device_name
from seg25d.core.errors import InputError
from seg25d.core.lengths import count
from seg25d.core.processor import cache_folder, this_processor
from seg25d.core.workspace import PreprocessedFolder, Workspace
from seg25d.data.dataset import Split, read_description, read_splits
from seg25d.evaluation.tables import text_table
from seg25d.planning.explanation import MOST_COLUMNS
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_file import read_plans
from seg25d.preprocessing.store import Store
from seg25d.representations.fused_views import FusedViews
from seg25d.runs.information import TrainingTime, gather_information
from seg25d.runs.names import find_configuration
from seg25d.training.config import TrainingConfig
from seg25d.training.durations import (
    SHORT_BUDGET_S,
    expected_seconds,
    expected_updates,
    format_duration,
    format_update,
)
from seg25d.training.loading import choose_num_loaders
from seg25d.training.recipes import find_recipe
from seg25d.training.timing import Training, seconds_per_update
from seg25d.views.model_sets import fusion_cases


def training_times(
    workspace: Workspace,
    identifier: str,
    device: str | None = None,
    num_processes: int | None = None,
    *,
    only_known: bool = False,
) -> dict[str, dict[str, TrainingTime]]:
    """How long trainings take on this machine, by timing updates: a few seconds per configuration, the first time.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        device: Where it would be trained; None: the best there is.
        num_processes: Processes that would prepare batches.
        only_known: Whether nothing is timed now, and only what was timed before is told.

    Returns:
        Times of the planned configurations by name, per file of plans; none of files that cannot be read.

    Raises:
        InputError: If there is no such data set, or the device is not available.
    """
    choose_execution(device)
    name = workspace.dataset_name(identifier)
    folder = workspace.preprocessed_dataset(name)
    times = {}
    for file in gather_information(workspace, name).datasets[0].plans:
        with suppress(InputError):  # what cannot be read is told by `gather_information`
            plans = read_plans(folder.root / file)
            times[file] = timed_trainings(folder, plans, device, num_processes, only_known=only_known)
    return times


class _Timed(NamedTuple):
    """A configuration by itself."""

    update: float
    fold: float
    """Seconds of the first fold."""
    updates: int
    updates_in_budget: int


def timed_trainings(
    folder: PreprocessedFolder,
    plans: Plans,
    device: str | None = None,
    num_processes: int | None = None,
    *,
    only_known: bool = False,
) -> dict[str, TrainingTime]:
    """How long every planned configuration trains; what was not timed before is timed, a few seconds for each.

    Args:
        folder: The preprocessed data set; its arrays need not be there.
        plans: Its plans.
        device: Where it would be trained.
        num_processes: Processes that would prepare batches.
        only_known: Whether nothing is timed now.

    Returns:
        Times by name, without those that this machine has too little memory for, or that have too few folds.
    """
    splits, where = read_splits(folder.recipe_splits(plans.recipe)), (device, num_processes)
    fused_fold = _fold_to_fuse(splits)
    timed = {
        name: _time(folder, plans, name, splits, where, only_known)
        for name, plan in plans.configurations.items()
        if fused_fold is not None or not plan.representation.fuses_views
    }
    times = {}
    for name, own in timed.items():
        representation = plans.configurations[name].representation
        if own is None:
            continue
        if not representation.fuses_views:
            times[name] = _ordinary(own, len(splits))
            continue
        names = [find_configuration(plans, view)[0] for view in FusedViews.of(representation).views]
        known = {each: view for each in names if (view := timed.get(each)) is not None}
        if len(known) == len(names) and fused_fold is not None:
            views = [*known.values(), *_fine_models(plans, known, splits)]
            times[name] = _fused(own, views, splits, fused_fold)
    return times


def describe_times(times: Mapping[str, TrainingTime], device: str | None = None) -> str:
    """A table of times for people.

    Args:
        times: Of configurations by name.
        device: As for `timed_trainings`.
    """
    header = ["training", "update", "models", "updates", "fold 0", "all folds", "--time-budget 15min"]
    title = f"How long trainings take on this machine ({_machine(device)}), from a few timed updates:"
    notes = "Predictions and scores of whole cases come on top; a time budget holds for every model that has not begun."
    with suppress(RuntimeError):  # no home
        files = f"{cache_folder()}/timing_*.json"
        notes += f" What was timed is kept: if the machine was busy then, delete {files} to time anew."
    table = text_table(header, [_row(name, time) for name, time in times.items()])
    return "\n".join([textwrap.fill(title, MOST_COLUMNS), table, textwrap.fill(notes, MOST_COLUMNS)])


def _row(name: str, time: TrainingTime) -> list[str]:
    budget = f"{_short(SHORT_BUDGET_S * time.num_models)} for its models"
    return [
        name if time.fold == "0" else f"{name}, only fold {time.fold}",
        *(format_update(time.seconds_per_update), str(time.num_models), f"{time.updates_per_fold:,}"),
        *(_short(time.seconds_per_fold), _short(time.seconds_all_folds)),
        count(time.updates_in_15min, "update") if time.num_models == 1 else budget,
    ]


def _machine(device: str | None) -> str:
    chosen = choose_execution(device).device
    on_cpu = f"{this_processor().name}, {torch.get_num_threads()} thread(s)"
    return on_cpu if chosen.type == "cpu" else device_name(chosen)


def _short(seconds: float) -> str:
    return format_duration(seconds).removeprefix("about ")


def _time(
    folder: PreprocessedFolder,
    plans: Plans,
    name: str,
    splits: tuple[Split, ...],
    where: tuple[str | None, int | None],
    only_known: bool,
) -> _Timed | None:
    plan = plans.configurations[name]
    config = find_recipe(plans.recipe, fuses_views=plan.representation.fuses_views)
    execution = choose_execution(where[0], config.precision)
    num_loaders = choose_num_loaders(where[1], execution)
    store = Store(folder.store(plan.store))
    description = read_description(folder.dataset)
    training = Training(name, plan, config, description, execution, store, num_loaders)
    update = seconds_per_update(training, only_known=only_known)
    if update is None:
        return None
    return _reckon(config, plan, splits, update)


def _reckon(config: TrainingConfig, plan: ConfigurationPlan, splits: tuple[Split, ...], update: float) -> _Timed:
    reckoned = config, plan, len(splits[0].val), update
    return _Timed(
        update, expected_seconds(*reckoned), config.num_iterations(), expected_updates(*reckoned, SHORT_BUDGET_S)
    )


def _fine_models(plans: Plans, views: Mapping[str, _Timed], splits: tuple[Split, ...]) -> list[_Timed]:
    """The fine models of views, where the recipe has them; none is timed, as the windows of coarse ones are no smaller.

    Args:
        plans: Of the views.
        views: Times of the views by the name of their configuration.
        splits: Of the data set.
    """
    fusion, config = find_recipe(plans.recipe, fuses_views=True).fusion, find_recipe(plans.recipe, fine=True)
    if fusion is None or not fusion.fine:
        return []
    return [_reckon(config, plans.configurations[name], splits, view.update) for name, view in views.items()]


def _ordinary(own: _Timed, num_folds: int) -> TrainingTime:
    return TrainingTime(
        seconds_per_update=own.update,
        updates_per_fold=own.updates,
        num_models=1,
        seconds_per_fold=own.fold,
        seconds_all_folds=own.fold * num_folds,
        updates_in_15min=own.updates_in_budget,
    )


def _fold_to_fuse(splits: tuple[Split, ...]) -> int | str | None:
    """The fold whose fusion is told: the first one, or `all` where there are too few folds for it; None if neither."""
    for fold in (0, "all"):
        with suppress(InputError):
            fusion_cases(splits, fold, "cross")
            return fold
    return None


def _fused(own: _Timed, views: list[_Timed], splits: tuple[Split, ...], first: int | str) -> TrainingTime:
    """All models that a fusion takes where none is trained yet; `first` is what `_fold_to_fuse` gives."""
    folds = ["all"] if first == "all" else range(len(splits))
    sets = [{each.name for each in fusion_cases(splits, fold, "cross").sets} for fold in folds]
    of_a_set = sum(view.fold for view in views)
    return TrainingTime(
        seconds_per_update=own.update,
        updates_per_fold=own.updates + len(sets[0]) * sum(view.updates for view in views),
        num_models=len(sets[0]) * len(views) + 1,
        fold=str(first),
        seconds_per_fold=own.fold + len(sets[0]) * of_a_set,
        seconds_all_folds=own.fold * len(sets) + len(set().union(*sets)) * of_a_set,
        updates_in_15min=own.updates_in_budget,
    )
