"""Programs in place of seg25d's, for tests of what runs tasks: words say what a task does."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def program(words: Sequence[str]) -> int:
    """Do what the words say: `touch FILE`, `fail STATUS TEXT`, `sleep SECONDS`, `die_once FILE`, `count FILE`."""
    what, *rest = words
    if what == "touch":
        Path(rest[0]).write_text(str(os.getpid()))
    elif what == "fail":
        sys.stderr.write(f"error: {rest[1]}\n")
        return int(rest[0])
    elif what == "sleep":
        time.sleep(float(rest[0]))
    elif what == "count":
        with Path(rest[0]).open("a") as file:
            file.write("x")
    elif what == "die_once" and not Path(rest[0]).exists():
        Path(rest[0]).write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return 0
