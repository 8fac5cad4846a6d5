"""Functions that may crash natively, called in a child process: a crash is an exception of the caller's.

The child is started at the first call and lives as long as this process; after a crash there is a new one. Workers of
`map_cases` call the functions themselves, as their own crash is taken care of there. Arrays come back through a socket,
whose costs are measured in `benchmarks/reading_apart.py`.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from seg25d.core.errors import Seg25dError
from seg25d.core.parallel import expendable, is_expendable, worker_context

Value = TypeVar("Value")
_SECONDS_TO_END = 5.0


class Crash(Exception):  # noqa: N818 - it is not ours
    """The child died while it ran a function; the message says of what."""


class _Reply(NamedTuple):
    """What the child says of a call."""

    value: Any
    """What the function gave, or the exception that it raised."""
    raised: bool
    records: Sequence[logging.LogRecord]


class _Child:
    """A process that calls functions for this one, one after another."""

    def __init__(self) -> None:
        self._connection, other = Pipe()
        with _without_main(), other:
            self._process: BaseProcess = worker_context().Process(  # type: ignore[attr-defined] # every context has it
                target=_serve, args=(other,), daemon=True
            )
            self._process.start()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Reply:
        """The reply to a call.

        Raises:
            Crash: If the child died.
        """
        try:
            self._connection.send((Path.cwd(), function, arguments))
            reply: _Reply = self._connection.recv()
        except (EOFError, ConnectionError):
            raise Crash(self._cause()) from None
        return reply

    def end(self) -> None:
        """End the child at once."""
        self._process.kill()
        self._connection.close()

    def _cause(self) -> str:
        self._process.join(_SECONDS_TO_END)
        status = self._process.exitcode
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-status).name
        return f"status {status}"


_CHILDREN: dict[int, _Child] = {}
"""The child of this process; a forked process has none yet, whatever it has from its parent."""
_LOCK = threading.Lock()


def call_apart(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function in the child; or here in a worker of `map_cases`, and in processes that may have no children.

    Args:
        function: Picklable (module level).
        arguments: Picklable.

    Raises:
        Crash: If the child died.
        Exception: What the function raises.
    """
    if is_expendable() or current_process().daemon:
        return function(*arguments)
    with _LOCK:
        child = _current_child()
        try:
            reply = child.call(function, arguments)
        except BaseException:  # an interrupted call leaves half a reply behind
            _CHILDREN.pop(os.getpid()).end()
            raise
    for record in reply.records:
        if (logger := logging.getLogger(record.name)).isEnabledFor(record.levelno):
            logger.handle(record)
    if reply.raised:
        raise reply.value
    return reply.value  # type: ignore[no-any-return]


def call_as_a_whole(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function apart that calls others apart: what they read stays in the child, which is quicker.

    If the child dies, the function is called here, so that the call of those others that was the cause tells it.
    """
    try:
        return call_apart(function, *arguments)
    except Crash:
        return function(*arguments)


def _current_child() -> _Child:
    if os.getpid() not in _CHILDREN:
        _CHILDREN[os.getpid()] = _Child()
    return _CHILDREN[os.getpid()]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the user's script once more, as they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(other: Connection) -> None:
    """Call functions until the other process is gone."""
    expendable()
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    root = logging.getLogger("seg25d")
    root.handlers[:] = [QueueHandler(records)]
    root.setLevel(logging.DEBUG)
    root.propagate = False
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            folder, function, arguments = other.recv()
            os.chdir(folder)
            raised, value = _outcome(function, arguments)
            other.send(_Reply(value, raised, [records.get() for _ in range(records.qsize())]))
            del value


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a function raised something, and that, or what it gave."""
    try:
        return False, function(*arguments)
    except Seg25dError as error:
        return True, error
    except Exception as error:
        error.add_note(traceback.format_exc())
        return True, error.with_traceback(None)
