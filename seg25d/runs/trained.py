"""Choice of trained models: runs and folds by name, or the only ones that exist."""

import logging
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from seg25d.core.errors import InputError
from seg25d.core.records import Record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_splits
from seg25d.planning.configurations import configuration_name, is_alias
from seg25d.planning.plan import Plans, PlansName
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME, RUN_VARIANTS
from seg25d.runs.progress import warn_of_earlier_models

logger = logging.getLogger(__name__)


class ModelChoice(Record):
    """Options that choose a trained model."""

    dataset: str | None = None
    configuration: str | None = None
    """A configuration or the name of a run (`si__recipe`)."""
    plans_name: PlansName | None = None
    """Only models of these plans; None: of any, if that leaves one choice."""
    recipe: str | None = None
    """Only models of this recipe; None: of any, if that leaves one choice."""
    folds: tuple[str, ...] | None = None
    """Folds to use; None: all that are trained."""
    model: Path | None = None
    """Folder of a trained configuration, instead of data set and configuration; or an archive of models."""
    checkpoint: Literal["final", "best"] = "final"
    """The model of each fold: that at the end of its training, or that with the best validation windows."""


def trained_runs(workspace: Workspace, dataset_name: str) -> list[str]:
    """Names of the runs of a data set that have a trained fold, sorted."""
    folder = workspace.results / dataset_name
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [name for name in names if workspace.run(dataset_name, name).trained_folds()]


def choose_run(workspace: Workspace, choice: ModelChoice) -> RunFolder:
    """Find the chosen trained run: the one that is named, or the only one that exists.

    Args:
        workspace: The workspace.
        choice: The run; `model` names a folder.

    Raises:
        InputError: If nothing is trained under that name, or the choice is ambiguous; lists the choices.
    """
    wanted = {"plans_name": choice.plans_name, "recipe": choice.recipe}
    if choice.model is not None:
        if (choice.dataset, choice.configuration, *wanted.values()) != (None,) * 4:
            raise InputError("-m already names the model; leave -d, -c, -p and --recipe out, or leave -m out")
        return _run_at(choice.model)
    name = workspace.dataset_name(choice.dataset) if choice.dataset is not None else _only_dataset(workspace)
    runs = trained_runs(workspace, name)
    for key, value in wanted.items():
        if value is not None:
            runs = [run for run in runs if getattr(_plans(workspace, name, run), key) == value]
    if not runs:
        of = "".join(f" with {key.removesuffix('_name')} {value}" for key, value in wanted.items() if value is not None)
        raise InputError(f"nothing is trained on {name}{of} in {workspace.results}; run `seg25d train` first")
    configuration = choice.configuration
    if configuration is None:
        if len(runs) > 1:
            raise InputError(
                f"several configurations are trained on {name}; choose one with -c: {', '.join(runs)}; or compare "
                f"them: seg25d find_best_configuration {name}"
            )
        return workspace.run(name, runs[0])
    short = is_alias(configuration) or tuple(wanted.values()) != (None, None)
    if configuration not in runs and short:
        trained_with = choice.plans_name or DEFAULT_PLANS_NAME, choice.recipe or "default"
        configuration = full_run_name(workspace, name, runs, configuration, trained_with)
    configuration = only_variant(configuration, runs, [value for value in wanted.values() if value is not None])
    if configuration not in runs:
        raise InputError(f"configuration {configuration} is not trained on {name}; trained: {', '.join(runs)}")
    return workspace.run(name, configuration)


def choose_folds(run: RunFolder, wanted: Sequence[str] | None) -> list[str]:
    """The trained folds to use: the requested ones, else all numbered ones, else the one trained on all cases.

    Warns of those that are being trained for longer.

    Raises:
        InputError: If a requested fold is not trained; lists those that are.
    """
    trained = run.trained_folds()
    missing = [fold for fold in wanted or () if fold not in trained]
    if missing:
        raise InputError(f"{run.root}: fold {', '.join(missing)} is not trained; trained: {', '.join(trained)}")
    usual = [fold for fold in trained if fold != "all"] or trained
    chosen = usual if wanted is None else list(dict.fromkeys(wanted))
    warn_of_earlier_models(run, chosen)
    return chosen


def prediction_command(workspace: Workspace, dataset: str, run: RunFolder, folds: Collection[str]) -> str:
    """The command that predicts with what is trained of a run; IN and OUT stand for the folders.

    It names all trained folds with numbers, unless these are all that there are; or the one on all cases.

    Args:
        workspace: Where the run is; named unless the same environment leads to it.
        dataset: The data set, as the user names it.
        run: The run.
        folds: Its folds that were trained now.
    """
    words = ["seg25d", "predict", "-i", "IN", "-o", "OUT"]
    root = workspace.raw.parent
    if workspace == Workspace.resolve():
        words += ["-d", dataset, "-c", run.root.name]
    elif workspace == Workspace.resolve(root):
        words += ["-d", dataset, "-c", run.root.name, "--workspace", str(root)]
    else:
        words += ["-m", str(run.root)]
    numbered = [fold for fold in run.trained_folds() if fold != "all"]
    if set(folds) == {"all"}:
        words += ["-f", "all"]
    elif not run.splits.exists() or len(numbered) < len(read_splits(run.splits)):
        words += ["-f", *numbered]
    return shlex.join(words)


def best_command(workspace: Workspace, dataset: str) -> str:
    """The command that predicts with what was chosen of a data set; the only one that has a choice need not be named.

    Args:
        workspace: Where it is; named unless the same environment leads to it, or no single folder does.
        dataset: The full name of the data set.
    """
    words = ["seg25d", "predict", "-i", "IN", "-o", "OUT"]
    chosen = [name for name in workspace.dataset_names() if workspace.best(name).exists()]
    words += [] if chosen == [dataset] else ["-d", dataset]
    root = workspace.raw.parent
    named = workspace != Workspace.resolve() and workspace == Workspace.resolve(root)
    words += ["--workspace", str(root)] if named else []
    return shlex.join(words)


def full_run_name(
    workspace: Workspace, name: str, runs: Sequence[str], configuration: str, trained_with: tuple[str, str]
) -> str:
    """The run of a configuration with plans name and recipe; the configuration's name itself if there is none."""
    for run in runs:
        plans = _plans(workspace, name, run)
        full = plans.run_name(configuration_name(configuration, plans.slice_axis))
        if (plans.plans_name, plans.recipe) == trained_with and run == full:
            return run
    return configuration


def only_variant(configuration: str, runs: Sequence[str], additions: Collection[str] = ()) -> str:
    """The only variant of a configuration among runs, such as `mv__holdout` for `mv`; else the name as it is.

    Args:
        configuration: A configuration or the name of a run.
        runs: Names of trained runs.
        additions: Recipe and name of the plans that the runs are known to have, which stand behind a variant.

    Raises:
        InputError: If the configuration itself is not trained, and several of its variants are.
    """
    if configuration in runs:
        return configuration
    parts = {run: run.removeprefix(f"{configuration}__").split("__") for run in runs if run.startswith(configuration)}
    variants = [run for run, words in parts.items() if set(words) - set(additions) <= set(RUN_VARIANTS)]
    if len(variants) > 1:
        raise InputError(f"of {configuration}, {', '.join(variants)} are trained; name one of them")
    if not variants:
        return configuration
    logger.info("%s: %s is the only variant that is trained", configuration, variants[0])
    return variants[0]


def _plans(workspace: Workspace, name: str, run: str) -> Plans:
    return read_plans(workspace.run(name, run).plans)


def _only_dataset(workspace: Workspace) -> str:
    names = [name for name in workspace.dataset_names() if trained_runs(workspace, name)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError(f"nothing is trained in {workspace.results}; run `seg25d train` first, or give -m")
    raise InputError(f"there are models of several data sets; choose one with -d: {', '.join(names)}")


def _run_at(folder: Path) -> RunFolder:
    """The run in a folder, or the run of the fold in that folder."""
    run = RunFolder(root=folder.parent if folder.name.startswith("fold_") else folder)
    if not run.trained_folds():
        raise InputError(f"{folder} has no trained model; expected the folder of a configuration, with fold_0 in it")
    return run
