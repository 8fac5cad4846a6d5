"""Commands that are killed in the middle of a pass over cases, in a process of their own, and what is done after it."""

import importlib
import signal
import subprocess
import sys

import pytest

from seg25d.cli.main import main
from seg25d.core import progress

_DYING = """
import importlib, os, signal, sys
from seg25d.cli.main import main
from seg25d.core import progress

progress.SECONDS_BETWEEN_WRITES, progress.SHARE_OF_WRITES = 0.0, float("inf")
module, name, calls = importlib.import_module(sys.argv[1]), sys.argv[2], int(sys.argv[3])
function = getattr(module, name)

def until_then(*arguments, **others):
    global calls
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    calls -= 1
    return function(*arguments, **others)

setattr(module, name, until_then)
main([*sys.argv[4:], "--num-processes", "0"])
"""


def run_until(place: str, calls: int, *words: object) -> None:
    """Kill a command (SIGKILL) when it calls a function for the next time; what is done is written after each case.

    Args:
        place: The function, `seg25d.MODULE:NAME`.
        calls: That it survives.
        words: Of the command; its cases are done in its own process.
    """
    arguments = [*place.split(":"), str(calls), *map(str, words)]
    done = subprocess.run([sys.executable, "-c", _DYING, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def calls_of(place: str, *words: object) -> int:
    """Run a command to its end in this process, and count the calls of a function."""
    module_name, name = place.split(":")
    module, calls = importlib.import_module(module_name), 0
    function = getattr(module, name)

    def counted(*arguments: object, **others: object) -> object:
        nonlocal calls
        calls += 1
        return function(*arguments, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
        patch.setattr(module, name, counted)
        assert main([*map(str, words), "--num-processes", "0"]) == 0
    return calls
