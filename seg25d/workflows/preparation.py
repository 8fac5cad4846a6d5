"""From raw data sets to plans and arrays: all checks first, then measuring and planning, then writing."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.files import copy_file, write_json
from seg25d.core.records import parse_record, read_record
from seg25d.core.workspace import PreprocessedFolder, Workspace
from seg25d.data.dataset import Dataset, Split, read_dataset, read_description
from seg25d.data.verify import raise_problems, verify_dataset
from seg25d.planning.channel_rules import named_normalization
from seg25d.planning.configurations import configuration_names, split_name
from seg25d.planning.fingerprint import Fingerprint, extract_fingerprint
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import plan_dataset
from seg25d.planning.plans_file import read_plans, save_plans
from seg25d.planning.recipe_rules import find_rules
from seg25d.planning.revision import revise_plans
from seg25d.planning.splits import choose_splits
from seg25d.preprocessing.store import check_case_names
from seg25d.workflows.ceiling import with_ceilings
from seg25d.workflows.options import PlanningOptions

logger = logging.getLogger(__name__)
SHARED_BY_NETWORKS = {"spacing_mm", "normalization", "store", "mirror_axes"}
"""Fields of a plan that say how arrays are made and read, whatever the network."""


class Checked(NamedTuple):
    """A data set in which nothing is wrong."""

    dataset: Dataset
    splits: tuple[Split, ...]
    stored: Plans | None
    """The plans that are there."""


def check_datasets(workspace: Workspace, names: Sequence[str], options: PlanningOptions) -> list[Checked]:
    """Look for everything that can be wrong with data sets and with plans that are there; nothing is written.

    Raises:
        InputError: If anything is; names everything in all of them.
    """
    checked, errors = [], []
    for name in names:
        try:
            checked.append(_check_dataset(workspace, name, options))
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DatasetError("\n\n".join(map(str, errors)))
    return checked


def make_plans(folder: PreprocessedFolder, checked: Checked, options: PlanningOptions) -> Plans:
    """Measure a data set and plan what is not planned yet.

    Raises:
        InputError: If the memory is too small for a configuration, or nothing can be learned from the data set.
    """
    if options.clean:
        shutil.rmtree(folder.fingerprint_cases, ignore_errors=True)
    fingerprint = extract_fingerprint(checked.dataset, folder, options.num_processes)
    plans = revise_plans(
        checked.stored,
        fingerprint,
        checked.dataset.description,
        configurations=options.configurations,
        gpu_memory_gb=options.gpu_memory_gb,
        recipe=options.recipe,
        plans_name=options.plans_name,
    )
    names = configuration_names(options.configurations, plans.slice_axis, find_rules(options.recipe))
    return with_ceilings(plans, checked.dataset, fingerprint, {split_name(name)[0] for name in names})


def write_plans(folder: PreprocessedFolder, checked: Checked, plans: Plans, options: PlanningOptions) -> None:
    """Write the plans and what training needs beside them."""
    if options.clean:
        _remove_stores(folder, folder.plans(options.plans_name, options.recipe))
    copy_file(checked.dataset.root / "dataset.json", folder.dataset)
    save_plans(folder.plans(options.plans_name, options.recipe), plans)
    write_json(folder.recipe_splits(options.recipe), [split.model_dump(mode="json") for split in checked.splits])


def add_network(folder: PreprocessedFolder, plans: Plans, name: str) -> Plans:
    """Plan a configuration, which is planned already, with another network; nothing is written.

    Grid, normalisation and mirroring stay those of the planned one, also where they were edited; the window and all
    else are searched for again.

    Args:
        folder: The preprocessed data set.
        plans: Its plans.
        name: `CONFIG__NETWORK`.

    Raises:
        InputError: If the memory is too small for that network.
    """
    fingerprint, description = read_record(folder.fingerprint, Fingerprint), read_description(folder.dataset)
    planned = plan_dataset(
        fingerprint,
        description,
        configurations=[name],
        gpu_memory_gb=plans.gpu_memory_gb,
        recipe=plans.recipe,
        plans_name=plans.plans_name,
    ).configurations[name]
    # The same with the planned network, or else with another one.
    relatives = sorted(each for each in plans.configurations if split_name(each)[0] == split_name(name)[0])
    like = plans.configurations[relatives[0]].model_dump(mode="json", include=SHARED_BY_NETWORKS)
    values = planned.model_dump(mode="json") | like
    if "spacing_mm" in values["representation"]:
        values["representation"]["spacing_mm"] = values["spacing_mm"]
    plan = parse_record(values, ConfigurationPlan, f"the plan of {name}")
    window = "x".join(map(str, plan.window))
    logger.info("planned %s: windows of %s, batches of %d, %s", name, window, plan.batch_size, plan.reasons["network"])
    return plans.model_copy(update={"configurations": {**plans.configurations, name: plan}})


def keep_network(path: Path, plans: Plans, name: str) -> None:
    """Put one configuration into the plans in a file, beside what others may have put there meanwhile."""
    stored = read_plans(path)
    if (stored.planned_from, stored.gpu_memory_gb) == (plans.planned_from, plans.gpu_memory_gb):
        added = {name: plans.configurations[name]}
        save_plans(path, stored.model_copy(update={"configurations": {**stored.configurations, **added}}))


def _check_dataset(workspace: Workspace, name: str, options: PlanningOptions) -> Checked:
    root = workspace.raw_dataset(name)
    _check_channels(root)
    memory = None if options.verify_only else workspace.preprocessed_dataset(name).root / "verified.json"
    raise_problems(verify_dataset(root, options.num_processes, memory=memory), root.name)
    dataset = read_dataset(root)
    check_case_names([case.name for case in dataset.cases])
    rules = find_rules(options.recipe)
    splits = choose_splits(dataset, rules.num_folds, rules.fold_seed)
    logger.info("%s: %d cases, no problems found", dataset.name, len(dataset.cases))
    path = workspace.preprocessed_dataset(name).plans(options.plans_name, options.recipe)
    begin_anew = options.clean or options.verify_only or not path.exists()
    return Checked(dataset, splits, None if begin_anew else read_plans(path))


def _check_channels(root: Path) -> None:
    """Check the names of the channels, before anything that takes long or is remembered."""
    try:
        channels = read_description(root / "dataset.json").channel_names
    except InputError:
        return  # verification tells this together with all the rest
    for channel in channels:
        named_normalization(channel)


def _remove_stores(folder: PreprocessedFolder, plans: Path) -> None:
    """Remove all arrays that no plans in another file use."""
    # As text: also plans that were edited wrongly keep their arrays.
    others = [path.read_text(encoding="utf-8") for path in folder.root.glob("*.json") if path != plans]
    for store in sorted(folder.root.glob("spacing_*")):
        if store.is_dir() and not any(store.name in text for text in others):
            logger.info("removing %s", store)
            shutil.rmtree(store)
