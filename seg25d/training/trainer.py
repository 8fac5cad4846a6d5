"""Training of one fold: one loop, from top to bottom."""

import logging
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import Seg25dError
from seg25d.core.files import folder_lock, remove_leftovers
from seg25d.core.parallel import available_cores
from seg25d.core.workspace import FoldFolder
from seg25d.data.dataset import Split
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.preprocessing.store import Store
from seg25d.training.checkpoint import load_checkpoint, save_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.monitor import Monitor
from seg25d.training.processes import join_processes, leave_processes, local_device, share, spread
from seg25d.training.sampling import Batch, WindowSource, batch_keys
from seg25d.training.schedules import learning_rate_factor
from seg25d.training.state import TrainingState, new_state
from seg25d.training.validation import validate

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_CHECKPOINTS = 120.0
"""Long epochs are saved in between, so that a power cut costs two minutes at most."""
MAX_LOADING_PROCESSES = 8


@dataclass(frozen=True)
class FoldJob:
    """What is to be trained, and where it goes."""

    folder: FoldFolder
    store: Store
    split: Split
    config: TrainingConfig
    header: ModelHeader
    """Goes into the model files; says plan, labels and channels."""
    device: str | None = None
    num_workers: int | None = None
    """Processes that prepare batches; None chooses, 0 prepares them in this process."""


def clear_fold(folder: FoldFolder) -> None:
    """Remove what was trained, the checkpoint first: from then on the fold has not begun."""
    for path in (folder.checkpoint, folder.model_final, folder.model_best, folder.log, folder.progress, folder.config):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder.validation, ignore_errors=True)


def train_fold(job: FoldJob) -> bool:
    """Train a fold to its end, from its checkpoint if it has one.

    Leaves `model_final.safetensors`, `model_best.safetensors`, `log.jsonl`, `progress.png` and the checkpoint in the
    fold's folder. A checkpoint is written after every epoch, every two minutes, and on SIGTERM and SIGINT.

    Returns:
        Whether this process is the first (or only) one, which goes on to validate.

    Raises:
        BusyError: If another process trains this fold.
        ModelError: If the checkpoint is damaged.
        KeyboardInterrupt: On SIGTERM or SIGINT, after the checkpoint was written.
    """
    execution = choose_execution(local_device(job.device), job.config.precision)
    rank, num_processes = join_processes(execution.device)
    with folder_lock(job.folder.root, "training") if rank == 0 else nullcontext():
        remove_leftovers(job.folder.root)
        torch.manual_seed(job.config.seed)
        description, plan = job.header.description, job.header.plan
        model = plan.build_model(len(description.channel_names), description.labels.num_outputs)
        state = new_state(model, job.config, execution)
        if job.folder.checkpoint.exists():
            state.from_checkpoint(load_checkpoint(job.folder.checkpoint))
            logger.info("going on at iteration %d", state.iteration)
        run = _Run(job, state, execution, rank, num_processes)
        if run.progress() < 1 or not state.finished or not job.folder.model_final.exists():
            run.to_the_end()
    leave_processes()
    return rank == 0


class _Run:
    """The loop and what it needs at every turn."""

    def __init__(self, job: FoldJob, state: TrainingState, execution: Execution, rank: int, num_processes: int) -> None:
        self.job, self.state, self.execution = job, state, execution
        self.config, self.labels = job.config, job.header.description.labels
        self.first = rank == 0
        cases = {"train": job.split.train, "validate": job.split.val}
        self.source = WindowSource(job.store, job.header.plan, self.config, cases, (rank, num_processes))
        self.loss_function = DiceCrossEntropy(self.labels)
        self.monitor = Monitor(job.folder, self.first)

    def to_the_end(self) -> None:
        """Train until the run is over."""
        state, config = self.state, self.config
        model = spread(state.model)
        batches = iter(self._loader())
        last_saved = time.monotonic()
        state.finished = False
        with stop_signals() as stopped:
            while (progress := self.progress()) < 1:
                begun = time.perf_counter()
                images, target = next(batches)
                arrived = time.perf_counter()
                loss = self._step(model, images, target, progress)
                state.epoch_losses.append(loss)
                state.iteration += 1
                state.update_average(config.weight_averaging)
                now = time.perf_counter()
                state.epoch_wait += arrived - begun
                state.epoch_seconds += now - begun
                state.seconds += now - begun
                self.monitor.step(progress, state.seconds, loss, state.epoch_wait / state.epoch_seconds)
                if state.iteration % config.iterations_per_epoch == 0:
                    self._end_epoch(batches)
                    last_saved = time.monotonic()
                elif self._agreed(bool(stopped) or time.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS):
                    self._save()
                    last_saved = time.monotonic()
                if self._agreed(bool(stopped)):
                    raise KeyboardInterrupt
            if state.epoch_losses:
                self._end_epoch(self.source[("validate", n)] for n in range(self.source.num_validation_batches()))
        self._finish()

    def progress(self) -> float:
        """Share of the run that is over, the same on every process."""
        if self.config.time_budget_seconds is None:
            return self.state.iteration / self.config.num_iterations()
        share_of_time = self.state.seconds / self.config.time_budget_seconds
        return share([share_of_time], self.execution.device, combine="first")[0]

    def _loader(self) -> DataLoader[Batch]:
        keys = batch_keys(self.state.iteration, self.config.iterations_per_epoch, self.source.num_validation_batches())
        num_workers = self.job.num_workers
        if num_workers is None:
            spare = available_cores() - 1
            num_workers = min(spare, 1 if self.execution.device.type == "cpu" else MAX_LOADING_PROCESSES)
        return DataLoader(
            self.source,
            batch_size=None,
            sampler=keys,
            num_workers=num_workers,
            prefetch_factor=3 if num_workers else None,
            pin_memory=self.execution.device.type == "cuda",
            worker_init_fn=_leave_signals_to_parent,
        )

    def _step(self, model: nn.Module, images: Tensor, target: Tensor, progress: float) -> float:
        """One update; gives the loss before it."""
        state, config, device = self.state, self.config, self.execution.device
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(config.schedule, progress, config.warmup)
        model.train()
        images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
        with self.execution.autocast():
            outputs = model(images)
        loss = self.loss_function(outputs, target)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), config.gradient_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Seg25dError(
                f"the loss became {value} at iteration {state.iteration}; "
                "lower the learning rate, for example --set learning_rate=0.001, and use --restart"
            )
        return value

    def _end_epoch(self, batches: Iterator[Batch]) -> None:
        """Validate, log, keep the best, save."""
        state = self.state
        begun = time.perf_counter()
        held_out = (next(batches) for _ in range(self.source.num_validation_batches()))
        loss, dice = validate(state.averaged, held_out, self.loss_function, self.labels, self.execution)
        seconds = time.perf_counter() - begun
        state.seconds += seconds
        known = [value for value in dice.values() if value is not None]
        mean = sum(known) / len(known) if known else None
        voxels = len(state.epoch_losses) * self.job.header.plan.batch_size * math.prod(self.job.header.plan.window)
        state.log.append(
            {
                "epoch": len(state.log) + 1,
                "iteration": state.iteration,
                "train_loss": sum(state.epoch_losses) / len(state.epoch_losses),
                "validation_loss": loss,
                "validation_dice": mean,
                "validation_dice_per_label": dice,
                "learning_rate": state.optimizer.param_groups[0]["lr"],
                "seconds": state.epoch_seconds + seconds,
                "total_seconds": state.seconds,
                "seconds_per_iteration": state.epoch_seconds / len(state.epoch_losses),
                "voxels_per_second": voxels / state.epoch_seconds,
                "data_wait_share": state.epoch_wait / state.epoch_seconds,
                "peak_memory_gb": peak_memory_gb(self.execution.device),
            }
        )
        state.epoch_losses, state.epoch_seconds, state.epoch_wait = [], 0.0, 0.0
        if mean is not None and mean > state.best_dice:
            state.best_dice = mean
            if self.first:
                save_model(self.job.folder.model_best, state.averaged.state_dict(), self.job.header)
        progress = self.progress()
        if self.first:
            self.monitor.epoch(state.log, min(progress, 1.0), final=progress >= 1)
        self._save()

    def _save(self) -> None:
        if self.first:
            save_checkpoint(self.job.folder.checkpoint, self.state.to_checkpoint())

    def _finish(self) -> None:
        self.state.finished = True
        if self.first:
            save_model(self.job.folder.model_final, self.state.averaged.state_dict(), self.job.header)
        self._save()

    def _agreed(self, here: bool) -> bool:
        """Whether any process says yes."""
        return share([float(here)], self.execution.device, combine="max")[0] > 0


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes; the loaders live on until the state is saved."""
    del worker
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them, so that the state can be saved first.

    Yields:
        The signals received so far. A second one has its usual effect.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[signal.Signals, Any] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])
        logger.info("stopping after this update; the same command goes on")

    for each in (signal.SIGTERM, signal.SIGINT):
        previous[each] = signal.signal(each, receive)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far, in GiB: on the GPU where there is one, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource  # noqa: PLC0415 - not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
