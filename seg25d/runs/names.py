"""Which run is meant: configurations and folds by name, and what is trained already."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, remove_leftovers
from seg25d.core.records import write_record
from seg25d.core.workspace import PreprocessedFolder, RunFolder, Workspace
from seg25d.data.dataset import read_description, read_splits
from seg25d.planning.configurations import (
    check_configurations,
    configuration_name,
    configuration_names,
    is_alias,
    split_name,
)
from seg25d.planning.network_rules import name_in_plans
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.recipe_rules import find_rules

logger = logging.getLogger(__name__)


def check_names(configurations: Sequence[str], recipe: str) -> None:
    """Make sure that there are such configurations and such a recipe for them, before any work is done.

    Raises:
        InputError: If not; lists those that there are.
    """
    rules = find_rules(recipe)
    check_configurations(configurations)
    # A recipe is meant for all axes or none, whichever of them `2d` will be.
    configuration_names(configurations, 0, rules)


def find_configuration(plans: Plans, name: str) -> tuple[str, ConfigurationPlan]:
    """The name and the plan of a configuration.

    Raises:
        InputError: If it is not planned; lists the choices. Also if its plan cannot be read; names the place.
    """
    own_name = configuration_name(name, plans.slice_axis)
    plans.check_readable([own_name])
    if own_name not in plans.configurations:
        known = ", ".join(plans.configurations)
        raise InputError(
            f"{plans.dataset_name} has no configuration {name!r} in its plans; known: {known}; "
            f"plan_and_preprocess with -c {name} adds it"
        )
    return own_name, plans.configurations[own_name]


def with_network(plans: Plans, name: str, network: str | None) -> str:
    """The name of a planned configuration with a network: its own if that is planned, else `CONFIG__NETWORK`.

    Raises:
        InputError: If the configuration is not planned, or the network cannot have its dimension; lists those that can.
    """
    if network is None:
        return find_configuration(plans, name)[0]
    configuration, planned = split_name(configuration_name(name, plans.slice_axis))
    full_name = f"{configuration}__{network}"
    plans.check_readable([full_name])
    if full_name in plans.configurations:
        return full_name
    own_name, plan = find_configuration(plans, name)
    rules = find_rules(plans.recipe)
    # Also says which networks there are.
    configuration_names([full_name], plans.slice_axis, rules)
    asked_for = planned or rules.of(configuration).network
    default = plan.representation.default_network
    if plan.network.name != name_in_plans(asked_for or default):
        # Somebody edited the plan: it has the network that it says.
        own = network == plan.network.name
    elif asked_for is None:
        # The planner's own V-Net has another size than the one that can be asked for.
        own = network == default and default in ("unet", "fusion_net")
    else:
        own = network == asked_for
    return own_name if own else full_name


def run_name(configuration: str, plans: Plans, recipe: str) -> str:
    """The folder's name under the results of a data set: what is not the default is added to the configuration."""
    additions = [recipe] if recipe != "default" else []
    additions += [plans.plans_name] if plans.plans_name != DEFAULT_PLANS_NAME else []
    return "__".join([configuration, *additions])


def parse_folds(words: Sequence[str], num_folds: int) -> list[int | str]:
    """The folds that are meant: numbers, `cv` for all of them, `all` for one model on all cases; none twice.

    Raises:
        InputError: If a word is none of these, or there is no such fold.
    """
    folds: list[int | str] = []
    for word in words:
        if word == "cv":
            folds += range(num_folds)
        elif word == "all":
            folds.append(word)
        elif re.fullmatch(r"\d+", word) and int(word) < num_folds:
            folds.append(int(word))
        else:
            raise InputError(f"there is no fold {word!r}; wanted numbers from 0 to {num_folds - 1}, `cv` or `all`")
    return list(dict.fromkeys(folds))


def check_run(
    run: RunFolder, folder: PreprocessedFolder, plans: Plans, configuration: str, restarted: Sequence[int | str]
) -> None:
    """Make sure that folds which are kept were trained with what others will be trained with.

    Args:
        run: The run's folder, which need not exist.
        folder: The preprocessed data set.
        plans: Its plans.
        configuration: The one to train.
        restarted: Folds that begin anew.

    Raises:
        InputError: If plan, folds, labels or channels changed since; says which.
    """
    again = {f"fold_{fold}" for fold in restarted}
    begun = (
        path
        for name in ("checkpoint_last.pt", "model_final.safetensors")
        for kind in ("fold", "pair", "holdout")
        for path in run.root.glob(f"{kind}_*/{name}")
    )
    kept = sorted({path.parent.name for path in begun} - again)
    changed = _changes(run, folder, plans, configuration) if kept else []
    if changed:
        raise InputError(
            f"{' and '.join(changed)} changed since {', '.join(kept)} of {run.root} began; put it back, train all "
            "these folds with --restart to begin anew (without pair_* and holdout_*, which you may delete), or plan "
            "under another name (--plans-name)"
        )


def _changes(run: RunFolder, folder: PreprocessedFolder, plans: Plans, configuration: str) -> list[str]:
    """What differs between the run's own files and those of the data set; files that are missing do not."""
    changed = []
    if run.plans.exists():
        stored = read_plans(run.plans)
        stored.check_readable([configuration])
        before = stored.configurations.get(configuration)
        if before is None or before.decisions != plans.configurations[configuration].decisions:
            changed.append(f"the plan of {configuration}")
    splits = run.splits
    current = folder.recipe_splits(plans.recipe)
    if splits.exists() and read_splits(splits) != read_splits(current):
        changed.append(f"the folds ({current.name})")
    if run.dataset.exists():
        old, new = read_description(run.dataset), read_description(folder.dataset)
        changed += ["the labels (dataset.json)"] if old.labels != new.labels else []
        changed += ["the channels (dataset.json)"] if old.channel_names != new.channel_names else []
    return changed


def write_run_files(run: RunFolder, folder: PreprocessedFolder, plans: Plans) -> None:
    """Put the files that the trained models need to stand alone into the run's folder."""
    remove_leftovers(run.root)
    write_record(run.plans, plans)
    splits = folder.recipe_splits(plans.recipe)
    targets = ((folder.dataset, run.dataset), (folder.fingerprint, run.fingerprint), (splits, run.splits))
    for source, target in targets:
        if source.exists():
            copy_file(source, target)


def trained_runs(workspace: Workspace, dataset_name: str) -> list[str]:
    """Names of the runs of a data set that have a trained fold, sorted."""
    folder = workspace.results / dataset_name
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [name for name in names if workspace.run(dataset_name, name).trained_folds()]


def choose_run(
    workspace: Workspace,
    dataset: str | None,
    configuration: str | None,
    model: Path | None,
    plans_name: str | None = None,
    recipe: str | None = None,
) -> RunFolder:
    """The trained run that is meant: the one that is named, or the only one that there is.

    Args:
        workspace: Where everything is.
        dataset: A data set, or None.
        configuration: A configuration or the name of a run (`si__recipe`), or None.
        model: Folder of a run, instead of all others.
        plans_name: Name of the plans that it was trained with, or None.
        recipe: The recipe that it was trained with, or None.

    Raises:
        InputError: If nothing is trained under that name, or the choice is not clear; lists the choices.
    """
    if model is not None:
        if (dataset, configuration, plans_name, recipe) != (None, None, None, None):
            raise InputError("-m names the model already; leave -d, -c, -p and --recipe out, or leave -m out")
        return _run_at(model)
    name = workspace.dataset_name(dataset) if dataset is not None else _only_dataset(workspace)
    runs = trained_runs(workspace, name)
    wanted = {"plans_name": plans_name, "recipe": recipe}
    for key, value in wanted.items():
        if value is not None:
            runs = [run for run in runs if getattr(_plans(workspace, name, run), key) == value]
    if not runs:
        of = "".join(f" with {key.removesuffix('_name')} {value}" for key, value in wanted.items() if value is not None)
        raise InputError(f"nothing is trained on {name}{of} in {workspace.results}; run `seg25d train` first")
    if configuration is None:
        if len(runs) > 1:
            raise InputError(
                f"several configurations are trained on {name}; choose one with -c: {', '.join(runs)}; or have them "
                f"compared: seg25d find_best_configuration {name}"
            )
        return workspace.run(name, runs[0])
    short = is_alias(configuration) or (plans_name, recipe) != (None, None)
    if configuration not in runs and short:
        trained_with = plans_name or DEFAULT_PLANS_NAME, recipe or "default"
        configuration = full_run_name(workspace, name, runs, configuration, trained_with)
    if configuration not in runs:
        raise InputError(f"configuration {configuration} is not trained on {name}; trained: {', '.join(runs)}")
    return workspace.run(name, configuration)


def choose_folds(run: RunFolder, wanted: Sequence[str] | None) -> list[str]:
    """The trained folds to use: those that are wanted, or all numbered ones, or else the one on all cases.

    Raises:
        InputError: If a wanted fold is not trained; lists those that are.
    """
    trained = run.trained_folds()
    if wanted is None:
        return [fold for fold in trained if fold != "all"] or trained
    missing = [fold for fold in wanted if fold not in trained]
    if missing:
        raise InputError(f"{run.root}: fold {', '.join(missing)} is not trained; trained: {', '.join(trained)}")
    return list(dict.fromkeys(wanted))


def full_run_name(
    workspace: Workspace, name: str, runs: Sequence[str], configuration: str, trained_with: tuple[str, str]
) -> str:
    """The run of a configuration, plans by name and recipe; the configuration as it is if there is none."""
    for run in runs:
        plans = _plans(workspace, name, run)
        full = run_name(configuration_name(configuration, plans.slice_axis), plans, plans.recipe)
        if (plans.plans_name, plans.recipe) == trained_with and run == full:
            return run
    return configuration


def _plans(workspace: Workspace, name: str, run: str) -> Plans:
    return read_plans(workspace.run(name, run).plans)


def _only_dataset(workspace: Workspace) -> str:
    names = [name for name in workspace.dataset_names() if trained_runs(workspace, name)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError(f"nothing is trained in {workspace.results}; run `seg25d train` first, or give -m")
    raise InputError(f"models of several data sets are there; choose one with -d: {', '.join(names)}")


def _run_at(folder: Path) -> RunFolder:
    """The run in a folder; the folder of one of its folds will do as well."""
    run = RunFolder(root=folder.parent if folder.name.startswith("fold_") else folder)
    if not run.trained_folds():
        raise InputError(f"{folder} has no trained model; wanted the folder of a configuration, with fold_0 in it")
    return run
