"""How a process of ours begins and ends in little time."""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


@contextmanager
def loading() -> Iterator[None]:
    """Load modules in this block without looking for garbage, neither meanwhile nor in them later.

    Python's collector goes through all objects again and again while torch makes a million of them that stay: a third
    of the time of loading (documentation/measurements.md).
    """
    was_enabled, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()
        if was_enabled:
            gc.enable()


def leave(status: int) -> NoReturn:
    """End the process with an exit status, without taking apart every module: 1 s once torch is loaded.

    Threads end and exit handlers run as always, in Python's own order, so that worker processes, logs and temporary
    files are taken care of.
    """
    threading._shutdown()  # type: ignore[attr-defined] # also wakes the threads of pools that nobody shut down
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
