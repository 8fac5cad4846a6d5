"""Which run is meant: configurations and folds by name, and what is trained already."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import atomic_path
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import PreprocessedFolder, RunFolder, Workspace
from seg25d.planning.plan import DEFAULT_PLANS_NAME, ConfigurationPlan, Plans
from seg25d.planning.planner import ANATOMICAL, CONFIGURATIONS, RECIPES

logger = logging.getLogger(__name__)


def check_names(configurations: Sequence[str], recipe: str) -> None:
    """Make sure that there are such configurations and such a recipe to plan, before any work is done.

    Raises:
        InputError: If not; lists those that there are.
    """
    unknown = [name for name in configurations if name != "2d" and name not in CONFIGURATIONS]
    if unknown:
        raise InputError(f"there is no configuration {unknown[0]!r}; known: 2d, {', '.join(CONFIGURATIONS)}")
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; known: {', '.join(RECIPES)}")


def anatomical_name(plans: Plans, configuration: str) -> str:
    """The configuration's own name: `2d` is another one for the slice-wise one along the planned axis."""
    return ANATOMICAL[plans.slice_axis] if configuration == "2d" else configuration


def find_configuration(plans: Plans, name: str, network: str | None = None) -> tuple[str, ConfigurationPlan]:
    """The name and the plan of a configuration.

    Raises:
        InputError: If it is not planned, or is planned for another network; lists the choices.
    """
    own_name = anatomical_name(plans, name)
    if own_name not in plans.configurations:
        known = ", ".join(plans.configurations)
        raise InputError(f"{plans.dataset_name} has no configuration {name!r} in its plans; known: {known}")
    plan = plans.configurations[own_name]
    if network not in (None, plan.network.name):
        raise InputError(
            f"configuration {own_name} is planned for the network {plan.network.name}, not for {network!r}"
        )
    return own_name, plan


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


def prepare_run(run: RunFolder, folder: PreprocessedFolder, plans: Plans, configuration: str, *, restart: bool) -> None:
    """Put the files that the trained models need to stand alone into the run's folder.

    Raises:
        InputError: If folds were trained there with another plan of this configuration.
    """
    if run.plans.exists() and not restart and any(run.root.glob("fold_*/checkpoint_last.pt")):
        before = read_record(run.plans, Plans).configurations.get(configuration)
        if before != plans.configurations[configuration]:
            raise InputError(
                f"the plan of {configuration} has changed since {run.root} was trained; train with --restart to begin "
                "anew, or plan under another name (--plans-name)"
            )
    write_record(run.plans, plans)
    for source, target in ((folder.dataset, run.dataset), (folder.fingerprint, run.fingerprint)):
        if source.exists():
            with atomic_path(target) as temporary:
                temporary.write_bytes(source.read_bytes())


def trained_runs(workspace: Workspace, dataset_name: str) -> list[str]:
    """Names of the runs of a data set that have a trained fold, sorted."""
    folder = workspace.results / dataset_name
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [name for name in names if workspace.run(dataset_name, name).trained_folds()]


def choose_run(workspace: Workspace, dataset: str | None, configuration: str | None, model: Path | None) -> RunFolder:
    """The trained run that is meant: the one that is named, or the only one that there is.

    Args:
        workspace: Where everything is.
        dataset: A data set, or None.
        configuration: A configuration or the name of a run (`si__recipe`), or None.
        model: Folder of a run, instead of both.

    Raises:
        InputError: If nothing is trained under that name, or the choice is not clear; lists the choices.
    """
    if model is not None:
        return _run_at(model)
    name = workspace.dataset_name(dataset) if dataset is not None else _only_dataset(workspace)
    runs = trained_runs(workspace, name)
    if not runs:
        raise InputError(f"nothing is trained on {name} in {workspace.results}; run `seg25d train` first")
    if configuration is None:
        if len(runs) > 1:
            raise InputError(f"several configurations are trained on {name}; choose one with -c: {', '.join(runs)}")
        return workspace.run(name, runs[0])
    if configuration == "2d":
        configuration = next((run for run in runs if run in ANATOMICAL and _is_2d(workspace, name, run)), "2d")
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


def _is_2d(workspace: Workspace, name: str, run: str) -> bool:
    return anatomical_name(read_record(workspace.run(name, run).plans, Plans), "2d") == run


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
