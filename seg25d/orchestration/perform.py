"""Does a task in the process that calls it, and keeps its record and what it says in files."""

import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import TextIO

from seg25d.core.errors import InputError
from seg25d.core.locks import patience
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import VARIABLES
from seg25d.orchestration.task import Call, Outcome
from seg25d.runs.task_records import TaskRecord

PROGRAM = "seg25d.cli.main:main"
"""The program, looked up when a task begins: a task is a command, whoever runs it."""
PATIENCE_SECONDS = 120.0
"""How long a task waits for a place that another process holds. The locks of a lost machine are free after 90 s at the
latest: the lease of NFS 4 on Linux (`nfsv4leasetime`; docs.kernel.org, filesystems/nfs)."""


def perform(call: Call, program: str = PROGRAM) -> Outcome:
    """Do a task: run its command here, with its messages in `NAME.log` and its record in `NAME.json`.

    Args:
        call: The task.
        program: Runs words and returns the exit status: `module:function`.

    Returns:
        How it ended; an error of the command is no exception.

    Raises:
        InputError: If its files cannot be written.
        KeyboardInterrupt: If the process is to stop, outside of the command.
    """
    path, log = record_of(call), log_of(call)
    call.folder.mkdir(parents=True, exist_ok=True)
    place, begun = f"{platform.node()}, process {os.getpid()}", time.time()
    record = TaskRecord(words=call.words, place=place, begun=begun)
    write_record(path, record)
    with log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        earlier = file.tell()
        with _environment(call.environment), _own_logging(), patience(PATIENCE_SECONDS):
            status = _run(program, call.words, file)
    seconds = time.time() - begun
    message = last_error(log, earlier) if status else ""
    write_record(path, record.model_copy(update={"seconds": seconds, "status": status, "message": message}))
    return Outcome(status=status, seconds=seconds, place=place, message=message)


def record_of(call: Call) -> Path:
    """The file of a task's record."""
    return call.folder / f"{call.name}.json"


def log_of(call: Call) -> Path:
    """The file with what it says."""
    return call.folder / f"{call.name}.log"


def forget(call: Call) -> None:
    """Remove the record of an earlier attempt, before another one: what it says counts no more."""
    record_of(call).unlink(missing_ok=True)


def end_lost(call: Call, status: int, message: str) -> Outcome:
    """End the record of a task whose process is gone; what it had written itself is kept.

    Args:
        call: The task.
        status: Of its process.
        message: What happened.
    """
    path = record_of(call)
    record = None
    with suppress(InputError):  # it may have died before it wrote any
        record = read_record(path, TaskRecord)
    if record is None:
        return Outcome(status=status, message=message)
    if record.status is None:
        record = record.model_copy(update={"status": status, "seconds": time.time() - record.begun, "message": message})
        with suppress(InputError):  # a full disk: the journal says it, too
            write_record(path, record)
    ended = record.status if record.status is not None else status
    return Outcome(status=ended, seconds=record.seconds or 0.0, place=record.place, message=record.message)


def last_error(log: Path, earlier: int = 0) -> str:
    """The last error in a log, in one line; else its last line.

    Args:
        log: The file.
        earlier: Bytes of it that are from before.
    """
    with log.open("rb") as file:
        file.seek(earlier)
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1].strip()


def _run(program: str, words: Sequence[str], file: TextIO) -> int:
    with redirect_stdout(file), redirect_stderr(file):
        file.write(f"$ seg25d {' '.join(words)}\n")
        try:
            return int(resolve_name(program)(list(words)))
        except SystemExit as ended:  # of the parser
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except Exception:  # the program reports its own; whatever else stands in the log, and the task has failed
            traceback.print_exc()
            return 1


@contextmanager
def _own_logging() -> Iterator[None]:
    """Let a command set up its messages, and put those of this process back."""
    logger = logging.getLogger("seg25d")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables say where the workspace is, and none else."""
    before = {name: os.environ.pop(name, None) for name in VARIABLES}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
