"""Handling of signals to stop, without losing the state of a run."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def stop_signals(what_follows: str = "stopping after this update") -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of ending at once, so that the state can be saved first.

    Args:
        what_follows: Is said when one comes.

    Yields:
        The signals received so far. A second one has its usual effect.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[signal.Signals, Any] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])
        logger.info("%s", what_follows)

    for each in (signal.SIGTERM, signal.SIGINT):
        previous[each] = signal.signal(each, receive)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
