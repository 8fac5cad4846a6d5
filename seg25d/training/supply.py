"""The supply of a training with batches: how many processes prepare them, and where their windows are augmented.

A GPU may take batches faster than these processes make them. So the first updates on a GPU are watched: where it waits,
the augmentation moves to the GPU if updates get faster by it, and more processes prepare batches. Which windows come is
the same in any case. To watch the training itself needs no made-up updates, and shows what timing one process does not:
that all of them share caches and memory.
"""

import logging
import math
import statistics
import time
from collections.abc import Iterator

import torch

from seg25d.core.device import Execution, lacks_memory
from seg25d.core.errors import Seg25dError
from seg25d.core.parallel import available_memory_bytes
from seg25d.training.loading import (
    batches_ahead,
    choose_num_loaders,
    fitting_loaders,
    make_loader,
    more_loaders,
    next_batch,
)
from seg25d.training.processes import share
from seg25d.training.sampling import CACHE_BYTES, Batch, Regions, WindowSource
from seg25d.training.state import Place, TrainingState

logger = logging.getLogger(__name__)
WATCHED_DEVICES = frozenset({"cuda"})
"""Devices that may wait for batches. On CPUs those who prepare batches take the cores of those who wait."""
MARGIN = 0.1
"""Share of the time that updates must wait for batches before something changes, and that moving has to save."""
SETTLING = 5
"""First updates that do not count, in which cuDNN tries its algorithms; as those on batches that were ready by then."""
WATCHED = 20
"""Updates that count: several rounds of the processes, which deliver in bursts."""
TIMED = 5
"""Batches whose augmentation on the GPU is timed, after one for which its kernels are loaded."""
REGIONS = 2
"""Voxels that are read for a window whose augmentation is left to the device, in windows: an upper bound of the mean
with the default settings, as rotated and scaled windows need more around them."""


class Supply:
    """The batches of a training from its current iteration on.

    Args:
        source: Makes the batches.
        state: Of the training: its iteration, the time that it has waited, and where windows are augmented.
        execution: The device.
        num_loaders: Processes that prepare batches; None: chosen here, and raised while a GPU waits for them.
    """

    def __init__(
        self, source: WindowSource, state: TrainingState, execution: Execution, num_loaders: int | None
    ) -> None:
        self.source, self.state, self.device = source, state, execution.device
        self.num_loaders, self.may_grow = choose_num_loaders(num_loaders, execution), num_loaders is None
        if self.may_grow:
            self.num_loaders = fitting_loaders(self.num_loaders, self.batch_bytes)
        self.validates = source.config.time_budget_seconds is None
        """Whether loaders make validation batches, too: where it is known beforehand after which updates they come."""
        self.batches: Iterator[Batch | Regions | Seg25dError] = iter(())
        self.watching = self.device.type in WATCHED_DEVICES and (self.may_grow or self.place == "")
        self.watched: list[tuple[float, float]] = []
        """Seconds of each update: waiting, and all else."""
        self.num_settling = 0
        self.waited = 0.0
        """Seconds of waiting for the batch of the current update."""

    @property
    def place(self) -> Place:
        """Where windows are augmented; empty: not decided, by the loaders until then."""
        settings = self.source.config.augmentation
        if settings.place != "auto":
            return settings.place
        may_move = settings.enabled and self.device.type in WATCHED_DEVICES
        return self.state.augmented_on if may_move else "loaders"

    @property
    def batch_bytes(self) -> int:
        """Memory of a batch of training while it waits for this process."""
        plan, config = self.source.plan, self.source.config
        channels = plan.representation.input_channels(len(plan.normalization))
        per_voxel = 8 * channels if config.pretext is not None else 4 * channels + 1
        windows = -(-plan.batch_size // self.source.process[1])
        return windows * math.prod(plan.window) * per_voxel * (REGIONS if self.place == "device" else 1)

    def start(self) -> None:
        """Start the processes that prepare batches, in place of those that there are."""
        self.close()
        self.source.augments = self.place != "device"
        self.source.cache.limit_bytes = min(CACHE_BYTES, available_memory_bytes() // 4) // max(1, self.num_loaders)
        ahead, first = batches_ahead(self.num_loaders, self.batch_bytes), self.state.iteration
        self.batches = make_loader(
            self.source, first, self.num_loaders, self.device, validate=self.validates, ahead=ahead
        )
        if self.watching:
            self.watched.clear()
            ready = share([ahead * self.num_loaders], self.device, combine="max")[0]
            self.num_settling = SETTLING + int(ready)

    def close(self) -> None:
        """End the processes that prepare batches."""
        self.batches = iter(())

    def training_batch(self) -> Batch:
        """Wait for the next batch of training; it is on the device if its windows are augmented there."""
        if self.watching and len(self.watched) == self.num_settling + WATCHED:
            self._adapt()
        begun = time.perf_counter()
        batch = next_batch(self.batches)
        self.waited = time.perf_counter() - begun
        self.state.epoch_wait += self.waited
        return self.source.finish_batch(batch, self.device) if isinstance(batch, Regions) else batch

    def validation_batches(self, number: int, *, here: bool) -> Iterator[Batch]:
        """The first validation batches.

        Args:
            number: Of batches.
            here: Whether they are made here, as loaders make them after whole epochs only.
        """
        made_here = (self.source["validate", each] for each in range(number))
        for _ in range(number):
            batch = next_batch(made_here if here or not self.validates else self.batches)
            assert not isinstance(batch, Regions), "windows of validation are not augmented"
            yield batch

    def note(self, seconds: float) -> None:
        """Note how long an update took, with the wait for its batch.

        Args:
            seconds: Since the end of the update before.
        """
        if self.watching:
            self.watched.append((self.waited, seconds - self.waited))

    def _adapt(self) -> None:
        """Change what makes the device wait, if it waits; the same on every process."""
        counted = self.watched[self.num_settling :]
        times = [statistics.fmean(wait for wait, _ in counted), statistics.median(rest for _, rest in counted)]
        waiting, updating = share(times, self.device, combine="max")
        undecided = self.place == ""
        together = waiting + updating
        waits = waiting > MARGIN * together
        moved = updating + self._seconds_on_device() if waits and undecided else math.inf
        rates = f"{self.num_loaders} loaders deliver {_rate(together)} batches/s, updates take {_rate(updating)}/s"
        if moved < (1 - MARGIN) * together:
            self.state.augmented_on = "device"
            self._tell(f"augmentation on the GPU: {rates}, with it {_rate(moved)}/s")
            self.start()
        elif waits and self._grow():
            self._tell(f"{self.num_loaders} loaders from now on: {rates}")
            self.start()
        else:
            self.watching = False
            if undecided:
                self.state.augmented_on = "loaders"
                self._tell(f"augmentation by the loaders: {rates}")

    def _seconds_on_device(self) -> float:
        """Time the augmentation of a batch on the device; infinite where that lacks memory."""
        numbers = range(self.state.iteration, self.state.iteration + 1 + TIMED)
        self.source.augments = False
        try:
            seconds = statistics.fmean([time_batch(self.source, number, self.device)[1] for number in numbers][1:])
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            seconds = math.inf  # the plan has no room for it: the loaders go on
        finally:
            self.source.augments = True
            if self.num_loaders:
                self.source.cache.clear()  # they have caches of their own
        return share([seconds], self.device, combine="max")[0]

    def _grow(self) -> bool:
        """Raise the number of loaders on all processes that can; tells whether any could."""
        number = more_loaders(self.num_loaders, self.batch_bytes) if self.may_grow else self.num_loaders
        grown, self.num_loaders = number > self.num_loaders, number
        return share([float(grown)], self.device, combine="max")[0] > 0

    def _tell(self, message: str) -> None:
        if self.source.process[0] == 0:
            logger.info(message)


def time_batch(source: WindowSource, number: int, device: torch.device) -> tuple[float, float]:
    """Time a batch of training in this process.

    Args:
        source: Makes it.
        number: Of the batch.
        device: Where its windows are augmented if the source does not do it.

    Returns:
        Seconds until the source has made it, and further ones on the device; 0 where that has nothing to do.

    Raises:
        Seg25dError: If it cannot be made.
    """
    begun = time.perf_counter()
    batch = next_batch(iter([source["train", number]]))
    made = time.perf_counter()
    if not isinstance(batch, Regions):
        return made - begun, 0.0
    source.finish_batch(batch, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return made - begun, time.perf_counter() - made


def _rate(seconds: float) -> str:
    return f"{1 / max(seconds, 1e-9):.3g}"
