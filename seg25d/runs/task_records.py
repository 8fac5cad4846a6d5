"""What is kept of the work of many tasks: what each was and how it ended, and decisions with their reasons."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from seg25d.core.names import FileName
from seg25d.core.records import Record
from seg25d.core.workspace import Workspace

State = Literal["waiting", "running", "done", "failed", "left out"]


class TaskRecord(Record):
    """Content of `tasks/NAME.json`: written by the process that does a task, when it begins and when it ends."""

    schema_version: Literal[1] = 1
    words: tuple[str, ...]
    """The command, without `seg25d`."""
    place: str
    """Machine and process."""
    begun: float
    """Seconds since 1970."""
    seconds: float | None = None
    """How long it took; None while it is done."""
    status: int | None = None
    """Of the command, or minus the number of the signal that ended it; None while it is done."""
    message: str = ""
    """The error, or why it ended."""


class TaskLine(Record):
    """A task in the record of all."""

    name: FileName
    words: tuple[str, ...]
    needs: tuple[FileName, ...] = ()
    state: State
    expected_seconds: float | None = None
    memory_gb: float | None = None
    seconds: float | None = None
    place: str = ""
    message: str = ""


class Decision(Record):
    """A choice that was made in the course of a run."""

    what: str
    """In one sentence."""
    reason: str


class ComparedRun(Record):
    """A configuration in a round of comparison."""

    name: str
    """Of the run's folder."""
    seconds: float
    """Time of each of its trainings so far."""
    overhead_seconds: float = Field(ge=0)
    """Time of starting, predicting and scoring the fold."""
    dice: float
    """Mean over the labels and the validation cases of the fold."""
    p_value: float | None
    """Of the paired test against the best of the round; None for that one, and where no case differs."""
    kept: bool


class ComparisonRound(Record):
    """A round of comparison on one fold, whose trainings were continued afterwards."""

    fold: int
    num_cases: int
    runs: tuple[ComparedRun, ...]


class TasksRecord(Record):
    """What is kept of all tasks of a command; of `predict --on` it is the content of `tasks/all.json`."""

    schema_version: Literal[1] = 1
    arguments: dict[str, Any]
    on: str
    """What runs the tasks."""
    spent_seconds: float = Field(default=0.0, ge=0)
    """In all calls of the command so far."""
    tasks: tuple[TaskLine, ...] = ()
    decisions: tuple[Decision, ...] = ()


class RunRecord(TasksRecord):
    """Content of `run.json`: what `seg25d run` keeps in the results of a data set."""

    dataset_name: str
    rounds: tuple[ComparisonRound, ...] = ()
    lengths: dict[str, float] = Field(default_factory=dict)
    """Seconds that were decided, by what they are for, such as trainings: a call that goes on keeps them."""
    predict: str = ""
    """The command that predicts with the result; empty before there is one."""
    report: str = ""
    """The page."""


def run_record(workspace: Workspace, dataset_name: str) -> Path:
    """The file of the record."""
    return workspace.results / dataset_name / "run.json"


def tasks_folder(workspace: Workspace, dataset_name: str) -> Path:
    """The folder of records and logs of tasks."""
    return workspace.results / dataset_name / "tasks"
