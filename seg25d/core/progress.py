"""Progress of long work: a live bar on a terminal, plain lines with time stamps elsewhere, both in the same words."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from seg25d.core.printing import harmless

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
logger = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 0.25
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_WRITES = 60.0
"""What of long work a kill may cost, beside what was being done at that moment."""
SHARE_OF_WRITES = 0.05
"""Of the time, which writing takes at most: scores of 1,228 cases and 117 classes are a file of 90 MB."""
LONGEST_NAME = 32
"""Characters of a description beside a bar."""


class _Bars:
    wanted = True


def hide_bars() -> None:
    """Have lines in place of bars from now on, also on a terminal."""
    _Bars.wanted = False


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass items through and show how far they are, with rate and time left.

    It is said at the start, now and then, and at the end; see `ProgressDisplay`. Nothing is said of an empty sequence.

    Args:
        items: What to pass through.
        total: How many there will be.
        description: What is done, such as "preprocessing".
    """
    if total == 0:
        yield from items
        return
    with closing(ProgressDisplay(description)) as display:
        display.show(0, f"{total} to do")
        start, done = time.monotonic(), 0
        for done, item in enumerate(items, 1):
            yield item
            if done < total:
                display.show(done / total, _state(done, total, time.monotonic() - start))
    seconds = time.monotonic() - start
    rate = format_rate(seconds / max(done, 1))
    logger.info("%s: %d of %d done in %s, %s", description, done, total, format_seconds(seconds), rate)


def keep_now_and_then(items: Iterable[Item], keep: Callable[[], None]) -> Iterator[Item]:
    """Pass items through, and keep what was made of them about every minute, so that a kill costs no more.

    Args:
        items: What to pass through.
        keep: Writes what the items that were taken so far have given.
    """
    last, pause = time.monotonic(), SECONDS_BETWEEN_WRITES
    for item in items:
        yield item
        begun = time.monotonic()
        if begun - last >= pause:
            keep()
            last = time.monotonic()
            pause = max(SECONDS_BETWEEN_WRITES, (last - begun) / SHARE_OF_WRITES)


class ProgressDisplay:
    """Says how far work is: on a terminal by a bar on standard error, elsewhere by a line in the log now and then.

    Messages that are logged meanwhile stand above the bar. It appears when there is something to say, and goes with
    `close`. Nothing is shown where messages are not wanted (`--quiet`).

    Args:
        description: What is done.
        seconds_between_lines: Pause between lines where there is no bar.
    """

    def __init__(self, description: str, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self.description = harmless(description)
        self.pause = seconds_between_lines
        self.last: float | None = None
        self.bar: Progress | None = None

    def show(self, share: float, words: str) -> None:
        """Say how far the work is, unless that was said a moment ago.

        Args:
            share: Of the work that is done, 0 to 1.
            words: This, and what else is to be known.
        """
        now = time.monotonic()
        if not logger.isEnabledFor(logging.INFO) or (self.last is not None and now - self.last < self.pause):
            return
        if self.last is None:
            self.bar = _start_bar(self.description)
            self.pause = self.pause if self.bar is None else SECONDS_BETWEEN_UPDATES
        self.last = now
        if self.bar is None:
            logger.info("%s: %s", self.description, words)
        else:
            self.bar.update(self.bar.task_ids[0], completed=share, words=harmless(words), refresh=True)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()


def _start_bar(description: str) -> "Progress | None":
    """An empty bar on standard error, with a place for words behind it; None where that is no terminal, or hidden."""
    if not (_Bars.wanted and sys.stderr.isatty()):
        return None
    from rich.console import Console  # noqa: PLC0415 - heavy
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - heavy
    from rich.table import Column  # noqa: PLC0415 - heavy

    console = Console(stderr=True)
    if not console.is_interactive:
        return None
    # Where there is little room the bar gives way first; a long name must not push the words out of 80 columns.
    name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=LONGEST_NAME))
    words = TextColumn("{task.fields[words]}", markup=False)
    # Without a thread that redraws it: worker processes may be forked meanwhile. Results on standard output are not
    # messages.
    bar = Progress(
        *(name, BarColumn(), words), console=console, auto_refresh=False, transient=True, redirect_stdout=False
    )
    bar.start()
    bar.add_task(description, total=1, words="")
    return bar


def _state(done: int, total: int, seconds: float) -> str:
    left = format_seconds(seconds_left(done / total, seconds))
    return f"{done} of {total}, {format_rate(seconds / done)}, about {left} left"


def seconds_left(share: float, seconds: float) -> float:
    """The time that is left when a share, above 0 and at most 1, took so long."""
    return seconds / share * (1 - share)


def format_rate(seconds_per_item: float, item: str = "item") -> str:
    """A rate for people: `3.2 items/s`, or `4 min 10 s per item` where it is below one per second."""
    if seconds_per_item > 1:
        return f"{format_seconds(seconds_per_item)} per {item}"
    return f"{1 / max(seconds_per_item, 1e-9):.1f} {item}s/s"


def format_seconds(seconds: float) -> str:
    """A duration for people: `8.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
