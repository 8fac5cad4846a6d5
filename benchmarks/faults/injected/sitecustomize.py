"""Put first on PYTHONPATH: counts the calls of all processes that change names or flush files, and ends one at one.

FAULT_CALLS names a file that gets a byte per call, so that its size is the number of the last call, over all processes
of a command. At call FAULT_AT (0: never), before or after it (FAULT_WHEN), the process that makes the call, or its
whole group (FAULT_GROUP), gets the signal FAULT_SIGNAL, once.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

NAMES = ("replace", "rename", "link", "unlink", "remove", "rmdir", "fsync")


def _number(calls: int) -> int:
    """The number of this call."""
    os.write(calls, b".")
    return os.fstat(calls).st_size


def _end(calls: str) -> None:
    """Send the signal, unless another process of the command has done so."""
    try:
        os.close(os.open(f"{calls}.done", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    number = signal.Signals[os.environ["FAULT_SIGNAL"]]
    if os.environ.get("FAULT_GROUP"):
        os.killpg(os.getpgrp(), number)
    else:
        os.kill(os.getpid(), number)


def _counted(call: Callable[..., Any], calls: str, file: int, at: int) -> Callable[..., Any]:
    when = os.environ.get("FAULT_WHEN", "before")

    def counted(*arguments: Any, **named: Any) -> Any:
        is_due = _number(file) >= at > 0
        if is_due and when == "before":
            _end(calls)
        try:
            return call(*arguments, **named)
        finally:
            if is_due and when == "after":
                _end(calls)

    return counted


if "FAULT_CALLS" in os.environ:
    _CALLS = os.environ["FAULT_CALLS"]
    _FILE = os.open(_CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _name in NAMES:
        if hasattr(os, _name):
            setattr(os, _name, _counted(getattr(os, _name), _CALLS, _FILE, int(os.environ.get("FAULT_AT", "0"))))
