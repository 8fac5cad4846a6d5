"""Progress of long work: a live bar on a terminal, plain lines with time stamps elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass items through and show how far they are, with rate and time left.

    On a terminal a live bar is drawn on standard error. Elsewhere, and for `--quiet` never, a line is logged at the
    start, about every ten seconds, and at the end. Nothing is shown for an empty sequence.

    Args:
        items: What to pass through.
        total: How many there will be.
        description: What is done, such as "preprocessing".
    """
    if total == 0 or not logger.isEnabledFor(logging.INFO):
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, description)
    else:
        yield from _lines(items, total, description)


def _bar(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    from rich.console import Console  # noqa: PLC0415 - heavy
    from rich.progress import track as rich_track  # noqa: PLC0415 - heavy

    yield from rich_track(items, description=description, total=total, console=Console(stderr=True))


def _lines(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    start = last = time.monotonic()
    done = 0
    logger.info("%s: %d to do", description, total)
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = (now - start) / done * (total - done)
            logger.info("%s: %d of %d, about %s left", description, done, total, format_seconds(left))
    logger.info("%s: %d of %d done in %s", description, done, total, format_seconds(time.monotonic() - start))


def format_seconds(seconds: float) -> str:
    """A duration for people: `8.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
