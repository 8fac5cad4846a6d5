"""Reading of one changed file in a process of its own, and what may not happen then."""

import faulthandler
import os
import random
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fuzz_headers import SECONDS, Outcome, run_apart

from faults.attempts import Result
from seg25d.cli.common import run_guarded

ALONE = ("--device", "cpu", "--num-processes", "0", "--quiet")
"""Options of commands that make no processes."""
Read = Callable[[], int]


class Payload:
    """Writes a file outside when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../payload_ran",)


def attempt(
    change: Callable[[random.Random, Path, Path], Read], rng: random.Random, prepared: Path, folder: Path
) -> Result:
    """Change a file and read it.

    Args:
        change: Writes the changed file into a folder, given the random numbers, the good files and the folder, and
            gives what reads it.
        rng: Of this attempt.
        prepared: The folder of `prepare`.
        folder: An empty folder; what is read lies so deep in it that names with `..` stay inside.
    """
    torch.set_num_threads(1)
    inside = folder / "a" / "b" / "c" / "d"
    inside.mkdir(parents=True)
    read = change(rng, prepared / "models", inside)
    before = _tree(folder)
    outcome = run_apart(partial(_in_folder, inside, read))
    faults = _faults(outcome, before, _tree(folder), inside)
    words = "; ".join(faults) if faults else {0: "read", 2: "refused"}[outcome.status]
    return Result(not faults, words, f"status {outcome.status}, {outcome.seconds:.1f} s\n{outcome.text[-3000:]}")


def _in_folder(folder: Path, read: Read) -> int:
    os.chdir(folder)
    faulthandler.dump_traceback_later(SECONDS - 4, file=2)  # says where it hangs
    statuses: list[int] = []
    status = run_guarded(lambda: statuses.append(read()), debug=False)
    return status or statuses[0]


def _faults(outcome: Outcome, before: Mapping[str, str], after: Mapping[str, str], inside: Path) -> list[str]:
    """What is not as promised."""
    faults = [] if outcome.status in (0, 2) else [f"ended with {outcome.status}"]
    if "Traceback" in outcome.text or "bug of seg25d" in outcome.text:
        faults.append("traceback")
    if outcome.status == 2 and len(outcome.text) < 20:
        faults.append("no message")
    if any(letter in outcome.text for letter in "\x1b\x00\u202e\x9b"):
        faults.append("escapes printed")
    allowed = tuple(f"a/b/c/d/{name}" for name in ("workspace", "out"))
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    if outside := [name for name in changed if not name.startswith(allowed)]:
        faults.append(f"changed {outside[0]}")
    if left := [name for name in after if "/.tmp-" in name]:
        faults.append(f"left {left[0]}")
    refused = outcome.status == 2 and "is installed" not in outcome.text
    if refused and any(name.endswith((".safetensors", ".zip")) for name in set(after) - set(before)):
        faults.append("installed what it refused")
    return faults


def _tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with size and time, and every folder."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        sizes = "" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} {status.st_mtime_ns}"
        found[path.relative_to(folder).as_posix()] = sizes
    return found
