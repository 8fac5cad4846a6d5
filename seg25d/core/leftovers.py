"""Names of temporary files, which say what process writes them, and removal of what killed processes left."""

import os
import re
import shutil
import socket
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
LONGEST_WRITING_HOURS = 24
"""Age of a temporary file from which on it is a leftover, where its process cannot be asked, as it is of another
machine or container: longer than a job on a cluster computes between two files."""
UNFINISHED_SUFFIX = ".part"
"""Ending of the hidden folders of `unfinished.py`."""
UNFINISHED_DAYS = 30
"""Age from which on such a folder is a leftover: of a command that nobody has repeated."""
_OWNER = re.compile(re.escape(TEMPORARY_PREFIX) + r"(\d+)(?:\.([0-9a-f]{6})\.(\d+))?-")
_LONGEST_NAME = 180
"""Bytes of a name that a prefix still fits before: file systems take 255."""


def temporary_name(name: str) -> str:
    """The name under which this process writes a file: it tells the process, and ends as the file does.

    `.tmp-PROCESS.PLACE.START-NAME`: a number may be that of another process by now, on this machine (which has begun at
    another time) or on one that shares the disk (at another place).
    """
    process_id = os.getpid()
    state = _process_state(process_id)
    return f"{TEMPORARY_PREFIX}{process_id}.{_place()}.{state[1] if state else 0}-{shortened(name)}"


def shortened(name: str) -> str:
    """A name that something can be added to: the end of one that is too long for it, after a digest of all of it."""
    return name if len(os.fsencode(name)) <= _LONGEST_NAME else f"{zlib.crc32(os.fsencode(name)):08x}-{name[-40:]}"


def remove_leftovers(folder: Path, *, deep: bool = False) -> None:
    """Remove what killed processes left under temporary names in `folder`; what is of running processes stays.

    Folders of unfinished passes (`unfinished.py`) go when nothing was added to them for `UNFINISHED_DAYS`.

    Args:
        folder: It may be missing.
        deep: Also in all folders below: for those that nobody but seg25d writes into.
    """
    if not folder.is_dir():
        return
    find = folder.rglob if deep else folder.glob
    for path in list(find(f".*{UNFINISHED_SUFFIX}")):
        if path.is_dir() and not path.is_symlink() and time.time() - path.stat().st_mtime > UNFINISHED_DAYS * 86400:
            shutil.rmtree(path, ignore_errors=True)
    for path in list(find(f"{TEMPORARY_PREFIX}*")):
        if _is_leftover(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether a temporary name is that of a process that is gone; names that others give are none of our business."""
    owner = _OWNER.match(path.name)
    if owner is None:
        return False
    process_id, place, start = owner.groups()
    if place is not None and place != _place():
        with suppress(FileNotFoundError):
            status = path.lstat()
            return time.time() - max(status.st_mtime, status.st_ctime) > LONGEST_WRITING_HOURS * 3600
        return False
    if not _is_alive(int(process_id)):
        return True
    state = _process_state(int(process_id))
    return state is not None and (state[0] == "Z" or start not in (None, "0", state[1]))


def _is_alive(process_id: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill would end it
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _process_state(process_id: int) -> tuple[str, str] | None:
    """The state of a process (Z: it has ended) and its start, in ticks; None where the system does not tell."""
    try:
        words = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
        state, *others = words.rpartition(")")[2].split()
        return state, others[18]
    except (OSError, IndexError, ValueError):
        return None


@cache
def _place() -> str:
    """Six letters for this machine and, in a container, its own numbers of processes."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    with suppress(OSError):
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{zlib.crc32(' '.join(known).encode()) & 0xFFFFFF:06x}"
