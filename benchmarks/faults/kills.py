"""Kills of every command, at random times and at every call that changes names: the same command then completes."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from faults.attempts import Kind, Result
from faults.workspace import STEPS, Step, begin, compare, counting, finish, prepare, start, undisturbed

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS_TO_LEAVE = 20.0
"""How long children may take to notice that their parent is gone."""


class Kill(NamedTuple):
    """When a command gets which signal, and who of its processes does."""

    number: signal.Signals
    whom: str
    """`main`, `group` or `child`; at a call `main` is whichever process makes it."""
    at_call: int
    """0: at a time."""
    when: str
    """`before` or `after` the call."""
    seconds: float


def draw_kill(rng: random.Random, step: Step, prepared: Path) -> Kill:
    """Draw a kill of a step; two of three are at a call."""
    known = undisturbed(step, prepared)
    at_call = rng.randint(1, known.calls) if rng.random() < 2 / 3 else 0
    whom = rng.choice(("main", "group") if at_call else ("main", "group", "child"))
    return Kill(rng.choice(SIGNALS), whom, at_call, rng.choice(("before", "after")), known.seconds * rng.random())


def run_and_kill(step: Step, working: Path, kill: Kill, calls: Path) -> tuple[int, str]:
    """Run a step in `working` and kill it; gives its status and what it printed."""
    for path in (calls, calls.with_name(f"{calls.name}.done")):
        path.unlink(missing_ok=True)
    if kill.at_call:
        group = {"FAULT_GROUP": "1"} if kill.whom == "group" else {}
        extra = {"FAULT_AT": str(kill.at_call), "FAULT_WHEN": kill.when, "FAULT_SIGNAL": kill.number.name}
        return finish(start(step, working, counting(calls, **extra, **group)))
    process = start(step, working)
    try:
        process.wait(kill.seconds)
    except subprocess.TimeoutExpired:
        _send(process, kill)
    return finish(process)


def _send(process: subprocess.Popen[str], kill: Kill) -> None:
    if kill.whom == "group":
        os.killpg(process.pid, kill.number)
        return
    children = [each for each in members_of(process.pid) if each != process.pid]
    target = random.Random(kill.seconds).choice(children) if kill.whom == "child" and children else process.pid
    os.kill(target, kill.number)


def members_of(group: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


def attempt(rng: random.Random, prepared: Path, folder: Path) -> Result:
    """Kill a command once or twice, then run it to its end."""
    step, working = rng.choice(STEPS), folder / "working"
    begin(step, prepared, working)
    kills = [draw_kill(rng, step, prepared) for _ in range(rng.randint(1, 2))]
    told = [f"{step.name}: {' '.join(step.words)}"]
    for kill in kills:
        status, text = run_and_kill(step, working, kill, folder / "calls")
        told.append(f"{kill} ended with {status}:\n{text[-1500:]}")
        if kill.whom == "child" and ("this is a bug" in text or "this is a fault" in text):
            return Result(False, "a killed child is called a bug", "\n".join(told))
    process = start(step, working)
    status, text = finish(process)
    told.append(f"the same command ended with {status}:\n{text[-1500:]}")
    if status != 0:
        return Result(False, "the same command fails", "\n".join(told))
    if difference := compare(step, prepared, working):
        return Result(False, "the same command gives something else", "\n".join([*told, difference]))
    ends = time.monotonic() + SECONDS_TO_LEAVE
    while left := members_of(process.pid):
        if time.monotonic() > ends:
            return Result(False, "processes stay", "\n".join([*told, str(left)]))
        time.sleep(0.1)
    return Result(True, f"complete after {kills[-1].number.name}")


KILL = Kind("kill", prepare, attempt)
