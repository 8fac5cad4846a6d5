"""Quick start and end of a process."""

import atexit
import faulthandler
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


@contextmanager
def loading(*, for_good: bool = True) -> Iterator[None]:
    """Load modules in this block without looking for garbage.

    Python's collector goes through all objects again and again while torch makes a million of them that stay: a fifth
    to a third of the time of loading (documentation/concepts/choices.md).

    Args:
        for_good: Whether the collector leaves out all that is there by then for as long as the process lives: for
            commands, whose objects it then are, not for what a notebook calls.
    """
    was_enabled, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if for_good and len(sys.modules) > loaded:
            gc.freeze()
        if was_enabled:
            gc.enable()


def open_closed_streams() -> None:
    """Open standard streams that whoever started this process has closed (`>&-`): nothing is read and all is dropped.

    Python has none then, and the next file that is opened would get what native code prints.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115


@contextmanager
def crashes_named(words: str) -> Iterator[None]:
    """Show a message if this process dies inside of this block without one.

    That happens when native code crashes, or the system kills the process. As a dead process cannot print, a small
    second one watches whether the block ends normally. Where in Python a crash was, faulthandler writes to
    standard error before; where it is already on, crashes are handled elsewhere.

    Args:
        words: For the user: what may have happened, and what to do.
    """
    if faulthandler.is_enabled() or sys.stderr is None:
        yield
        return
    code = "import sys\nif not sys.stdin.read(1): sys.stderr.write(f'{sys.argv[1]}\\n')"
    # In a session of its own, as Ctrl-C is for the other process.
    command = [sys.executable, "-I", "-S", "-c", code, words]
    listener = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    with suppress(ValueError, OSError):  # standard error may be a file of Python's own
        faulthandler.enable()
    try:
        yield
    finally:
        faulthandler.disable()
        with suppress(OSError, subprocess.TimeoutExpired):
            listener.communicate(b".", timeout=5)


def leave(status: int) -> NoReturn:
    """End the process with an exit status, without taking apart every module: 1 s once torch is loaded.

    Threads end and Python's exit handlers run as always, in its own order, so that worker processes, logs and temporary
    files are taken care of. Daemonic processes that are still there, such as a loader of batches that missed its end on
    a busy machine, are killed: they may ignore SIGTERM, and Python would wait for them for ever. Under a profiler or
    debugger, or with `python -i`, the process ends in the usual way.
    """
    if sys.getprofile() or sys.gettrace() or sys.flags.interactive:
        sys.exit(status)
    threading._shutdown()  # type: ignore[attr-defined] # also wakes the threads of pools that nobody shut down
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a loader of batches is killed
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
