"""Programs in place of seg25d's, for tests of what runs tasks: words say what a task does."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from seg25d.orchestration.task import Call, Outcome


def program(words: Sequence[str]) -> int:
    """Do what the words say: `touch FILE`, `fail STATUS TEXT`, `sleep SECONDS`, `die`, `die_once FILE`, `count FILE`.

    `term FILE` sends SIGTERM to its own process, and writes the file if that goes on. `wait_for_term FILE` waits for
    SIGTERM or Ctrl-C, for 30 s at most, and then writes the file.
    """
    what, *rest = words
    if what == "touch":
        Path(rest[0]).write_text(str(os.getpid()))
    elif what == "fail":
        sys.stderr.write(f"error: {rest[1]}\n")
        return int(rest[0])
    elif what == "sleep":
        until = time.monotonic() + float(rest[0])
        while time.monotonic() < until:
            time.sleep(0.05)  # between which Ray can interrupt it
    elif what == "count":
        with Path(rest[0]).open("a") as file:
            file.write("x")
    elif what == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        Path(rest[0]).touch()
    elif what == "wait_for_term":
        _wait_for_term(Path(rest[0]))
    elif what == "die" or (what == "die_once" and not Path(rest[0]).exists()):
        if rest:
            Path(rest[0]).write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def cannot_begin(call: Call) -> Outcome:
    """In place of `perform`, where the files of a task cannot be written."""
    raise OSError(f"no space left for {call.name}")


def _wait_for_term(file: Path) -> None:
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    file.with_name(f"{file.name}.begun").touch()
    until = time.monotonic() + 30
    while not received and time.monotonic() < until:
        time.sleep(0.02)
    if received:
        file.touch()
