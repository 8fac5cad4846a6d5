"""Seconds of an update on this machine: a few of them, timed with made-up windows, and kept for the next time.

Nothing of a training depends on it: it has models, optimizers and generators of its own, and puts torch's back.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import seg25d
from seg25d.core.device import Execution, device_name, give_freed_memory_back, memory_of
from seg25d.core.errors import InputError, RecordError, Seg25dError
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.processor import cache_folder, this_processor
from seg25d.core.records import Record, digest, read_record, write_record
from seg25d.data.description import DatasetDescription
from seg25d.planning.model_size import check_memory
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.representations.epoch_aware import EpochAware
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import LOSSES
from seg25d.training.reconstruction import ReconstructionLoss
from seg25d.training.sampling import WindowSource
from seg25d.training.state import new_state
from seg25d.training.supply import WATCHED_DEVICES, time_batch
from seg25d.training.update import make_update

logger = logging.getLogger(__name__)
SECONDS = 2.0
"""For the timed updates of a configuration, of which there is at least one."""
MOST_UPDATES = 5
LONG_UPDATE_S = 4.0
"""An update of a part of the batch that would take longer for all of it is timed so, and the rest is reckoned."""
PART_OF_BATCH = 2
"""Windows of that part: norms over a batch need two."""
NUM_BATCHES = 2
"""Batches whose preparation is timed."""


class Timing(Record):
    """What was timed, in a file of its own in the user's cache folder."""

    schema_version: Literal[1] = 1
    conditions: dict[str, Any]
    """All that it depends on."""
    seconds_per_update: float


class Training(NamedTuple):
    """What is to be timed."""

    name: str
    """Of the configuration, for messages."""
    plan: ConfigurationPlan
    config: TrainingConfig
    description: DatasetDescription
    execution: Execution
    store: Store | None = None
    """Where the preparation of batches is timed as well; None: it is left out."""
    num_loaders: int = 0
    """Processes that prepare batches beside the updates."""
    build: Callable[[], nn.Module] | None = None
    """Makes the model; None: that of the plan."""

    @property
    def cases(self) -> tuple[str, ...]:
        """The stored cases whose preparation is timed; none of a fusion, which is trained on what views say of them."""
        if self.store is None or self.plan.representation.fuses_views:
            return ()
        return tuple(self.store.cases())


def seconds_per_update(training: Training, *, only_known: bool = False) -> float | None:
    """Seconds of an update, as timed now or before.

    Args:
        training: What is to be timed.
        only_known: Whether nothing is timed now.

    Returns:
        None where the memory does not suffice here, or nothing is known and it is not to be timed.
    """
    conditions = _conditions(training)
    key = digest(conditions, 16)
    known = _TIMED.get(key) or _read(key, conditions)
    if known is None and only_known:
        return None
    if known is None:
        try:
            known = measure(training)
        except InputError as error:
            logger.warning("how long updates take is not timed: %s", error)
            return None
        with suppress(InputError, OSError, RuntimeError):  # no right to write; no home
            remove_leftovers(cache_folder())
            write_record(cache_folder() / f"timing_{key}.json", Timing(conditions=conditions, seconds_per_update=known))
    _TIMED[key] = known
    return known


_TIMED: dict[str, float] = {}
"""What was timed in this process, by the key of its conditions: there may be no place to write it to."""


def measure(training: Training) -> float:
    """Time some updates, and the preparation of some batches where they are to be prepared of stored cases.

    Raises:
        InputError: If the device has too little memory.
    """
    device = training.execution.device
    logger.info("%s: timing a few updates on this machine, once for this plan", training.name)
    with memory_of(device, "for this plan", "plan with a smaller --gpu-memory-gb"):
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
                computing = _time_updates(training)
        finally:
            give_freed_memory_back()
        return min(_with_batches(training, computing, place) for place in _places(training))


def _places(training: Training) -> tuple[str, ...]:
    """Where windows may be augmented, see `supply.py`."""
    setting = training.config.augmentation.place
    if setting != "auto":
        return (setting,)
    return ("loaders", "device") if training.execution.device.type in WATCHED_DEVICES else ("loaders",)


def _with_batches(training: Training, computing: float, place: str) -> float:
    """Seconds of an update with the preparation of its batch, whose windows are augmented at a place."""
    loading, augmenting = _time_batches(training, place)
    updating = computing + augmenting
    return max(updating, loading / training.num_loaders) if training.num_loaders else updating + loading


def _conditions(training: Training) -> dict[str, Any]:
    """All that the seconds depend on."""
    config, execution = training.config, training.execution
    on_cpu = execution.device.type == "cpu"
    return {
        "seg25d": seg25d.__version__,
        "torch": torch.__version__,
        "machine": this_processor().model_dump(mode="json") if on_cpu else device_name(execution.device),
        "threads": torch.get_num_threads() if on_cpu else None,
        "precision": str(execution.dtype),
        "plan": digest(training.plan.decisions.model_dump(mode="json")),
        "labels": training.description.labels.model_dump(mode="json"),
        "channels": len(training.description.channel_names),
        "settings": config.model_dump(mode="json", include={"loss", "optimizer", "augmentation", "pretext", "fine"}),
        "joint": training.build is not None,
        "loaders": training.num_loaders if training.cases else None,
        "places": None if on_cpu else list(_places(training)),
    }


def _read(key: str, conditions: dict[str, Any]) -> float | None:
    """What was timed before under these conditions."""
    with suppress(RecordError, OSError, RuntimeError):
        timing = read_record(cache_folder() / f"timing_{key}.json", Timing)
        return timing.seconds_per_update if timing.conditions == conditions else None
    return None


def _time_updates(training: Training) -> float:
    """Seconds of an update with a whole batch, prepared already."""
    plan, config, execution = training.plan, training.config, training.execution
    num_channels, labels = len(training.description.channel_names), training.description.labels
    torch.manual_seed(0)
    outputs = num_channels if config.pretext is not None else labels.num_outputs
    if training.build is None:
        check_memory(training.name, plan, num_channels, outputs, on_cpu=execution.device.type == "cpu")
    model = plan.build_model(num_channels, outputs) if training.build is None else training.build()
    state = new_state(model, config, execution)
    if isinstance(state.model, EpochAware):
        state.model.start_epoch(1, 0, 0.0)
    state.model.train()
    loss_function: nn.Module = (
        LOSSES[config.loss](labels, config.dice_smooth) if config.pretext is None else ReconstructionLoss()
    )
    windows = _made_up_windows(training, plan.batch_size)

    def timed(number: int) -> float:
        begun = time.perf_counter()
        batch = windows[0][:number], windows[1][:number]
        make_update(state, state.model, batch, loss_function, execution, config.gradient_clip)
        state.update_average(config.weight_averaging)
        return time.perf_counter() - begun

    part = min(PART_OF_BATCH, plan.batch_size)
    # The first one also makes what all others use.
    first = min(timed(part), timed(part)) if part < plan.batch_size else timed(part)
    number = part if first * plan.batch_size / part > LONG_UPDATE_S else plan.batch_size
    if number > part:
        timed(number)
    seconds = [timed(number)]
    while len(seconds) < MOST_UPDATES and sum(seconds) < SECONDS:
        seconds.append(timed(number))
    # The others had to wait for other programs.
    return min(seconds) * plan.batch_size / number


def _made_up_windows(training: Training, number: int) -> tuple[Tensor, Tensor]:
    """Images (B, C, D, H, W) and target: labels (B, D, H, W), or in pretraining images."""
    plan, description = training.plan, training.description
    generator = torch.Generator().manual_seed(0)
    channels = len(description.channel_names)
    if training.build is None:
        channels = plan.representation.input_channels(channels)
    images = torch.randn(number, channels, *plan.window, generator=generator)
    if training.config.pretext is not None:
        return images, images
    num_values = len(description.labels.values)
    return images, torch.randint(num_values, (number, *plan.window), generator=generator, dtype=torch.uint8)


def _time_batches(training: Training, place: str) -> tuple[float, float]:
    """Seconds to prepare a batch in one process, and to augment it on the device; 0 where there are no cases."""
    cases = training.cases
    if training.store is None or not cases:
        return 0.0, 0.0
    purposes = {"train": cases, "validate": cases[:1]}
    # Which slices windows are centred on makes no difference to the time, and would take that of reading all labels.
    config = training.config.model_copy(update={"largest_slices": None})
    source = WindowSource(training.store, training.plan, config, purposes, cache_bytes=0)
    source.augments = place != "device"
    try:
        seconds = [time_batch(source, number, training.execution.device) for number in range(NUM_BATCHES)]
    except Seg25dError:
        return 0.0, 0.0  # the training tells it
    return min(loading for loading, _ in seconds), min(augmenting for _, augmenting in seconds)
