"""Which run is to be trained: a planned configuration, with the network that was asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import Split, read_splits
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.preprocessing.store import Store
from seg25d.runs.names import check_names, run_name, with_network
from seg25d.training.curves import check_tensorboard
from seg25d.training.processes import local_device
from seg25d.workflows.folds import RunToTrain
from seg25d.workflows.options import TrainingOptions
from seg25d.workflows.preparation import add_network, keep_network


class PlannedRun(NamedTuple):
    """A run to train, of a network that may have to go into the plans."""

    task: RunToTrain
    path: Path
    """Of the plans."""
    added: bool

    def keep_network(self) -> None:
        """Put the network into the plans, if it is new there."""
        if self.added:
            keep_network(self.path, self.task.plans, self.task.configuration)


def planned_run(workspace: Workspace, identifier: str, configuration: str, options: TrainingOptions) -> PlannedRun:
    """The run that options name: a planned configuration, its preprocessed arrays and folds.

    Raises:
        InputError: If an argument names what is not there, or curves are wanted and TensorBoard is not there; raised
            before anything is written.
    """
    if options.tensorboard:
        check_tensorboard()
    choose_execution(local_device(options.device), options.config(configuration).precision)
    check_names([configuration], options.recipe)
    name = workspace.dataset_name(identifier)
    folder = workspace.preprocessed_dataset(name)
    path = folder.plans(options.plans_name, options.recipe)
    if not path.exists():
        raise InputError(f"{name} is not planned; run `{_planning_command(identifier, options)}` first")
    plans = read_plans(path)
    configuration = with_network(plans, configuration, options.network)
    added = configuration not in plans.configurations
    if added:
        plans = add_network(folder, plans, configuration)
    splits = read_splits(folder.recipe_splits(options.recipe))
    _check_store(Store(folder.store(plans.configurations[configuration].store)), splits, name)
    run = workspace.run(name, run_name(configuration, plans, options.recipe))
    return PlannedRun(RunToTrain(name, configuration, run, folder, plans, splits, options), path, added)


def _planning_command(identifier: str, options: TrainingOptions) -> str:
    """The command whose plans `options` would train."""
    words = ["seg25d plan_and_preprocess -d", identifier]
    words += [] if options.recipe == "default" else ["--recipe", options.recipe]
    words += [] if options.plans_name == DEFAULT_PLANS_NAME else ["--plans-name", options.plans_name]
    return " ".join(words)


def _check_store(store: Store, splits: Sequence[Split], name: str) -> None:
    wanted = {case for split in splits for case in split.train + split.val}
    missing = sorted(wanted - set(store.cases()))
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of {len(wanted)} cases are not preprocessed ({', '.join(missing[:5])} ...); "
            "run `seg25d plan_and_preprocess` again, it goes on where it stopped"
        )
