"""Put first on PYTHONPATH: from a call on, the system refuses what all processes of a command want to write.

REFUSE_CALLS names a file that gets a byte per call that opens a file to write, flushes, renames or makes a folder. From
call REFUSE_AT on, those in the folder REFUSE_IN raise the error of the number REFUSE_ERRNO, until the command ends.
"""

import io
import os
from collections.abc import Callable
from typing import Any


def _refusing(call: Callable[..., Any], calls: int) -> Callable[..., Any]:
    number, at = int(os.environ["REFUSE_ERRNO"]), int(os.environ["REFUSE_AT"])

    def refusing(*arguments: Any, **named: Any) -> Any:
        if _writes(*arguments, **named):
            os.write(calls, b".")
            if os.fstat(calls).st_size >= at:
                name = arguments[0] if isinstance(arguments[0], str | os.PathLike) else None
                raise OSError(number, os.strerror(number), *([name] if name else []))
        return call(*arguments, **named)

    return refusing


def _writes(what: Any, mode: Any = "w", *_: Any, **__: Any) -> bool:
    """Whether a call changes something in the folder; all but `open` do."""
    if isinstance(mode, str) and not set(mode) & set("wax+"):
        return False
    path = f"/proc/self/fd/{what}" if isinstance(what, int) else what
    return os.path.realpath(path).startswith(os.environ["REFUSE_IN"])


if "REFUSE_CALLS" in os.environ:
    _CALLS = os.open(os.environ["REFUSE_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    io.open = _refusing(io.open, _CALLS)  # what pathlib calls
    for _name in ("replace", "rename", "fsync", "mkdir"):
        setattr(os, _name, _refusing(getattr(os, _name), _CALLS))
