"""Says how long a training takes, before its first update."""

import logging
from collections.abc import Callable, Sequence

from torch import nn

from seg25d.core.device import choose_execution
from seg25d.core.parallel import torchrun_processes
from seg25d.data.dataset import read_description
from seg25d.training.config import TrainingConfig
from seg25d.training.durations import describe_training, share_left
from seg25d.training.going_on import tell_changes
from seg25d.training.loading import choose_num_loaders
from seg25d.training.timing import Training, seconds_per_update
from seg25d.workflows.folds import RunToTrain, split_of

logger = logging.getLogger(__name__)


def time_update(
    task: RunToTrain, config: TrainingConfig | None = None, build: Callable[[], nn.Module] | None = None
) -> float | None:
    """Seconds of an update of a run on this machine, timed if they are not known yet.

    Args:
        task: The run.
        config: Other settings than those of a fold that has not begun.
        build: Makes the model; None: that of the plan.

    Returns:
        None where the memory does not suffice, or several processes share the work.
    """
    if torchrun_processes() > 1:
        return None
    config, name = config or task.config, task.run.root.name
    execution = choose_execution(task.device, config.precision)
    description, num_loaders = read_description(task.folder.dataset), choose_num_loaders(task.num_processes, execution)
    return seconds_per_update(Training(name, task.plan, config, description, execution, task.store, num_loaders, build))


def announce_folds(
    task: RunToTrain, folds: Sequence[int | str] | None = None, build: Callable[[], nn.Module] | None = None
) -> None:
    """Say how folds that have begun go on, and how long it takes to train them, as far as there is something to train.

    Args:
        task: The run.
        folds: Those of them that are to be trained; None: all.
        build: See `time_update`.
    """
    by_length: dict[str, list[tuple[int | str, TrainingConfig, float]]] = {}
    for fold in task.folds if folds is None else folds:
        config, folder = task.settled(fold), task.run.fold(fold)
        if task.begun != "kept":
            tell_changes(folder, config, task.config)
        left = share_left(folder, config)
        if left > 0:
            by_length.setdefault(config.model_dump_json(), []).append((fold, config, left))
    for parts in by_length.values():
        numbers, config = ", ".join(str(fold) for fold, _, _ in parts), parts[0][1]
        name = f"{task.run.root.name}, fold{'s' * (len(parts) > 1)} {numbers}"
        num_cases = len(split_of(task.splits, parts[0][0]).val)
        announce_models(task, name, (config, num_cases), [left for _, _, left in parts], build)


def announce_models(
    task: RunToTrain,
    name: str,
    settings: tuple[TrainingConfig, int],
    shares_left: Sequence[float],
    build: Callable[[], nn.Module] | None = None,
) -> None:
    """Say how long models still take to be trained; nothing where that cannot be told.

    Args:
        task: The run.
        name: Of the models, for the message.
        settings: Of each model, and its number of validation cases.
        shares_left: What is to be trained of each, see `share_left`.
        build: See `time_update`.
    """
    config, num_cases = settings
    seconds = time_update(task, config, build)
    if seconds is not None:
        logger.info("%s: %s", name, describe_training(config, task.plan, num_cases, seconds, shares_left))
