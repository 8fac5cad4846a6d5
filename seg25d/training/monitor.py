"""Log and progress of a run: log.jsonl, progress.png, and messages."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seg25d.core.figures import names_as_written
from seg25d.core.files import atomic_path, write_text
from seg25d.core.lengths import count
from seg25d.core.progress import ProgressDisplay, format_rate, format_seconds, seconds_left
from seg25d.core.workspace import FoldFolder
from seg25d.data.labels import Labels
from seg25d.training.loggers import Loggers
from seg25d.training.state import TrainingState

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_PICTURES = 30.0
SECONDS_BETWEEN_LINES = 30.0
MOST_LABELS_IN_A_LINE = 4
"""Labels whose Dice stands in the line of an epoch; log.jsonl has all of them."""
MOST_LABELS_IN_A_LEGEND = 10
"""Labels in the legend of progress.png; with more, it would cover the curves."""


class Monitor:
    """Writes the log of a fold and shows its progress; does nothing on processes other than the first.

    Args:
        folder: The fold's folder.
        state: Of the run.
        labels: Names of what is scored.
        active: Whether this process reports.
        loggers: Get every epoch, too; closed by whoever made them.
    """

    def __init__(
        self, folder: FoldFolder, state: TrainingState, labels: Labels, *, active: bool, loggers: Loggers
    ) -> None:
        self.folder = folder
        self.state = state
        self.labels = labels
        self.active = active
        self.display = ProgressDisplay(folder.name, SECONDS_BETWEEN_LINES)
        self.loggers = loggers
        self.last_picture = 0.0

    def step(self, progress: float) -> None:
        """Show the progress of the run: share done, loss, rate, share of time spent waiting for data, time left.

        Args:
            progress: Share of the run that is over.
        """
        if not self.active or progress <= 0:
            return
        state = self.state
        rate = format_rate(state.epoch_seconds / len(state.epoch_losses), "update")
        waiting = state.epoch_wait / state.epoch_seconds
        left = format_seconds(seconds_left(progress, state.seconds))
        done = f"{progress:.1%}, loss {state.epoch_losses[-1]:.4f}, {rate}"
        self.display.show(progress, f"{done}, data wait {waiting:.0%}, {left} left")

    def epoch(self) -> None:
        """Write log.jsonl, here and to the loggers; log the results of the last epoch."""
        if not self.active:
            return
        log = self.state.log
        write_text(self.folder.log, "".join(json.dumps(line, allow_nan=False) + "\n" for line in log))
        logger.info("%s, %s", self.folder.name, _describe(log[-1], self.labels))
        self.loggers.epochs(log)

    def draw(self, final: bool) -> None:
        """Draw progress.png, now and then; a picture that cannot be drawn is a warning.

        Args:
            final: Whether the run is over.
        """
        if self.active and (final or time.monotonic() - self.last_picture > SECONDS_BETWEEN_PICTURES):
            with harmless_picture(self.folder.progress):
                draw_progress(self.folder.progress, self.state.log, self.labels)
            self.last_picture = time.monotonic()

    def over_before(self, *, early: bool) -> None:
        """Say that there was nothing to do, and what had been done.

        Args:
            early: Whether `early_stopping` had ended the run.
        """
        if self.active:
            state = self.state
            logger.info(
                "%s is already trained: %s, %s, %s of training%s; --restart trains it anew",
                *(self.folder.name, count(state.iteration, "update"), count(len(state.log), "epoch")),
                format_seconds(state.seconds),
                ", until the validation loss fell no more (early_stopping)" if early else "",
            )

    def close(self) -> None:
        """Clear the terminal and log all epochs, also for a run that had finished before."""
        self.display.close()
        self.loggers.epochs(self.state.log)


@contextmanager
def harmless_picture(path: Path) -> Iterator[None]:
    """Draw a picture inside of this: where that fails, for whatever reason, a warning says so and the training goes on.

    Args:
        path: Of the picture.
    """
    try:
        yield
    except Exception as error:
        logger.warning(
            "%s cannot be drawn (%s: %s); nothing of the training depends on it",
            *(path, type(error).__name__, (str(error).splitlines() or [""])[0]),
        )


def _describe(line: dict[str, Any], labels: Labels) -> str:
    """Describe a line of log.jsonl in words."""
    score = (
        f"of the mean {_number(line['validation_loss_of_mean'])}"
        if "validation_loss_of_mean" in line
        else f"Dice {_number(line['validation_dice'])}{_dice_of_labels(line['validation_dice_per_label'], labels)}"
    )
    return (
        f"epoch {line['epoch']} ({line['progress']:.1%}): loss {line['train_loss']:.4f}, "
        f"validation loss {_number(line['validation_loss'])}, {score}, {format_seconds(line['seconds'])}, "
        f"{format_rate(line['seconds_per_iteration'], 'update')}, waiting for data {line['data_wait_share']:.1%}, "
        f"{format_seconds(line['seconds_left'])} left"
    )


def _dice_of_labels(dice: dict[str, float | None], labels: Labels) -> str:
    """Dice of each label by its name, in brackets; nothing where there is one label, or too many for a line."""
    if not 1 < len(dice) <= MOST_LABELS_IN_A_LINE:
        return ""
    return f" ({', '.join(f'{labels.name_of(key)} {_number(value)}' for key, value in dice.items())})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def draw_progress(path: Path, log: list[dict[str, Any]], labels: Labels) -> None:
    """Draw losses, validation Dice and learning rate over the epochs to a PNG; labels by their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

    with names_as_written():
        figure = Figure(figsize=(9, 8))  # no layout engine: it would draw all twice, and training waits
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.11, right=0.98, bottom=0.07, top=0.96, hspace=0.08)
        losses, dice, rate = figure.subplots(3, 1, sharex=True)
        epochs = [line["epoch"] for line in log]
        losses.plot(epochs, [line["train_loss"] for line in log], label="training")
        losses.plot(epochs, [line["validation_loss"] for line in log], label="validation")
        losses.set_ylabel("loss")
        losses.legend()
        names = {key: labels.name_of(key) for key in log[0]["validation_dice_per_label"]}
        for key in names:
            dice.plot(epochs, [line["validation_dice_per_label"][key] for line in log], alpha=0.6)
        dice.plot(epochs, [line["validation_dice"] for line in log], color="black")
        dice.set_ylabel("validation Dice")
        dice.set_ylim(0, 1)
        if len(names) <= MOST_LABELS_IN_A_LEGEND:
            dice.legend(dice.lines, [*names.values(), "mean"])
        rate.plot(epochs, [line["learning_rate"] for line in log])
        rate.set_ylabel("learning rate")
        rate.set_xlabel("epoch")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=100)
