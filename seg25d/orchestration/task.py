"""Tasks: each is a command of seg25d that can be given again at any time, and goes on or does nothing then."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from seg25d.core.names import FileName
from seg25d.core.records import Record

INTERRUPTED = 130
"""Status of a command that a signal has stopped (`cli/common.py`)."""


class Task(Record):
    """A command, what it needs, and how to see that it is done."""

    name: FileName
    words: tuple[str, ...]
    """The command, without `seg25d`."""
    needs: tuple[FileName, ...] = ()
    """Tasks that have to be done before."""
    outputs: tuple[Path, ...] = ()
    """Files that are there when it is done."""
    progress: Path | None = None
    """Folder of the fold that it trains, whose log says how far it is."""
    uses_gpu: bool = True
    always: bool = False
    """Whether it is done again in every call of the command: it is quick where nothing has changed."""
    expected_seconds: float | None = Field(default=None, ge=0)
    memory_bytes: int = Field(default=0, ge=0)
    """Of all its processes, estimated."""


class Call(NamedTuple):
    """What is needed to do a task elsewhere; picklable."""

    name: str
    words: tuple[str, ...]
    folder: Path
    """For `NAME.json` and `NAME.log`."""
    environment: Mapping[str, str]
    """Variables that say where the workspace is; others that would say so are removed."""


class Outcome(Record):
    """How a task ended."""

    status: int
    """0: done; otherwise the exit status of the command, or minus the number of the signal that ended it."""
    seconds: float = 0.0
    place: str = ""
    message: str = ""

    @property
    def is_done(self) -> bool:
        """Whether what needs the task can begin."""
        return self.status == 0


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each behind what it needs, else in their order.

    Raises:
        ValueError: If two have the same name, one needs something that is not among them, or some need each other.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks have the same name: {sorted(name for name in names if names.count(name) > 1)}")
    needs = {task.name: task.needs for task in tasks}
    unknown = {need for each in needs.values() for need in each} - set(needs)
    if unknown:
        raise ValueError(f"tasks need what is not among them: {', '.join(sorted(unknown))}")
    try:
        sorted_names = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ValueError(f"tasks need each other: {' -> '.join(error.args[1])}") from None
    depth: dict[str, int] = {}
    for name in sorted_names:
        depth[name] = 1 + max((depth[need] for need in needs[name]), default=-1)
    return sorted(tasks, key=lambda task: depth[task.name])


def num_waves(tasks: Sequence[Task], places: int) -> int:
    """How many tasks of equal length are done one after the other, where some need others of them."""
    waiting, waves = list(tasks), 0
    while waiting:
        names = {task.name for task in waiting}
        ready = [task for task in waiting if names.isdisjoint(task.needs)][:places]
        waiting = [task for task in waiting if task not in ready]
        waves += 1
    return waves
