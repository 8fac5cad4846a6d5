"""The loggers by name; imports nothing heavy, as help texts list them."""

from typing import Literal, NamedTuple, TypeAlias

LoggerName: TypeAlias = Literal["tensorboard", "wandb", "mlflow"]


class LoggerWords(NamedTuple):
    """A logger in the words of a help text."""

    title: str
    place: str
    """Where it writes to."""


LOGGER_NAMES: dict[LoggerName, LoggerWords] = {
    "tensorboard": LoggerWords("TensorBoard", "tensorboard/ of the fold"),
    "wandb": LoggerWords("Weights & Biases", "wandb/ of the fold, offline unless WANDB_MODE says otherwise"),
    "mlflow": LoggerWords("MLflow", "results/mlflow.db, unless MLFLOW_TRACKING_URI says otherwise"),
}
"""Names of loggers, which are those of option and extra, too; `training/loggers.py` has the other part."""
