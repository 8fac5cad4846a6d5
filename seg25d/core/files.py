"""Files that are either complete or absent, and a lock for folders."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from seg25d.core.errors import BusyError, RecordError

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder that becomes `path` when the block ends without an error.

    The temporary name keeps the ending, as image writers choose the format by it. A block that raises, or a process
    that is killed, never leaves `path` half-written.

    Args:
        path: The final file. Its folder is made if it is missing.

    Yields:
        The path to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left directly in `folder`; those of running processes stay."""
    if not folder.is_dir():
        return
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        process_id = path.name.removeprefix(TEMPORARY_PREFIX).split("-", 1)[0]
        if not (process_id.isdigit() and Path(f"/proc/{process_id}").exists()):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, with a final newline.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot say.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RecordError: If the file is missing or is not JSON; names the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is not valid JSON: {error}; restore it or make it anew") from None


@contextmanager
def folder_lock(folder: Path, purpose: str) -> Iterator[None]:
    """Hold a folder for one process; the system releases the lock when the process ends, however it ends.

    Args:
        folder: The folder to hold; made if it is missing.
        purpose: What is done there, for the message of those who come second.

    Raises:
        BusyError: If another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        if not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"{folder} is in use ({holder}); wait for it or stop it, then run the command again")
        file.truncate(0)
        file.write(f"process {os.getpid()}: {purpose}")
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
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
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
