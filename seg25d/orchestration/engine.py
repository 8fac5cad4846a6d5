"""What runs tasks: the contract of this machine, a Ray cluster and SLURM."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from seg25d.orchestration.task import Call, Outcome, Task

Perform: TypeAlias = Callable[[Call], Outcome]
"""Does a task in the process that calls it; picklable (`perform.perform`)."""
LOST_RETRIES = 3
"""How often a task is done again whose process or machine was lost: Ray's default for tasks
(docs.ray.io, fault tolerance of tasks)."""


class Job(NamedTuple):
    """A task that can be done now."""

    task: Task
    call: Call


class Engine(Protocol):
    """Runs tasks that can be done at the same time; placement, retries of lost ones and their logs are its own."""

    name: str
    places: int
    """Tasks that it runs at a time; 1 or more."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take tasks; each begins when there is a place for it."""

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        """Wait up to `patience_seconds` for a task to end; the names and outcomes of those that have since asked."""

    def stop(self) -> None:
        """Stop all tasks that it has, and give back what it took; finished tasks stay as they are."""
