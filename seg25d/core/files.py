"""Files that are either complete or absent."""

import codecs
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seg25d.core.errors import InputError, RecordError
from seg25d.core.leftovers import remove_leftovers, temporary_name
from seg25d.core.memory import needed_and_free
from seg25d.core.parallel import available_memory_bytes
from seg25d.core.system_errors import refusal, writing

MAX_JSON_BYTES = 1 << 28
"""Maximum size of records, which are read as a whole: scores of 1,228 cases and 117 classes have about 90 MB."""
GZIP = b"\x1f\x8b"
"""The first bytes of compressed files (RFC 1952)."""
SMALL_JSON_BYTES = 1 << 20
JSON_BYTES_OF_A_BYTE, JSON_BYTES_OF_A_CONTAINER = 9, 200
"""Memory that JSON takes once it is read (tracemalloc: 8.2 bytes for each of `[1.5,1.5,...]`, 4 of real summaries; 192
for each object with a key, 64 for an empty one): above `SMALL_JSON_BYTES` it is compared with the memory that is
free."""


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder that becomes `path` when the block ends without an error.

    The temporary name keeps the ending, as image writers choose the format by it. A block that raises, a process that
    is killed, or (where `durable`) a power cut never leaves `path` half-written.

    Args:
        path: The final file. Its folder is made if it is missing.
        durable: Have the content on the disk before the name is; this takes some milliseconds a file.

    Yields:
        The path to write to.

    Raises:
        InputError: If the system refuses to write, see `writing`.
    """
    temporary = path.with_name(temporary_name(path.name))
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            # Windows flushes only files that are open for writing.
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def temporary_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Give an empty folder in `parent` that is gone when the block ends, however it ends.

    What killed processes left there goes first. Folders that were made for it go as well, if nothing else came into
    them.

    Args:
        parent: Where to make it, so that what is written into it can be renamed to its place; made if it is missing.
        purpose: A word for its name.

    Yields:
        The folder.
    """
    remove_leftovers(parent)
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{temporary_name(purpose)}-", dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary)
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder, before hours are spent on their content; nothing is made.

    Args:
        folder: It need not exist; then the folder in which it would be made counts.

    Raises:
        InputError: If a file is in the way or the right to write is missing; names the folder.
    """
    whole = folder.absolute()
    existing = next(path for path in (whole, *whole.parents) if os.access(path, os.F_OK))
    if not existing.is_dir():
        raise InputError(
            f"{folder} cannot be written: {existing} is a file, not a folder; remove it or choose another place"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"{folder} cannot be written: {existing} does not allow it; give yourself the right to write there or "
            "choose another place"
        )


def file_digest(path: Path) -> str:
    """The first letters of the SHA-256 of a file's content.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise refusal(error, path) or InputError(
            f"{path} cannot be read ({error.strerror}); check the name of the file"
        ) from None


def check_writable_file(path: Path) -> None:
    """Check that a file of text can be written, before hours are spent on its content; nothing is made.

    Raises:
        InputError: If its name is that of a folder, a device or a file that is not text, such as an image, or its
            folder cannot be written into; names it.
    """
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder; name a file in it, or elsewhere")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} cannot be written: it is a device or a pipe, which a file would replace; name a file")
    if path.exists() and not _is_text(path):
        raise InputError(f"{path} cannot be written: it holds something else than text; name another file")
    check_writable(path.parent)


def _is_text(path: Path) -> bool:
    """Whether a file, as far as its beginning tells, is text of any encoding, or empty."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return b"\0" not in head and not head.startswith(GZIP)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file; the copy is complete or absent.

    Raises:
        OSError: If the source cannot be read or the copy cannot be written.
    """
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path) -> str:
    """Read a text file of a user's.

    Raises:
        InputError: If it is missing or is not text (UTF-8).
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is missing or is not a text file in UTF-8 ({error}); name another one") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, with a final newline.

    Raises:
        ValueError: If the value holds NaN or infinity, which JSON cannot say.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, make_object: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark, or in UTF-16, as editors on Windows write them.

    Args:
        path: The file.
        make_object: Makes what stands for a JSON object of its pairs, in which a key may come twice.

    Raises:
        RecordError: If the file is missing, a folder, or is not JSON; names the line.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RecordError(f"{path} is larger than the {MAX_JSON_BYTES >> 20} MiB of a record; make it again")
        content = path.read_bytes()
        if len(content) > SMALL_JSON_BYTES:
            containers = content.count(b"{") + content.count(b"[")
            needed = len(content) * JSON_BYTES_OF_A_BYTE + containers * JSON_BYTES_OF_A_CONTAINER
            if needed > (free := available_memory_bytes()):
                raise RecordError(f"{path} may take {needed_and_free(needed, free)}; read it on a larger machine")
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return json.loads(content.decode(encoding), object_pairs_hook=make_object)
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise RecordError(f"{path} is a folder, expected is a file; remove it or give it another name") from None
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # numbers of thousands of digits and endless nesting are no JSON either
        raise RecordError(f"{path} is not valid JSON: {error}; restore it or make it again") from None
