"""Locks of folders and files: whoever writes results holds their place, and removes what killed processes left there.

A lock is a hidden file, `.lock` in a folder or `.NAME.lock` beside a file, which is gone when the lock is. The system
releases the lock of a process that ends, however it ends; its file is then taken over by the next one.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from seg25d.core.errors import BusyError
from seg25d.core.files import check_writable
from seg25d.core.leftovers import remove_leftovers, shortened

logger = logging.getLogger(__name__)
_HELD_LOCKS: set[int] = set()
_SECONDS_BETWEEN_TRIES = 0.05
PATIENCE_SECONDS = 0.5
"""How long to wait for one who may be about to leave."""


class _Patience:
    seconds = PATIENCE_SECONDS


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait longer for locks in this block, in all threads of the process, where the caller has no patience of its own.

    Args:
        seconds: How long.
    """
    before, _Patience.seconds = _Patience.seconds, seconds
    try:
        yield
    finally:
        _Patience.seconds = before


@contextmanager
def folder_lock(
    folder: Path, purpose: str, *, deep: bool = False, patience_seconds: float | None = None
) -> Iterator[None]:
    """Hold a folder for one process, without the leftovers of others.

    Args:
        folder: The folder to hold. It is made if it is missing, and goes again if nothing comes into it.
        purpose: What is done there, for the message of those who come second.
        deep: Remove leftovers in all folders below, too; see `remove_leftovers`.
        patience_seconds: How long to wait for a process that holds it; None: `PATIENCE_SECONDS`, or that of `patience`.

    Raises:
        BusyError: If another process holds the folder.
        InputError: If it cannot be written into.
    """
    with _lock(folder / ".lock", folder, purpose, patience_seconds=patience_seconds):
        remove_leftovers(folder, deep=deep)
        yield


@contextmanager
def reading_lock(folder: Path, purpose: str) -> Iterator[None]:
    """Keep others from writing into a folder while it is read; any number of processes may read at once.

    A folder that is missing or that this process may not write into is not held, nor is any on Windows, where a lock is
    for one process only.

    Raises:
        BusyError: If another process holds the folder to write into it.
    """
    if os.name == "nt" or not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield
        return
    with ExitStack() as held:
        with suppress(OSError):  # a full disk: reading goes on
            held.enter_context(_lock(folder / ".lock", folder, purpose, shared=True))
        remove_leftovers(folder)
        yield


@contextmanager
def file_lock(path: Path, purpose: str, *, patience_seconds: float | None = None) -> Iterator[None]:
    """Hold a file that is written, without leftovers in its folder; see `folder_lock`."""
    with _lock(path.with_name(f".{shortened(path.name)}.lock"), path, purpose, patience_seconds=patience_seconds):
        remove_leftovers(path.parent)
        yield


def drop_inherited_locks() -> None:
    """Close the locks that a forked process has from its parent, which keeps them; call it in the child only.

    Without this a lock outlives a killed parent for as long as its children do.
    """
    for descriptor in _HELD_LOCKS:
        os.close(descriptor)
    _HELD_LOCKS.clear()


@contextmanager
def _lock(
    path: Path, held: Path, purpose: str, *, shared: bool = False, patience_seconds: float | None = None
) -> Iterator[None]:
    """Hold `path`, a lock file; `held` is what it stands for."""
    check_writable(path.parent)
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    seconds = _Patience.seconds if patience_seconds is None else patience_seconds
    file = _open_locked(path, held, shared=shared, until=time.monotonic() + seconds)
    _HELD_LOCKS.add(file.fileno())
    try:
        with suppress(OSError):  # a full disk: who holds it is for messages only
            file.truncate(0)
            file.write(f"process {os.getpid()}: {purpose}")
            file.flush()
        yield
    finally:
        _HELD_LOCKS.discard(file.fileno())
        _release(file, path, shared=shared)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _release(file: IO[str], path: Path, *, shared: bool) -> None:
    """Give a lock back, and remove its file: of several readers the last one does."""
    on_windows = os.name == "nt"
    with suppress(OSError):
        if not on_windows and (not shared or _try_lock(file)) and _is_named(file, path):
            path.unlink()
    with suppress(OSError):  # a full disk has told so before
        file.close()
    with suppress(OSError):
        if on_windows:  # there it goes only when nobody has it open
            path.unlink()


def _open_locked(path: Path, held: Path, *, shared: bool, until: float) -> IO[str]:
    """Open and lock a file that has its name still."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            if time.monotonic() >= until + _SECONDS_BETWEEN_TRIES:
                raise
            continue  # whoever held it last has just removed the folder
        if _try_lock(file, shared=shared):
            if _is_named(file, path):
                return file
            file.close()  # whoever held it last has just removed it
            continue
        with file:
            file.seek(0)
            holder = file.read().strip() or "another process"
        if time.monotonic() >= until:
            raise BusyError(f"{held} is in use ({holder}); wait for it or stop it, then run the command again")
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _is_named(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one with this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Lock an open file, or say that another process has; without locks on its disk, a warning stands for one."""
    try:
        import fcntl  # noqa: PLC0415 - absent on Windows
    except ImportError:
        import msvcrt  # noqa: PLC0415 - Windows only

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning("%s: this disk has no locks (%s); run one command at a time", file.name, error.strerror)
    return True
