"""Planning and preprocessing of raw data sets: all checks first, then measuring and planning, then writing."""

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.files import copy_file, write_json
from seg25d.core.locks import folder_lock
from seg25d.core.records import parse_record, read_record
from seg25d.core.types import Auto, Spacing
from seg25d.core.workspace import PreprocessedFolder, Workspace
from seg25d.data.dataset import Dataset, Split, read_dataset, read_description
from seg25d.data.verify import raise_problems, verify_dataset
from seg25d.planning.channel_rules import value_ranges
from seg25d.planning.configurations import configuration_name, configuration_names, split_name
from seg25d.planning.fingerprint import Fingerprint, extract_fingerprint
from seg25d.planning.plan import LEFT_OUT, ConfigurationPlan, Plans
from seg25d.planning.planner import plan_dataset, planning_digest
from seg25d.planning.plans_file import read_plans, save_plans
from seg25d.planning.recipe_rules import PlanningRules, find_rules
from seg25d.planning.revision import revise_plans
from seg25d.planning.search import check_memory
from seg25d.planning.splits import choose_splits, splits_reason
from seg25d.preprocessing.preprocess import preprocess_dataset, stores_to_change
from seg25d.preprocessing.store import check_case_names
from seg25d.runs.names import check_names
from seg25d.workflows.ceiling import with_ceilings
from seg25d.workflows.machine_limits import machine_limits, training_time
from seg25d.workflows.options import PlanningOptions

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 60.0
"""How long a training waits that adds its network to plans: another one may do the same, which takes a moment."""
SHARED_BY_NETWORKS = {"spacing_mm", "common_shape", "normalization", "store", "mirror_axes"}
"""Fields of a plan that determine how arrays are made and read, independently of the network."""

NO_FOLD = "it cannot be trained here, as it learns from predictions of cases that its views have not seen"
ONLY_ALL = "only fold `all` of it can be trained here, as each other one needs two besides itself"
"""What is said of a fusion of views where there are too few folds."""


class DatasetToPlan(NamedTuple):
    """A verified data set, and the options of its planning."""

    dataset: Dataset
    folder: PreprocessedFolder
    plans_file: Path
    stored: Plans | None
    """The existing plans to keep; None: there are none, or they are discarded."""
    splits: tuple[Split, ...]
    splits_reason: str
    configurations: tuple[str, ...] | None
    """Names as given by the user; None: all."""
    rules: PlanningRules
    gpu_memory_gb: float | Auto
    cpu_gflops: float | Auto | None
    time_budget_s: float | None
    device: str | None
    spacing_3d_mm: Spacing | None
    plans_name: str
    clean: bool
    """Whether to discard measurements, plans and arrays and make them again."""
    num_processes: int | None
    num_fingerprint_processes: int | None


def prepare_datasets(workspace: Workspace, identifiers: Sequence[str], options: PlanningOptions) -> dict[str, Plans]:
    """Check, plan and preprocess data sets, see `api.plan_and_preprocess`; one process at a time works on each.

    Raises:
        BusyError: If another process plans one of them, or reads arrays that would change; nothing is written then.
    """
    if options.verify_only:
        datasets_to_plan(workspace, identifiers, options)
        return {}
    check_names(options.configurations or (), options.recipe)
    names = sorted({workspace.dataset_name(identifier) for identifier in identifiers})
    with ExitStack() as locks:
        for name in names:
            folder = workspace.preprocessed_dataset(name).root
            locks.enter_context(folder_lock(folder, "planning and preprocessing", deep=True))
        tasks = datasets_to_plan(workspace, identifiers, options)
        if options.fingerprint_only:
            for task in tasks.values():
                measure(task)
            return {}
        if options.preprocess_only:
            return {name: _preprocess(task, locks) for name, task in tasks.items()}
        return _plan(tasks, locks, plan_only=options.plan_only)


def _plan(tasks: dict[str, DatasetToPlan], locks: ExitStack, *, plan_only: bool) -> dict[str, Plans]:
    """Plan data sets and, unless they are only to be planned, make their arrays."""
    for store in (store for task in tasks.values() if task.clean for store in _stores(task.folder)):
        locks.enter_context(folder_lock(store, "preprocessing"))
    plans = {name: make_plans(task) for name, task in tasks.items()}
    to_fill = [
        name
        for name, task in tasks.items()
        if not plan_only and (task.clean or not _has_arrays(task, tuple(plans[name].configurations.values()), locks))
    ]
    for name, task in tasks.items():
        write_plans(task, plans[name])
    for name in to_fill:
        write_arrays(tasks[name], plans[name])
    return plans


def _has_arrays(task: DatasetToPlan, configurations: Sequence[ConfigurationPlan], locks: ExitStack) -> bool:
    """Hold the stores that are to be changed; returns whether there is none, as all arrays are there already."""
    stores = stores_to_change(task.dataset, configurations, task.folder)
    for store in filter(Path.is_dir, stores):
        locks.enter_context(folder_lock(store, "preprocessing"))
    if not (stores or task.clean):
        num_cases = len(task.dataset.cases)
        logger.info("%d of %d cases are preprocessed already", num_cases, num_cases)
    return not stores


def datasets_to_plan(
    workspace: Workspace, identifiers: Sequence[str], options: PlanningOptions
) -> dict[str, DatasetToPlan]:
    """Check data sets and options, and return the planning tasks by the names of the data sets; nothing is written.

    Raises:
        InputError: If there are problems with the options, the data sets or existing plans; lists those of all data
            sets.
    """
    rules = check_names(options.configurations or (), options.recipe)
    if options.gpu_memory_gb != "auto":
        check_memory(options.gpu_memory_gb)
    tasks, errors = {}, []
    for name in dict.fromkeys(workspace.dataset_name(identifier) for identifier in identifiers):
        try:
            tasks[name] = _dataset_to_plan(workspace, name, rules, options)
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DatasetError("\n\n".join(map(str, errors)))
    return tasks


def make_plans(task: DatasetToPlan) -> Plans:
    """Measure a data set and plan what is not planned yet.

    Raises:
        InputError: If the memory is too small for a configuration, or nothing can be learned from the data set.
    """
    fingerprint = measure(task)
    limits = machine_limits(task.dataset.name, task.stored, task.gpu_memory_gb, task.cpu_gflops, task.device)
    time_budget_s = training_time(task.dataset.name, task.stored, task.time_budget_s, limits)
    check_memory(limits.gpu_memory_gb)
    revised = revise_plans(
        task.stored,
        fingerprint,
        task.dataset.description,
        configurations=task.configurations,
        gpu_memory_gb=limits.gpu_memory_gb,
        cpu_gflops=limits.cpu_gflops,
        time_budget_s=time_budget_s,
        spacing_3d_mm=task.spacing_3d_mm,
        rules=task.rules,
        plans_name=task.plans_name,
        num_workers=task.num_processes,
    )
    plans = revised.model_copy(update={"reasons": {**revised.reasons, "folds": task.splits_reason}})
    plans = _warn_of_few_folds(plans, task.splits)
    names = configuration_names(task.configurations, plans.slice_axis, task.rules, fingerprint.flat_axis)
    if not task.configurations and LEFT_OUT in plans.reasons:
        logger.info("%s: not planned: %s", plans.dataset_name, plans.reasons[LEFT_OUT])
    for name, plan in plans.configurations.items():
        known = task.stored is not None and name in task.stored.configurations
        if "warning" in plan.reasons and not known:
            logger.info("%s, %s: %s", plans.dataset_name, name, plan.reasons["warning"])
    return with_ceilings(plans, task.dataset, fingerprint, {split_name(name)[0] for name in names}, task.num_processes)


def measure(task: DatasetToPlan) -> Fingerprint:
    """Measure a data set; what is measured already is kept, unless everything is to be made anew."""
    if task.clean:
        shutil.rmtree(task.folder.fingerprint_cases, ignore_errors=True)
    return extract_fingerprint(task.dataset, task.folder, task.num_fingerprint_processes)


def _preprocess(task: DatasetToPlan, locks: ExitStack) -> Plans:
    """Make the arrays of configurations that are planned; those that are not are left out.

    Raises:
        InputError: If there are no plans, none of these configurations is in them, or the data set has changed since.
        BusyError: If another process reads arrays that would change.
    """
    name, stored = task.dataset.name, task.stored
    if stored is None:
        raise InputError(f"{name} has no {task.plans_file.name}; run `seg25d plan_experiment -d {name}` first")
    if planning_digest(measure(task), task.dataset.description, task.rules) != stored.planned_from:
        raise InputError(f"{name} has changed since it was planned; run `seg25d plan_and_preprocess -d {name}`")
    words = task.configurations or tuple(stored.configurations)
    wanted = dict.fromkeys(configuration_name(word, stored.slice_axis) for word in words)
    planned = [each for each in wanted if each in stored.configurations]
    if not planned:
        known = ", ".join(stored.configurations)
        raise InputError(f"{name}: expected configurations that are planned ({known}), got {', '.join(wanted)}")
    if left_out := [each for each in wanted if each not in planned]:
        logger.info("%s: left out, as they are not planned: %s", name, ", ".join(left_out))
    configurations = [stored.configurations[each] for each in planned]
    is_complete = _has_arrays(task, configurations, locks)
    if task.clean or not is_complete:
        preprocess_dataset(task.dataset, configurations, task.folder, task.num_processes, task.clean)
    return stored


def _warn_of_few_folds(plans: Plans, splits: Sequence[Split]) -> Plans:
    """Add to what speaks against a fusion of views that there are too few folds for it, or take that back."""
    held_out = any(set(split.val) - set(split.train) for split in splits)
    problem = "" if len(splits) > 2 else ONLY_ALL if held_out else NO_FOLD
    for name, plan in plans.configurations.items():
        if not plan.representation.fuses_views:
            continue
        parts = plan.reasons.get("warning", "").split("; ")
        others = [part for part in parts if part not in (NO_FOLD, ONLY_ALL)]
        told = "; ".join(part for part in (*others, problem) if part)
        if told == plan.reasons.get("warning", ""):
            continue
        reasons = {key: text for key, text in plan.reasons.items() if key != "warning"}
        reasons |= {"warning": told} if told else {}
        plans = plans.with_plan(name, plan.model_copy(update={"reasons": reasons}))
    return plans


def write_plans(task: DatasetToPlan, plans: Plans) -> None:
    """Write the plans and the other files that training needs."""
    folder = task.folder
    if task.clean:
        _remove_stores(folder, task.plans_file)
    copy_file(task.dataset.root / "dataset.json", folder.dataset)
    write_json(folder.recipe_splits(task.rules.name), [split.model_dump(mode="json") for split in task.splits])
    save_plans(task.plans_file, plans)  # last: with them a data set is planned


def write_arrays(task: DatasetToPlan, plans: Plans) -> None:
    """Preprocess the cases that have not been preprocessed yet."""
    preprocess_dataset(task.dataset, plans.configurations.values(), task.folder, task.num_processes, task.clean)


def add_network(folder: PreprocessedFolder, plans: Plans, name: str) -> Plans:
    """Plan another network for a configuration that is planned already; nothing is written.

    Grid, normalisation and mirroring are taken from the existing plan, including edits; the window and everything else
    are planned again.

    Args:
        folder: The preprocessed data set.
        plans: Its plans.
        name: `CONFIG__NETWORK`.

    Raises:
        InputError: If the memory budget is too small for that network.
    """
    fingerprint, description = read_record(folder.fingerprint, Fingerprint), read_description(folder.dataset)
    planned = plan_dataset(
        fingerprint,
        description,
        configurations=[name],
        gpu_memory_gb=plans.gpu_memory_gb,
        cpu_gflops=plans.cpu_gflops,
        time_budget_s=plans.time_budget_s,
        rules=find_rules(plans.recipe),
        plans_name=plans.plans_name,
    ).configurations[name]
    # The configuration with its default network if it is planned, else with another network.
    relatives = sorted(each for each in plans.configurations if split_name(each)[0] == split_name(name)[0])
    like = plans.configurations[relatives[0]].model_dump(mode="json", include=SHARED_BY_NETWORKS)
    values = planned.model_dump(mode="json") | like
    if "spacing_mm" in values["representation"]:
        values["representation"]["spacing_mm"] = values["spacing_mm"]
    plan = parse_record(values, ConfigurationPlan, f"the plan of {name}")
    window = "x".join(map(str, plan.window))
    logger.info("planned %s: windows of %s, batches of %d, %s", name, window, plan.batch_size, plan.reasons["network"])
    return plans.with_plan(name, plan)


def keep_network(path: Path, plans: Plans, name: str) -> None:
    """Add one configuration to the plans in a file, keeping what other processes may have added in the meantime."""
    with folder_lock(path.parent, f"adding {name} to the plans", patience_seconds=PATIENCE_SECONDS):
        stored = read_plans(path)
        if _made_from(stored) == _made_from(plans):
            save_plans(path, stored.with_plan(name, plans.configurations[name]))


def _made_from(plans: Plans) -> tuple[str, float, float, float]:
    return plans.planned_from, plans.gpu_memory_gb, plans.cpu_gflops, plans.time_budget_s


def _dataset_to_plan(workspace: Workspace, name: str, rules: PlanningRules, options: PlanningOptions) -> DatasetToPlan:
    root, folder = workspace.raw_dataset(name), workspace.preprocessed_dataset(name)
    ranges, folders = _channel_ranges(root), workspace.splits_folders(name)
    memory = None if options.verify_only else folder.root / "verified.json"
    problems = verify_dataset(root, options.num_processes, memory, preprocessed=folders, ranges=ranges)
    raise_problems(problems, root.name)
    dataset = read_dataset(root, folders)
    splits = choose_splits(dataset, rules.num_folds, rules.fold_seed)
    check_case_names([case.name for case in dataset.cases])
    path = folder.plans(options.plans_name, options.recipe)
    forgotten = (options.clean and not options.preprocess_only) or options.verify_only or not path.exists()
    task = DatasetToPlan(
        dataset=dataset,
        folder=folder,
        plans_file=path,
        stored=None if forgotten else read_plans(path),
        splits=splits,
        splits_reason=splits_reason(dataset, splits, rules.fold_seed),
        configurations=options.configurations,
        rules=rules,
        gpu_memory_gb=options.gpu_memory_gb,
        cpu_gflops=options.cpu_gflops,
        time_budget_s=options.time_budget_s,
        device=options.device,
        spacing_3d_mm=options.spacing_3d_mm,
        plans_name=options.plans_name,
        clean=options.clean,
        num_processes=options.num_processes,
        num_fingerprint_processes=options.num_fingerprint_processes or options.num_processes,
    )
    logger.info("%s: %d cases, no problems found", dataset.name, len(dataset.cases))
    logger.info("%s, folds: %s", dataset.name, task.splits_reason)
    return task


def _channel_ranges(root: Path) -> dict[int, tuple[float, float]]:
    """Check the names of the channels before anything that takes long or writes files; the values that they allow."""
    try:
        channels = read_description(root / "dataset.json").channel_names
    except InputError:
        return {}  # verification reports this together with all other problems
    return value_ranges(channels)


def _stores(folder: PreprocessedFolder) -> list[Path]:
    return [path for path in sorted(folder.root.glob("spacing_*")) if path.is_dir()]


def _remove_stores(folder: PreprocessedFolder, plans: Path) -> None:
    """Remove all arrays that no plans in another file use."""
    # Searched as text, so that plans with errors in them keep their arrays too.
    others = [
        path.read_text(encoding="utf-8", errors="replace") for path in folder.root.glob("*.json") if path != plans
    ]
    for store in _stores(folder):
        if not any(store.name in text for text in others):
            logger.info("removing %s", store)
            shutil.rmtree(store)
