"""What a run tells: log.jsonl, progress.png, and a line that says how far it is."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from seg25d.core.files import atomic_path, write_text
from seg25d.core.progress import format_seconds
from seg25d.core.workspace import FoldFolder

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_PICTURES = 30.0
SECONDS_BETWEEN_UPDATES = 0.25
SECONDS_BETWEEN_LINES = 30.0


class Monitor:
    """Writes the log of a fold and shows its progress; does nothing on processes other than the first.

    Args:
        folder: The fold's folder.
        active: Whether this process reports.
    """

    def __init__(self, folder: FoldFolder, active: bool) -> None:
        self.folder = folder
        self.active = active
        self.live = active and sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)
        self.last_line = time.monotonic()
        self.last_picture = 0.0

    def step(self, progress: float, seconds: float, loss: float, wait_share: float) -> None:
        """Say how far the run is: share done, time left, loss, share of time spent waiting for data.

        On a terminal a live line is redrawn, elsewhere a plain line is logged now and then.
        """
        now = time.monotonic()
        pause = SECONDS_BETWEEN_UPDATES if self.live else SECONDS_BETWEEN_LINES
        if not self.active or now - self.last_line < pause or progress <= 0:
            return
        self.last_line = now
        left = format_seconds(seconds / progress * (1 - progress))
        text = f"{progress:6.1%}  loss {loss:.4f}  waiting for data {wait_share:.0%}  {left} left"
        if self.live:
            sys.stderr.write("\r" + text.ljust(90))
            sys.stderr.flush()
        else:
            logger.info("%s", text)

    def epoch(self, log: list[dict[str, Any]], progress: float, final: bool) -> None:
        """Write log.jsonl and, now and then, progress.png; say how the epoch went."""
        if not self.active:
            return
        write_text(self.folder.log, "".join(json.dumps(line, allow_nan=False) + "\n" for line in log))
        last = log[-1]
        left = format_seconds(last["total_seconds"] / max(progress, 1e-6) * (1 - progress))
        if self.live:
            sys.stderr.write("\r" + " " * 90 + "\r")
        logger.info(
            "epoch %d (%.1f%%): loss %.4f, validation loss %s, %s, %s, waiting for data %.1f%%, %s left",
            last["epoch"],
            100 * progress,
            last["train_loss"],
            _number(last["validation_loss"]),
            f"of the mean {_number(last['validation_loss_of_mean'])}"
            if "validation_loss_of_mean" in last
            else f"Dice {_number(last['validation_dice'])}",
            format_seconds(last["seconds"]),
            100 * last["data_wait_share"],
            left,
        )
        if final or time.monotonic() - self.last_picture > SECONDS_BETWEEN_PICTURES:
            draw_progress(self.folder.progress, log)
            self.last_picture = time.monotonic()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def draw_progress(path: Path, log: list[dict[str, Any]]) -> None:
    """Draw losses, validation Dice and learning rate over the epochs to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    losses, dice, rate = figure.subplots(3, 1, sharex=True)
    epochs = [line["epoch"] for line in log]
    losses.plot(epochs, [line["train_loss"] for line in log], label="training")
    losses.plot(epochs, [line["validation_loss"] for line in log], label="validation")
    losses.set_ylabel("loss")
    losses.legend()
    for label in log[0]["validation_dice_per_label"]:
        dice.plot(epochs, [line["validation_dice_per_label"][label] for line in log], alpha=0.6, label=label)
    dice.plot(epochs, [line["validation_dice"] for line in log], color="black", label="mean")
    dice.set_ylabel("validation Dice")
    dice.set_ylim(0, 1)
    if len(log[0]["validation_dice_per_label"]) <= 10:
        dice.legend()
    rate.plot(epochs, [line["learning_rate"] for line in log])
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
