"""Commands to which the system refuses something: one sentence; once it allows it, the same command completes."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults.attempts import Kind, Result
from faults.workspace import STEPS, Step, begin, compare, finish, prepare, run, start, undisturbed

REFUSING = Path(__file__).parent / "refusing"
"""The folder of the module that makes calls of a command fail."""
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENOMEM, errno.EACCES)
LARGE = 4 << 30
PAGE = 4096
OPEN_FILES = (12, 64)
"""From what Python itself needs to what no command lacks."""
MEMORY = (400 << 20, 1500 << 20)
"""Address space: from less than torch takes to be loaded to what no command here lacks (`predict`: 1.5 GB)."""
ENDED_NATIVELY = ("cannot allocate memory for thread-local data: ABORT", "std::bad_alloc")
"""What glibc and C++ say where a thread of theirs gets no memory: they end the process, and nobody can prevent it."""

Broken = Callable[[random.Random, Step, Path, Path], tuple[int, str]]
"""Runs a step while something is refused; gets where all is prepared and where it works, gives status and text."""


def attempt(broken: Broken, rng: random.Random, prepared: Path, folder: Path) -> Result:
    """Run a step while something is refused, then again."""
    step = rng.choice(STEPS)
    with small_disk(folder / "disk") if broken in ON_A_DISK else _folder(folder / "disk") as disk:
        working = disk / "working"
        begin(step, prepared, working)
        status, text = broken(rng, step, prepared, working)
        ended_natively = status in (127, -signal.SIGABRT) and any(sign in text for sign in ENDED_NATIVELY)
        if not ended_natively and (wrong := what_is_wrong(status, text)):
            return Result(False, wrong, f"{step.name}: status {status}\n{text}")
        again, text_again = run(step, working) if status else (0, "")
        if again != 0:
            return Result(False, f"again: status {again}", f"{step.name}\n{text}\n{text_again}")
        if difference := compare(step, prepared, working):
            return Result(False, "another content", f"{step.name}: status {status}\n{difference}\n{text}")
    how = "was enough" if status == 0 else "ended by a native library" if ended_natively else "refused"
    return Result(True, f"{how}, then complete" if status else how)


def what_is_wrong(status: int, text: str) -> str:
    """What a refused command should not have done; empty for one that ended with 0, or with one sentence and 2."""
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    if status not in (0, 2):
        return f"status {status}"
    if "Traceback" in text:
        return "a traceback"
    if status == 2 and (len(errors) != 1 or ";" not in text.partition("error: ")[2]):
        return f"{len(errors)} sentences without a cure"
    return ""


def full_disk(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """A disk that has room for a part of what the step writes."""
    before, after = (_size(prepared / name / step.name) for name in ("before", "after"))
    usage = os.statvfs(working)
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    room = int(max(PAGE, after - before) * rng.uniform(0, 1.3)) // PAGE * PAGE
    _mount(working.parent, f"remount,size={used + room}")
    try:
        return run(step, working)
    finally:
        _mount(working.parent, f"remount,size={LARGE}")


def read_only(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """A file system that becomes read-only, as it does after an error of a disk; not while a file is being written."""
    process = start(step, working) if (later := rng.random() < 0.7) else None
    time.sleep(undisturbed(step, prepared).seconds * rng.random() if later else 0)
    try:
        while _mount(working.parent, "remount,ro", check=False) and process is not None and process.poll() is None:
            time.sleep(0.01)
        return finish(process or start(step, working))
    finally:
        _mount(working.parent, "remount,rw")


def refused_calls(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """Any error that the system may have for what writes, at any call, of any process."""
    path = os.pathsep.join([str(REFUSING), os.environ.get("PYTHONPATH", "")])
    extra = {
        "PYTHONPATH": path,
        "REFUSE_CALLS": str(working.parent / "calls"),
        "REFUSE_IN": str(working.resolve()),
        "REFUSE_AT": str(rng.randint(1, 2 * undisturbed(step, prepared).calls)),
        "REFUSE_ERRNO": str(rng.choice(ERRORS)),
    }
    return run(step, working, extra)


def few_files(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """A limit of open files."""
    del prepared
    return _limited(step, working, resource.RLIMIT_NOFILE, rng.randint(*OPEN_FILES))


def little_memory(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """A limit of the address space."""
    del prepared
    return _limited(step, working, resource.RLIMIT_AS, rng.randint(*MEMORY))


def small_files(rng: random.Random, step: Step, prepared: Path, working: Path) -> tuple[int, str]:
    """A limit of the size of files."""
    largest = max(path.stat().st_size for path in (prepared / "after" / step.name).rglob("*") if path.is_file())
    return _limited(step, working, resource.RLIMIT_FSIZE, int(largest ** rng.uniform(0.3, 1.05)))


def _limited(step: Step, working: Path, which: int, limit: int) -> tuple[int, str]:
    process = start(step, working)
    resource.prlimit(process.pid, which, (limit, limit))
    return finish(process)


def _size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own in memory, at a folder, for as long as the block lasts."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    yield folder


def _mount(folder: Path, options: str, *, check: bool = True) -> int:
    command = ["mount", "-o", options, str(folder)]
    return subprocess.run(command, check=check, stderr=subprocess.DEVNULL if not check else None).returncode


def can_mount() -> bool:
    """Whether this user may mount file systems: else only calls are refused."""
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("mount") is not None


ON_A_DISK = (full_disk, read_only)
KINDS = tuple(
    Kind(name, prepare, partial(attempt, broken))
    for name, broken in {
        "full disk": full_disk,
        "read-only": read_only,
        "refused calls": refused_calls,
        "descriptors": few_files,
        "memory": little_memory,
        "small files": small_files,
    }.items()
    if broken not in ON_A_DISK or can_mount()
)
