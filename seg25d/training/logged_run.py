"""What a logger is told of a run, and what it has to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from seg25d.core.records import Record, read_record, write_record
from seg25d.core.workspace import FoldFolder


class LoggerRuns(Record):
    """Content of `loggers.json`: under which name each logger knows the run, so that the same one goes on."""

    wandb: str | None = None
    mlflow: str | None = None


@dataclass(frozen=True)
class LoggedRun:
    """A run as it is logged."""

    folder: FoldFolder
    results: Path
    """Folder of the results of all data sets."""
    dataset_name: str
    configuration: Mapping[str, Any]
    """Settings, plan and versions, nested as in their JSON files."""

    @property
    def mlflow_database(self) -> Path:
        """The database of MLflow, one for all data sets."""
        return self.results / "mlflow.db"

    def runs(self) -> LoggerRuns:
        """The names under which loggers know the run; none before they have seen it."""
        path = self.folder.logger_runs
        return read_record(path, LoggerRuns) if path.exists() else LoggerRuns()

    def keep(self, **names: str) -> None:
        """Note the name under which a logger knows the run."""
        write_record(self.folder.logger_runs, self.runs().model_copy(update=names))


class RunLogger(Protocol):
    """Shows the curves of a run somewhere; it may raise anything, which ends the logger and not the training."""

    packages: ClassVar[tuple[str, ...]]
    """The packages that it imports, with the names that they are imported by; the extra has the logger's name."""

    def start(self, run: LoggedRun) -> int:
        """Begin, with the configuration, or go on where an earlier session stopped.

        Returns:
            Number of the first epochs that are there and stay; the others are written again.
        """
        ...

    def epoch(self, number: int, when: float, numbers: Mapping[str, float]) -> None:
        """Write an epoch.

        Args:
            number: From 1 on.
            when: Its time, in seconds since 1970; times between epochs are those spent on training.
            numbers: By name; a slash separates a name from its label.
        """
        ...

    def scores(self, last_epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the final scores of the validation cases."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...
