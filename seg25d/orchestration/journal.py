"""The state of all tasks of a command: what their record holds, and what the table shows."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from seg25d.core.records import write_record
from seg25d.orchestration.task import Outcome, Task
from seg25d.runs.task_records import Decision, State, TaskLine, TasksRecord

SECONDS_BETWEEN_WRITES = 60.0
"""How much of the time that was spent is not known after `kill -9`, at the most."""
Kept = TypeVar("Kept", bound=TasksRecord)


class Journal(Generic[Kept]):
    """Writes the record of all tasks whenever something changes.

    Args:
        path: The file, such as `run.json`.
        record: What it holds to begin with; its tasks and decisions are those of the same run so far.
        clock: Tells seconds.
    """

    def __init__(self, path: Path, record: Kept, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.record = record
        self.lines: dict[str, TaskLine] = {}
        self._clock = clock
        self._begun = clock()
        self._spent_before = record.spent_seconds
        self._written = self._begun

    @property
    def spent_seconds(self) -> float:
        """Time that the run has taken, in all calls."""
        return self._spent_before + self._clock() - self._begun

    def add(self, tasks: Sequence[Task]) -> None:
        """Note tasks that are still to be done; those that are known are noted anew."""
        for task in tasks:
            self.lines[task.name] = TaskLine(
                name=task.name,
                words=task.words,
                needs=task.needs,
                state="waiting",
                expected_seconds=task.expected_seconds,
                memory_gb=round(task.memory_bytes / 1e9, 3) or None,
            )
        self.write()

    def set_state(self, name: str, state: State, **others: Any) -> None:
        """Change the line of a task."""
        self.lines[name] = self.lines[name].model_copy(update={"state": state, **others})

    def end(self, name: str, outcome: Outcome) -> None:
        """Note how a task ended."""
        ended = {"seconds": outcome.seconds, "place": outcome.place, "message": outcome.message}
        self.set_state(name, "done" if outcome.is_done else "failed", **ended)
        self.write()

    def decide(self, decision: Decision) -> None:
        """Note a decision; the same one of an earlier call is replaced."""
        kept = [each for each in self.record.decisions if each.what != decision.what]
        self.record = self.record.model_copy(update={"decisions": (*kept, decision)})
        self.write()

    def write_now_and_then(self) -> None:
        """Write the file if it is from a while ago, for the time that was spent."""
        if self._clock() - self._written >= SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self, **others: Any) -> None:
        """Write the file, with other fields of the record."""
        update = {"spent_seconds": self.spent_seconds, "tasks": tuple(self.lines.values()), **others}
        self.record = self.record.model_copy(update=update)
        write_record(self.path, self.record)
        self._written = self._clock()
