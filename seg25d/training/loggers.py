"""The numbers of log.jsonl as curves elsewhere, by loggers that are extras: TensorBoard, Weights & Biases, MLflow."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from seg25d.core.errors import InputError
from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary
from seg25d.training.logged_run import LoggedRun, RunLogger
from seg25d.training.logger_names import LoggerName
from seg25d.training.mlflow_logger import MlflowLogger
from seg25d.training.tensorboard_logger import TensorBoardLogger
from seg25d.training.wandb_logger import WandbLogger

logger = logging.getLogger(__name__)
LOGGERS: dict[LoggerName, Callable[[], RunLogger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}
"""Loggers by their name, which is that of option and extra, too."""


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Check that curves can be written.

    Raises:
        InputError: If a package is not installed.
    """
    for name in names:
        if missing := [package for package in LOGGERS[name]().packages if find_spec(package) is None]:
            raise InputError(
                f"--{name} needs {', '.join(missing)}, which is not installed; run `pip install 'seg25d[{name}]'`, or "
                "leave the option out"
            )


class Loggers:
    """Writes every epoch of a run once to every logger, including those before an interruption, and its final scores.

    A logger that fails, for whatever reason, is left out from then on with a warning: no training depends on it.

    Args:
        names: Of the loggers; none on processes other than the first.
        run: What is logged; None where there are no loggers.
    """

    def __init__(self, names: Sequence[LoggerName] = (), run: LoggedRun | None = None) -> None:
        self.run = run
        self.waiting = tuple(dict.fromkeys(names))
        """Loggers that have not begun."""
        self.active: dict[str, RunLogger] = {}
        self.num_written: dict[str, int] = {}
        self.begun: float | None = None
        self.last_epoch = 0

    def start(self) -> None:
        """Begin, before the training's time is counted, as some take many seconds; later calls do nothing."""
        if not self.waiting:
            return
        assert self.run is not None, "who asks for loggers says what is logged"
        run = self.run
        self.active, self.waiting = {name: LOGGERS[name]() for name in self.waiting}, ()
        self._safely(lambda name, each: self.num_written.update({name: each.start(run)}))

    def epochs(self, log: Sequence[Mapping[str, Any]]) -> None:
        """Write the epochs that have not been written yet.

        Args:
            log: The lines of log.jsonl so far.
        """
        if len(log) == self.last_epoch:
            return
        self.start()
        if not self.active:
            return
        if self.begun is None:
            self.begun = time.time() - log[-1]["total_seconds"]
        begun = self.begun
        self._safely(lambda name, each: self._write(name, each, log, begun))
        self.last_epoch = len(log)

    def scores(self, summary: Summary) -> None:
        """Write the final scores, unless there are no curves that they could belong to."""
        numbers = final_scores(summary)
        self._safely(lambda _, each: each.scores(self.last_epoch, numbers))

    def close(self) -> None:
        """Finish writing."""
        self._safely(lambda _, each: each.close())
        self.active = {}

    def _write(self, name: str, each: RunLogger, log: Sequence[Mapping[str, Any]], begun: float) -> None:
        for line in log[self.num_written[name] :]:
            # Relative times are those spent on training.
            each.epoch(line["epoch"], begun + line["total_seconds"], scalars(line))
        self.num_written[name] = max(self.num_written[name], len(log))

    def _safely(self, call: Callable[[str, RunLogger], None]) -> None:
        """Call something for each logger; those that fail are left out from then on."""
        for name, each in list(self.active.items()):
            try:
                call(name, each)
            except Exception as error:
                del self.active[name]
                logger.warning(
                    "--%s failed and gets nothing more of %s (%s: %s); nothing of the training depends on it",
                    *(name, self.run and self.run.folder.name, type(error).__name__),
                    (str(error).splitlines() or [""])[0],
                )


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Collect the numbers of a line of log.jsonl, except the epoch; Dice as `validation_dice_per_label/LABEL`.

    Null values are left out.
    """
    numbers: dict[str, Any] = {}
    for key, value in line.items():
        numbers |= {f"{key}/{part}": each for part, each in value.items()} if isinstance(value, dict) else {key: value}
    return {name: value for name, value in numbers.items() if value is not None and name != "epoch"}


def final_scores(summary: Summary) -> dict[str, float]:
    """Name the means of summary.json like the numbers of the log: `final_dice`, `final_dice_per_label/LABEL`."""
    numbers: dict[str, Any] = {}
    for name in Scores.model_fields:
        numbers[f"final_{name}"] = getattr(summary.foreground_mean, name)
        numbers[f"final_{name}_per_label"] = {label: getattr(mean, name) for label, mean in summary.mean.items()}
    return scalars(numbers)
