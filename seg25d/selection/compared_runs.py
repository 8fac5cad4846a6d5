"""Choice of the runs to compare: those whose folds are trained; for the others, the commands that train them."""

import logging
from collections.abc import Sequence

from seg25d.core.errors import InputError
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.planning.configurations import configuration_name, is_alias
from seg25d.planning.model_file import load_header
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME, TRAINERS
from seg25d.planning.recipe_names import WITH_FINE_VIEWS
from seg25d.runs.names import parse_folds
from seg25d.runs.trained import full_run_name, only_variant
from seg25d.selection.candidates import ValidatedRun, read_validated_run

logger = logging.getLogger(__name__)


def runs_to_compare(
    workspace: Workspace,
    dataset_name: str,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
) -> list[ValidatedRun]:
    """Find the runs among which the best is chosen, with the folds to compare.

    Args:
        workspace: The workspace.
        dataset_name: Full name of a data set.
        configurations: Configurations or names of runs; None: all that are trained, except those that lack folds.
        folds: Folds to compare; None: all of them.

    Raises:
        InputError: If there is nothing to compare, or a requested run lacks folds; gives the commands to train them.
    """
    folder = workspace.results / dataset_name
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    runs = [workspace.run(dataset_name, name) for name in names]
    known = [run for run in runs if run.imported.exists() or set(run.trained_folds()) - {"all"}]
    if configurations is not None:
        # Sorted, so that the name of an ensemble does not depend on the order of the arguments.
        chosen = {
            run.root.name: run for run in (_find_run(workspace, dataset_name, known, name) for name in configurations)
        }
        known = [chosen[name] for name in sorted(chosen)]
    else:
        installed = [run.root.name for run in known if not run.splits.exists()]
        known = [run for run in known if run.splits.exists()]
        if installed:
            logger.warning("left out, as their validation cases are not known: %s", ", ".join(installed))
    found = []
    for run in known:
        try:
            found.append(read_validated_run(run))
        except InputError as error:
            if configurations is not None:
                raise
            logger.warning("%s is left out: %s", run.root.name, error)
    wanted = [_wanted_folds(run, folds) for run in found]
    missing = {
        run.name: training_command(run, lacking)
        for run, numbers in zip(found, wanted, strict=True)
        if (lacking := [fold for fold in numbers if fold not in run.folds])
    }
    complete = [run.only(numbers) for run, numbers in zip(found, wanted, strict=True) if run.name not in missing]
    lines = "\n".join(f"  {name}: {command}" for name, command in missing.items())
    if missing and (configurations is not None or not complete):
        raise InputError(f"folds are missing; train them, or compare fewer with --folds:\n{lines}")
    if missing:
        logger.warning("left out, as folds are missing (train them, or compare fewer with --folds):\n%s", lines)
    if not complete:
        raise InputError(f"nothing is trained on {dataset_name} in {workspace.results}; run `seg25d train` first")
    return complete


def _find_run(workspace: Workspace, dataset_name: str, known: Sequence[RunFolder], name: str) -> RunFolder:
    names = [run.root.name for run in known]
    if name not in names and is_alias(name):
        own = [each for each in names if not workspace.run(dataset_name, each).imported.exists()]
        name = full_run_name(workspace, dataset_name, own, name, (DEFAULT_PLANS_NAME, "default"))
        axes = {each: read_plans(workspace.run(dataset_name, each).plans).slice_axis for each in own}
        name = next((each for each, axis in axes.items() if configuration_name(name, axis) == each), name)
    name = only_variant(name, names)
    if name not in names:
        raise InputError(
            f"configuration {name} is not trained on {dataset_name}; trained: {', '.join(names) or 'none'}"
        )
    return workspace.run(dataset_name, name)


def _wanted_folds(run: ValidatedRun, words: Sequence[str] | None) -> list[int]:
    if not words:
        return list(range(run.num_folds))
    if "all" in words:
        raise InputError("fold `all` has no validation cases to compare on; give numbers, or leave --folds out for all")
    try:
        return [fold for fold in parse_folds(words, run.num_folds) if isinstance(fold, int)]
    except InputError as error:
        raise InputError(f"{run.name}: {error}") from None


def training_command(run: ValidatedRun, folds: Sequence[int]) -> str:
    """The command that trains more folds of a run.

    Args:
        run: A run with a trained fold, or imported.
        folds: The folds to train.
    """
    numbers = " ".join(str(fold) for fold in folds)
    if run.store is None:
        return f"fold {numbers} was not imported"
    header, plans = load_header(run.run.fold(run.folds[0]).model_final), read_plans(run.run.plans)
    words = ["seg25d train", plans.dataset_name, header.configuration, numbers]
    words += [] if plans.recipe == "default" else ["--recipe", plans.recipe]
    words += [] if plans.plans_name == DEFAULT_PLANS_NAME else ["--plans-name", plans.plans_name]
    additions = [part for part in run.name.split("__") if part.startswith(TRAINERS)]
    words += ["-tr", *additions] if additions else []
    if header.plan.representation.fuses_views and plans.recipe in WITH_FINE_VIEWS:
        additions = ["fine"]
    plain = run.name == plans.run_name("__".join([header.configuration, *additions]))
    return " ".join(words) + ("" if plain else " with the same --set")
