"""Programs in place of seg25d's, for tests of what runs tasks: words say what a task does."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def program(words: Sequence[str]) -> int:
    """Do what words say: `touch FILE`, `fail STATUS TEXT`, `sleep SECONDS`, `count FILE`, `die`, `die_once FILE`."""
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
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "die_once" and not Path(rest[0]).exists():
        Path(rest[0]).write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return 0
