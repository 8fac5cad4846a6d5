"""Training of one fold: one loop, from top to bottom."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seg25d.core.device import Execution, memory_of, peak_memory_gb
from seg25d.core.errors import ModelError, Seg25dError
from seg25d.core.files import copy_file
from seg25d.core.lengths import num_epochs_to_best
from seg25d.core.progress import seconds_left
from seg25d.core.workspace import FoldFolder
from seg25d.data.dataset import Split
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.model_size import check_memory
from seg25d.preprocessing.store import Store
from seg25d.representations.epoch_aware import EpochAware
from seg25d.training.checkpoint import choose_execution_to_go_on, load_checkpoint, save_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.loading import loaders_named
from seg25d.training.loggers import Loggers
from seg25d.training.losses import LOSSES
from seg25d.training.monitor import Monitor, harmless_picture
from seg25d.training.processes import join_processes, local_device, share, spread
from seg25d.training.reconstruction import ReconstructionLoss, draw_reconstruction, validate_reconstruction
from seg25d.training.sampling import Batch, WindowSource
from seg25d.training.schedules import Moment, is_over_early, learning_rate_factor
from seg25d.training.signals import stop_signals
from seg25d.training.small_windows import SmallWindows
from seg25d.training.state import LEARNT_ENCODER, NEW, TrainingState, new_state
from seg25d.training.supply import Supply
from seg25d.training.update import make_update
from seg25d.training.validation import validate

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_CHECKPOINTS = 120.0
"""Seconds between checkpoints within an epoch, so that a power cut costs two minutes at most."""
LONGEST_EPOCH = 1 / 20
"""Share of a time budget after which an epoch ends even if it is incomplete."""
VALIDATION_SHARE = 0.1
"""Maximum share of a run that scoring the validation windows after each epoch may take."""
NUM_PICTURES = 10
"""Number of pictures of restored windows, over a run of pretraining."""
MOST_WITHOUT_GRADIENT = 20
"""Number of successive updates with a gradient of exactly zero after which a run ends: it would never learn again."""


@dataclass(frozen=True)
class FoldJob:
    """The training of one fold: its settings, data and folder."""

    folder: FoldFolder
    store: Store
    split: Split
    config: TrainingConfig
    header: ModelHeader
    """Header of the model files: plan, labels and channels."""
    device: str | None = None
    num_workers: int | None = None
    """Processes that prepare batches; None chooses, 0 prepares them in this process."""
    model: nn.Module | None = None
    """Initial model; None: the model of the plan with fresh weights."""
    learnt: frozenset[str] = frozenset()
    """Names of its pretrained weights, see `PretrainedConfig`."""
    loggers: Loggers = field(default_factory=Loggers)
    """Where the log is written, too; closed by whoever asks for the training, after the scores."""


def _go_on(state: TrainingState, job: FoldJob, checkpoint: dict[str, Any]) -> None:
    """Load the state of the fold's checkpoint."""
    try:
        state.from_checkpoint(checkpoint)
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{job.folder.checkpoint} does not fit this network and optimizer ({reason}), as after "
            "an update of seg25d; finish the fold with the version that began it, or start over with --restart"
        ) from None


def mixed_seed(*numbers: int) -> int:
    """Compute one seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def train_fold(job: FoldJob, begin: Callable[[], None] = lambda: None) -> bool:
    """Train a fold to its end, from its checkpoint if it has one.

    Leaves `model_final.safetensors`, `model_best.safetensors`, `log.jsonl`, `progress.png` and the checkpoint in the
    fold's folder. A checkpoint is written after every epoch, every two minutes, and on SIGTERM and SIGINT.
    The caller holds the lock of the folder, and leaves the group of processes when all is done.

    Args:
        job: The training.
        begin: Called by the first process before anything is written, when all that is there has been found to fit.

    Returns:
        Whether this process is the first (or only) one, which goes on to validate.

    Raises:
        ModelError: If the checkpoint is damaged.
        InputError: If the device has too little memory.
        KeyboardInterrupt: On SIGTERM or SIGINT, after the checkpoint was written.
    """
    checkpoint = load_checkpoint(job.folder.checkpoint) if job.folder.checkpoint.exists() else None
    execution = choose_execution_to_go_on(local_device(job.device), job.config.precision, checkpoint)
    rank, num_processes = join_processes(execution.device)
    torch.manual_seed(job.config.seed)
    header, on_cpu = job.header, execution.device.type == "cpu"
    if job.model is None:
        channels = len(header.description.channel_names)
        check_memory(job.folder.name, header.plan, channels, header.num_outputs, on_cpu=on_cpu)
    model = header.build_model() if job.model is None else copy.deepcopy(job.model)
    state = new_state(model, job.config, execution, job.learnt)
    if checkpoint is not None:
        _go_on(state, job, checkpoint)
    if rank == 0:
        begin()
    state.computed_in = str(execution)
    run = _Run(job, state, execution, rank, num_processes)
    with closing(run.monitor):
        if run.is_over() and state.finished and job.folder.model_final.exists():
            run.monitor.over_before(early=is_over_early(job.config, run.validation_losses()))
        else:
            if checkpoint is not None:
                logger.info("%s: going on at iteration %d", job.folder.name, state.iteration)
            with memory_of(execution.device, "for this plan", "plan with a smaller --gpu-memory-gb"), loaders_named():
                run.to_the_end()
    return rank == 0


class _Run:
    """The training loop and its state."""

    def __init__(self, job: FoldJob, state: TrainingState, execution: Execution, rank: int, num_processes: int) -> None:
        self.job, self.state, self.execution = job, state, execution
        self.config, self.labels = job.config, job.header.description.labels
        self.first = rank == 0
        cases = {"train": job.split.train, "validate": job.split.val}
        self.source = WindowSource(job.store, job.header.plan, self.config, cases, (rank, num_processes))
        self.supply = Supply(self.source, state, execution, job.num_workers)
        plan = job.header.plan
        self.small_windows = SmallWindows(self.config, plan, job.store, (*job.split.train, *job.split.val))
        self.batch_voxels = plan.batch_size * math.prod(plan.window)
        if not state.epoch_voxels:
            # In an epoch that an older version began.
            state.epoch_voxels = len(state.epoch_losses) * self.batch_voxels
        self.last_tick = 0.0
        self.without_gradient = 0
        self.loss_function: nn.Module = (
            LOSSES[self.config.loss](self.labels, self.config.dice_smooth)
            if self.config.pretext is None
            else ReconstructionLoss()
        )
        self.monitor = Monitor(job.folder, state, self.labels, active=self.first, loggers=job.loggers)

    def to_the_end(self) -> None:
        """Train until the run is over."""
        state, config = self.state, self.config
        model = spread(state.model)
        self.supply.start()
        self.job.loggers.start()
        last_saved = time.monotonic()
        self.last_tick = time.perf_counter()
        state.finished = False
        self._start_epoch()
        with stop_signals() as stopped, closing(self.supply):
            while not self.is_over(progress := self.progress()):
                images, target = self.supply.training_batch()
                loss = self._step(model, images, target, progress)
                state.epoch_losses.append(loss)
                state.iteration += 1
                state.update_average(config.weight_averaging)
                state.epoch_seconds += (seconds := self._count_seconds())
                self.supply.note(seconds)
                self.monitor.step(progress)
                stop, save, end = self._ask_all_processes(
                    bool(stopped), time.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS, self._epoch_is_over()
                )
                if end:
                    self._end_epoch()
                elif stop or save:
                    self._save()
                else:
                    continue
                last_saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
            if state.epoch_losses:
                self._end_epoch(whole=False)
        # Also by the command after one that was killed while it drew.
        self.monitor.draw(final=True)
        self._finish()

    def is_over(self, progress: float | None = None) -> bool:
        """Whether the run has reached its length, or has not improved for long enough."""
        progress = self.progress() if progress is None else progress
        return progress >= 1 or is_over_early(self.config, self.validation_losses())

    def validation_losses(self) -> list[float | None]:
        """Validation loss of each epoch so far, the same on every process."""
        return [line["validation_loss"] for line in self.state.log]

    def progress(self) -> float:
        """Share of the run that is over, the same on every process."""
        if self.config.time_budget_seconds is None:
            return self.state.iteration / self.config.num_iterations()
        share_of_time = self.state.seconds / self.config.time_budget_seconds
        return share([share_of_time], self.execution.device, combine="first")[0]

    def _count_seconds(self) -> float:
        """Add all time since the last call to that of the run, and return it."""
        now = time.perf_counter()
        seconds = now - self.last_tick
        self.last_tick = now
        self.state.seconds += seconds
        return seconds

    def _start_epoch(self) -> None:
        """Tell the model its epoch and the progress of the run at the start of that epoch."""
        state, budget = self.state, self.config.time_budget_seconds
        if not isinstance(state.model, EpochAware):
            return
        if budget is None:
            begun = (state.iteration - len(state.epoch_losses)) / self.config.num_iterations()
        else:
            begun = share([(state.seconds - state.epoch_seconds) / budget], self.execution.device, combine="first")[0]
        state.model.start_epoch(len(state.log) + 1, self.config.seed, min(1.0, begun))

    def _epoch_is_over(self) -> bool:
        """Whether the epoch ends here; validation must not take too much of the run."""
        state, full, budget = self.state, self.config.iterations_per_epoch, self.config.time_budget_seconds
        if budget is None:
            return state.iteration % full == 0
        updates = self._updates_on_whole_windows()
        trained = updates * self.job.header.plan.batch_size
        scoring_share = self.job.header.plan.scoring_share
        worthwhile = self.source.num_validation_windows() * scoring_share <= VALIDATION_SHARE * trained
        return updates >= full or (worthwhile and state.epoch_seconds > budget * LONGEST_EPOCH)

    def _updates_on_whole_windows(self) -> float:
        """Convert this epoch's updates to a number of updates on whole windows with as many voxels."""
        return self.state.epoch_voxels / self.batch_voxels

    def _num_validation_batches(self) -> int:
        """Choose all batches, or with a time budget as many as its share allows, as an update may take minutes."""
        number, budget = self.source.num_validation_batches(), self.config.time_budget_seconds
        if budget is None:
            return number
        seconds = self.state.epoch_seconds / self._updates_on_whole_windows()
        seconds *= self.job.header.plan.scoring_share
        most = share([VALIDATION_SHARE * budget / seconds], self.execution.device, combine="first")[0]
        return min(number, max(1, int(most)))

    def _step(self, model: nn.Module, images: Tensor, target: Tensor, progress: float) -> float:
        """Make one update and return the loss before it."""
        state, config = self.state, self.config
        factor = learning_rate_factor(config, Moment(progress, self.validation_losses()))
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor * self._factor_for_role(group.get("role", NEW))
        model.train()
        # Randomness in a network (dropout) is a function of seed, update and process, so that a run can be continued.
        torch.manual_seed(mixed_seed(config.seed, state.iteration, self.source.process[0]))
        images, target = self.small_windows.cut(images, target, progress, state.iteration, self.source.process)
        state.epoch_voxels += math.prod(images.shape[2:]) * self.job.header.plan.batch_size
        batch = images, target
        value, norm = make_update(state, model, batch, self.loss_function, self.execution, config.gradient_clip)
        self._check_gradient(norm)
        if not math.isfinite(value):
            raise Seg25dError(
                f"the loss became {value} at iteration {state.iteration}; lower the learning rate, for example "
                f"--set learning_rate={config.learning_rate / 3:.2g}, and use --restart"
            )
        return value

    def _factor_for_role(self, role: str) -> float:
        """The factor on the learning rate of weights by their role, see `state.new_state`."""
        pretrained = self.config.pretrained
        if pretrained is None or role == NEW:
            return 1.0
        frozen = role == LEARNT_ENCODER and len(self.state.log) < pretrained.frozen_epochs
        return 0.0 if frozen else pretrained.learning_rate_factor

    def _check_gradient(self, norm: float) -> None:
        self.without_gradient = 0 if norm else self.without_gradient + 1
        if self.without_gradient == MOST_WITHOUT_GRADIENT:
            raise Seg25dError(
                f"the gradient was zero in the last {MOST_WITHOUT_GRADIENT} updates up to {self.state.iteration}: the "
                "network gives the same scores whatever it sees and cannot learn any more; lower the learning rate or "
                f"(for adamw, adam and sgd) clip gradients, for example --set "
                f"learning_rate={self.config.learning_rate / 10:.2g} or --set gradient_clip=0.001, and use --restart"
            )

    def _end_epoch(self, *, whole: bool = True) -> None:
        """Validate, log, keep the best, save."""
        state = self.state
        held_out = self.supply.validation_batches(self._num_validation_batches(), here=not whole)
        loss, dice, further = self._validate(held_out)
        seconds = self._count_seconds()
        known = [value for value in dice.values() if value is not None]
        mean = sum(known) / len(known) if known else None
        progress = min(self.progress(), 1.0)
        state.log.append(
            {
                "epoch": len(state.log) + 1,
                "iteration": state.iteration,
                "progress": progress,
                "train_loss": sum(state.epoch_losses) / len(state.epoch_losses),
                "validation_loss": loss if math.isfinite(loss) else None,
                "validation_dice": mean,
                "validation_dice_per_label": dice,
                "learning_rate": max(group["lr"] for group in state.optimizer.param_groups),
                "seconds": state.epoch_seconds + seconds,
                "total_seconds": state.seconds,
                "seconds_left": seconds_left(progress, state.seconds),
                "seconds_per_iteration": state.epoch_seconds / len(state.epoch_losses),
                "voxels_per_second": state.epoch_voxels / state.epoch_seconds,
                "data_wait_share": state.epoch_wait / state.epoch_seconds,
                "peak_memory_gb": peak_memory_gb(self.execution.device),
                **further,
            }
        )
        state.epoch_losses, state.epoch_voxels, state.epoch_seconds, state.epoch_wait = [], 0, 0.0, 0.0
        self._start_epoch()
        if self._is_best(mean) and self.first:
            save_model(self.job.folder.model_best, state.averaged.state_dict(), self.job.header)
        self.monitor.epoch()
        self._save()
        if not self.is_over(progress):
            self.monitor.draw(final=False)

    def _validate(self, batches: Iterator[Batch]) -> tuple[float, dict[str, float | None], dict[str, float]]:
        """Compute validation loss, Dice per label, and other values for the log; in pretraining draw a picture."""
        model = self.state.averaged
        if self.config.pretext is None:
            threshold = self.job.header.threshold
            return *validate(model, batches, self.loss_function, self.labels, self.execution, threshold), {}
        restored = validate_reconstruction(model, batches, self.execution)
        share_done = math.floor(NUM_PICTURES * min(self.progress(), 1.0)) / NUM_PICTURES
        path = self.job.folder.reconstruction(round(100 * share_done))
        # The current end of the run counts: it may have been extended since the last picture.
        if self.first and restored.example is not None and (share_done == 1 or not path.exists()):
            axis = self.job.header.plan.representation.stacking_axis or 0
            with harmless_picture(path):
                draw_reconstruction(path, restored.example, axis)
        return restored.loss, {}, {"validation_loss_of_mean": restored.loss_of_mean}

    def _is_best(self, dice: float | None) -> bool:
        """Whether the last epoch is the best so far, by validation loss with `restore_best`, else by Dice."""
        if self.config.restore_best:
            losses = self.validation_losses()
            return num_epochs_to_best(losses) == len(losses)
        if dice is None or dice <= self.state.best_dice:
            return False
        self.state.best_dice = dice
        return True

    def _save(self) -> None:
        if self.first:
            save_checkpoint(self.job.folder.checkpoint, self.state.to_checkpoint())

    def _finish(self) -> None:
        self.state.finished = True
        losses = self.validation_losses()
        if is_over_early(self.config, losses):
            name, best = self.job.folder.name, num_epochs_to_best(losses)
            logger.info("%s: ended early after epoch %d; the best was epoch %d", name, len(losses), best)
        if self.first:
            folder, weights = self.job.folder, self.state.averaged.state_dict()
            if not folder.model_best.exists():
                # No validation window had any foreground.
                save_model(folder.model_best, weights, self.job.header)
            if self.config.restore_best:
                copy_file(folder.model_best, folder.model_final)
            else:
                save_model(folder.model_final, weights, self.job.header)
        self._save()

    def _ask_all_processes(self, *here: bool) -> list[bool]:
        """Tell for each question whether any process answers yes."""
        return [number > 0 for number in share([float(each) for each in here], self.execution.device, combine="max")]
