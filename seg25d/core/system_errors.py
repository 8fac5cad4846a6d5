"""What the operating system refuses, told as one sentence: which file, why, and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError, ResourceError, Seg25dError

PROBED_BYTES = 1 << 16
"""What is written to ask the system why a library could not write. Libraries fill a disk to its last page before they
fail (blosc2, torch, safetensors, numpy, ITK, Pillow and matplotlib on a tmpfs of up to 16 sizes each)."""

_NEAR_LIMIT = 64 << 20
"""Bytes of address space: what a library that failed to load may have wanted at once. Larger ones say it themselves."""


class _Reason(NamedTuple):
    """Why the system refuses something, and what helps."""

    words: str
    for_all: bool = False
    """Whether it refuses all that comes next as well, so that a command ends instead of going on with other cases."""


_AGAIN = "then run the same command again: it goes on where it stopped"
_RIGHT = "you have no right to read or write it; give yourself the right or choose another folder"
_TOO_MANY_FILES = f"too many open files; raise the limit (`ulimit -n 4096`) or use a smaller --num-processes, {_AGAIN}"
_MEMORY = (
    "there is not enough memory for it; stop other programs or use a smaller --num-processes (0: this process alone), "
    f"{_AGAIN}"
)
_PROCESSES = (
    "the system starts no further process or thread; stop other programs, use a smaller --num-processes or raise the "
    f"limit (`ulimit -u`, in a container --pids-limit), {_AGAIN}"
)
_NO_TEMPORARY_FOLDER = -1
_REASONS = {
    _NO_TEMPORARY_FOLDER: _Reason(
        "no folder for temporary files can be written; make room, or set TMPDIR to a folder with room", for_all=True
    ),
    errno.ENOSPC: _Reason(f"the disk is full; make room, {_AGAIN}", for_all=True),
    errno.EDQUOT: _Reason(f"your quota of the disk is used up; make room, {_AGAIN}", for_all=True),
    errno.EROFS: _Reason("the file system is read-only; make it writable or choose another place", for_all=True),
    errno.EMFILE: _Reason(_TOO_MANY_FILES, for_all=True),
    errno.ENFILE: _Reason(_TOO_MANY_FILES, for_all=True),
    errno.EAGAIN: _Reason(_PROCESSES, for_all=True),
    errno.EIO: _Reason("the disk cannot read or write it; check the disk, or choose another one", for_all=True),
    errno.ENOMEM: _Reason(_MEMORY),
    errno.EACCES: _Reason(_RIGHT),
    errno.EPERM: _Reason(_RIGHT),
    errno.EFBIG: _Reason(f"no file may be as large; raise the limit (`ulimit -f`) or take another disk, {_AGAIN}"),
    errno.ENAMETOOLONG: _Reason("the name is longer than the file system allows; shorten it"),
    errno.ENOTDIR: _Reason("a file is where a folder has to be; remove it or choose another place"),
    errno.EISDIR: _Reason("a folder is where a file has to be; remove it or choose another place"),
    errno.EEXIST: _Reason("it is there already; remove it or choose another place"),
    errno.ENOTEMPTY: _Reason("it is there already; remove it or choose another place"),
}
_SIGNS = {
    **{
        os.strerror(number): number
        for number in _REASONS
        if number not in (errno.EEXIST, errno.EAGAIN, _NO_TEMPORARY_FOLDER)
    },
    "can't allocate memory": errno.ENOMEM,  # torch, c10/core/impl/alloc_cpu.cpp
    "Failed to allocate memory": errno.ENOMEM,  # ITK, itkImportImageContainer.hxx
    "bad_alloc": errno.ENOMEM,  # C++
    "failed to map segment from shared object": errno.ENOMEM,  # glibc, elf/dl-load.h
    "No usable temporary directory": _NO_TEMPORARY_FOLDER,  # CPython, Lib/tempfile.py
    "can't start new thread": errno.EAGAIN,  # CPython, Modules/_threadmodule.c
}
"""What libraries whose errors have no number say."""


def refusal(error: BaseException, path: Path | None = None) -> InputError | None:
    """What the system refused when an exception was raised, as an error that says what to do.

    Args:
        error: The exception; it, what caused it, or what was handled when it was raised is to be one of the system's,
            or one of a library that has the system's words.
        path: The file in question; None: the one that the exception names.

    Returns:
        A `ResourceError` if all that comes next would be refused as well; None if the system is not the reason, or the
        error is one of ours and says it already.
    """
    if isinstance(error, Seg25dError):
        return None
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if (number := system_number(link)) in _REASONS:
            return _told(_REASONS[number], path or _named_file(link), _detail(link))
        link = link.__cause__ or link.__context__
    return None


def refusal_at_limit(error: BaseException) -> InputError | None:
    """Lack of memory behind any error, where this process has met the limit of its address space (`ulimit -v`).

    A library whose import fails half-way for lack of memory goes on without a part of itself, and raises anything.
    """
    if os.name != "posix" or not Path("/proc/self/status").exists():
        return None
    import resource  # noqa: PLC0415 - not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    peak = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmPeak:")), 0)
    if limit == resource.RLIM_INFINITY or peak < limit - _NEAR_LIMIT:
        return None
    return _told(_REASONS[errno.ENOMEM], None, f" ({type(error).__name__}: {error})")


def named(error: InputError, what: str) -> InputError:
    """The same error with what it belongs to before its message."""
    return type(error)(f"{what}: {error}")


@contextmanager
def writing(path: Path, temporary: Path) -> Iterator[None]:
    """Write a temporary file in this block that is to become `path`; it is removed if the block leaves it there.

    Raises:
        InputError: If the block raised because the system refused something; where a library does not say so, the
            system itself is asked, by writing on to the temporary file.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, Seg25dError):
            raise
        if reason := refusal(error, path) or _ask(temporary, path):
            raise reason from error
        raise
    finally:
        with suppress(OSError):  # as on a file system that has become read-only
            temporary.unlink(missing_ok=True)


def refusal_to_read(error: BaseException, path: Path) -> InputError | None:
    """What the system refused when a library could not read a file; None: the file itself is at fault, or missing."""
    if reason := refusal(error, path):
        return reason
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as refused:
        return refusal(refused, path)
    return None


def check_room(path: Path) -> None:
    """Check that a file could be longer, after a library has written it that does not notice a full disk.

    Raises:
        OSError: If not; the file has to go then.
    """
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(PROBED_BYTES))
        file.truncate(size)


def check_open_files(needed: int, what: str) -> None:
    """Check that this process may open some more files, where running out of them later would show too late.

    Args:
        needed: How many.
        what: What needs them, for the message.

    Raises:
        ResourceError: If not.
    """
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return
    limit, folder = resource.getrlimit(resource.RLIMIT_NOFILE)[0], Path("/dev/fd")
    free = limit - (sum(1 for _ in folder.iterdir()) if folder.is_dir() else 3)
    if limit != resource.RLIM_INFINITY and free < needed:
        raise ResourceError(
            f"{what} need {needed} open files, of which {max(0, free)} are left; raise the limit of {limit} "
            f"(`ulimit -n {4096}`) or use a smaller --num-processes, {_AGAIN}"
        )


def _ask(temporary: Path, path: Path) -> InputError | None:
    """Write on to a temporary file: what the system refuses then, it has refused before."""
    try:
        temporary.touch()
        check_room(temporary)
    except OSError as error:
        return refusal(error, path)
    return None


def system_number(error: BaseException) -> int:
    """The system's number of an error, also where a library has only the words of one of ours; 0 for any other."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno in _REASONS:
        return error.errno
    message = str(error)
    return next((number for sign, number in _SIGNS.items() if sign in message), 0)


def _named_file(error: BaseException) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


def _detail(error: BaseException) -> str:
    """What numpy and torch say of how much memory was asked for."""
    message = " ".join(str(error).split())
    is_of_library = system_number(error) == errno.ENOMEM and not isinstance(error, OSError)
    return f" ({message})" if message and is_of_library else ""


def _told(reason: _Reason, path: Path | None, detail: str) -> InputError:
    words = reason.words.replace(";", f"{detail};", 1)
    return (ResourceError if reason.for_all else InputError)(f"{path}: {words}" if path else words)
