"""One live table of all tasks on a terminal; elsewhere lines when tasks begin and end, and now and then between."""

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg25d.core.errors import InputError
from seg25d.core.files import read_json
from seg25d.core.lengths import share_done
from seg25d.core.printing import harmless
from seg25d.core.progress import format_seconds
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.task import Outcome, Task
from seg25d.runs.progress import read_log
from seg25d.runs.task_records import TaskLine

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table as RichTable

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 1.0
SECONDS_BETWEEN_LINES = 60.0
ALL = 1_000_000
STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "red", "left out": "yellow"}


class Table:
    """Shows the tasks of a journal.

    Args:
        journal: What is shown.
        folder: With the records of tasks.
    """

    def __init__(self, journal: Journal[Any], folder: Path) -> None:
        self.journal = journal
        self.folder = folder
        self.live: Live | None = None
        self.last = -SECONDS_BETWEEN_LINES

    def show(self, running: Sequence[Task]) -> None:
        """Show the state of all tasks, unless that was done a moment ago.

        Args:
            running: Tasks that have begun.
        """
        now = time.monotonic()
        if self.live is None and _is_terminal() and logger.isEnabledFor(logging.INFO):
            self.live = _start_live()
        if self.live is not None:
            if now - self.last >= SECONDS_BETWEEN_UPDATES:
                self.last = now
                self.live.update(_rich_table(self._lines(), _shares(running), self._room()), refresh=True)
            return
        if now - self.last >= SECONDS_BETWEEN_LINES:
            if self.last > 0 and running:
                self._tell_progress(running)
            self.last = now

    def ended(self, name: str, outcome: Outcome) -> None:
        """Say how a task ended."""
        if outcome.is_done:
            logger.info("%s: done in %s", name, format_seconds(outcome.seconds))
        else:
            log = self.folder / f"{name}.log"
            logger.warning("%s ended with status %d: %s (%s)", name, outcome.status, outcome.message, log)

    def close(self) -> None:
        """Leave the last state of the table on the terminal."""
        if self.live is not None:
            self.live.update(_rich_table(self._lines(), {}, ALL), refresh=True)
            self.live.stop()
            self.live = None

    def _lines(self) -> list[TaskLine]:
        return list(self.journal.lines.values())

    def _room(self) -> int:
        """Rows of tasks that the terminal has room for, beside the header and what is said."""
        assert self.live is not None, "there is a terminal"
        return max(3, self.live.console.height - 3)

    def _tell_progress(self, running: Sequence[Task]) -> None:
        lines = self.journal.lines.values()
        done = sum(line.state == "done" for line in lines)
        shares = _shares(running)
        now = ", ".join(name if share is None else f"{name} {share:.0%}" for name, share in shares.items())
        logger.info("%d of %d tasks done; running: %s", done, len(lines), now)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _start_live() -> "Live":
    from rich.console import Console  # noqa: PLC0415 - heavy
    from rich.live import Live  # noqa: PLC0415 - heavy

    # Without a thread that redraws it: processes may be forked meanwhile.
    live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, vertical_overflow="crop")
    live.start()
    return live


def _shares(running: Sequence[Task]) -> dict[str, float | None]:
    """How far trainings are, by the names of their tasks."""
    return {task.name: None if task.progress is None else _share(task.progress) for task in running}


def _share(fold: Path) -> float | None:
    with suppress(InputError, OSError):
        return share_done(read_json(fold / "config.json"), read_log(fold / "log.jsonl"))
    return None


def _rich_table(lines: Sequence[TaskLine], shares: dict[str, float | None], most: int) -> "RichTable":
    """The table of tasks; of more than `most` those first that run or failed, and how many are left out."""
    from rich.table import Table as RichTable  # noqa: PLC0415 - heavy
    from rich.text import Text  # noqa: PLC0415 - heavy

    shown = list(lines)
    if len(lines) > most:
        urgent = [line for line in lines if line.state not in ("done", "waiting")]
        names = {line.name for line in [*urgent, *(line for line in lines if line not in urgent)][: max(1, most - 1)]}
        shown = [line for line in lines if line.name in names]
    table = RichTable("task", "state", "progress", "time", "expected", "message", box=None, pad_edge=False)
    for line in shown:
        share = shares.get(line.name)
        cells = (
            *(line.name, line.state, "" if share is None else f"{share:.0%}"),
            "" if line.seconds is None else format_seconds(line.seconds),
            "" if line.expected_seconds is None else format_seconds(line.expected_seconds),
            line.message,
        )
        table.add_row(*(Text(harmless(cell)) for cell in cells), style=STYLES[line.state])
    if len(shown) < len(lines):
        hidden = [line.state for line in lines if line not in shown]
        counted = ", ".join(f"{hidden.count(state)} {state}" for state in dict.fromkeys(hidden))
        table.add_row(f"and {counted}", style="dim")
    return table
