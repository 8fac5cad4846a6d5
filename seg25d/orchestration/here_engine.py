"""Tasks in this process, one after the other."""

from collections.abc import Sequence

from seg25d.orchestration.engine import Job, Perform
from seg25d.orchestration.task import Outcome

INTERRUPTED = 130
"""Status of a command that Ctrl-C has ended."""


class HereEngine:
    """Runs a task whenever it is asked for one that is finished, see `engine.Engine`.

    Args:
        perform: Does a task.
    """

    name = "this process"
    places = 1

    def __init__(self, perform: Perform) -> None:
        self.perform = perform
        self.waiting: list[Job] = []

    def start(self, jobs: Sequence[Job]) -> None:
        """Take tasks."""
        self.waiting += jobs

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        """Do the next task.

        Raises:
            KeyboardInterrupt: If it was interrupted.
        """
        del patience_seconds
        if not self.waiting:
            return []
        job = self.waiting.pop(0)
        outcome = self.perform(job.call)
        if outcome.status == INTERRUPTED:
            raise KeyboardInterrupt
        return [(job.task.name, outcome)]

    def stop(self) -> None:
        """Forget what has not begun."""
        self.waiting.clear()
