"""An executor of tasks of a made-up program in a folder of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from seg25d.orchestration.engine import Engine
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.perform import perform
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import Task
from seg25d.runs.task_records import RunRecord

do = partial(perform, program="tests.orchestration.programs:program")
"""Does a task of the made-up program."""


def made_up(name: str, *words: str, needs: Sequence[str] = (), **others: object) -> Task:
    """A task of the made-up program."""
    return Task(name=name, words=words, needs=tuple(needs), **others)


@pytest.fixture
def executor_of(tmp_path: Path) -> Callable[[Engine], Executor]:
    """Makes an executor of an engine; one that is made later goes on with what is in the folder."""

    def make(engine: Engine) -> Executor:
        folder = tmp_path / "tasks"
        record = RunRecord(dataset_name="Dataset001_A", arguments={}, on="local")
        journal = Journal(tmp_path / "run.json", record)
        return Executor(engine, journal, Table(journal, folder), folder, {})

    return make
