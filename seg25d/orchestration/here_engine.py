"""Tasks in this process, one after the other."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seg25d.orchestration.engine import Job, Perform
from seg25d.orchestration.task import INTERRUPTED, Outcome


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
        with _interruptible():
            outcome = self.perform(job.call)
        if outcome.status == INTERRUPTED:
            raise KeyboardInterrupt
        return [(job.task.name, outcome)]

    def stop(self) -> None:
        """Forget what has not begun."""
        self.waiting.clear()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end a command at once, as they do where it is typed, unless it handles them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
