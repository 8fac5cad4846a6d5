"""Two commands at once in one workspace: each completes or says that the other one is at work; nothing is mixed."""

import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from faults.attempts import Kind, Result
from faults.workspace import IMAGES, STEPS, Step, begin, compare, differences, finish, prepare, run, start

LONGEST_DELAY = 3.0
"""Seconds between the starts."""


class Pair(NamedTuple):
    """Two commands, and the steps before and after which a workspace is where it is before and after them."""

    first: Step
    second: Step
    before: str
    after: str


def _step(name: str, *further: str) -> Step:
    """A step, with further words."""
    return next(Step(name, (*each.words, *further)) for each in STEPS if each.name == name)


PAIRS = (
    *(Pair(step, step, step.name, step.name) for step in STEPS),
    Pair(_step("pretrain"), _step("train"), "pretrain", "train"),
    Pair(_step("plan"), _step("train"), "train", "train"),
    Pair(_step("plan", "--clean"), _step("train"), "train", "train"),
    Pair(_step("plan", "--clean"), _step("pretrain"), "pretrain", "pretrain"),
    Pair(_step("train 2d"), _step("train mv"), "train 2d", "train mv"),
    Pair(_step("train", "--restart"), _step("find_best"), "find_best", "find_best"),
    Pair(_step("find_best"), _step("predict"), "find_best", "predict"),
    Pair(_step("plan", "--clean"), _step("find_best"), "find_best", "find_best"),
    Pair(_step("predict", "--overwrite"), _step("ensemble"), "ensemble", "ensemble"),
    Pair(_step("predict", "--overwrite"), _step("evaluate"), "evaluate", "evaluate"),
    Pair(_step("train", "--restart"), _step("export"), "export", "export"),
    Pair(_step("train", "--restart"), _step("report"), "report", "report"),
    Pair(_step("find_best"), _step("report"), "report", "report"),
)
OTHER_MODEL = Step(
    "predict 2d into out",
    ("predict", "-i", IMAGES, "-o", "out", "-d", "900", "-c", "2d", "--save-probabilities"),
)
BUSY = "is in use"


def attempt(rng: random.Random, prepared: Path, folder: Path) -> Result:
    """Start two commands at nearly the same time, run again what was refused, and compare."""
    working = folder / "working"
    if rng.random() < 1 / 6:
        return two_models(rng, prepared, working)
    pair = rng.choice(PAIRS)
    name = f"{pair.first.name} + {pair.second.name}"
    begin(next(step for step in STEPS if step.name == pair.before), prepared, working)
    ended = at_once(rng, (pair.first, pair.second), working)
    told = [name, *(f"{status}:\n{text[-1500:]}" for status, text in ended)]
    if any(status not in (0, 2) for status, _ in ended):
        return Result(False, "another status than 0 and 2", "\n".join(told))
    if pair.first == pair.second and any(status == 2 and BUSY not in text for status, text in ended):
        return Result(False, "refused for another reason", "\n".join(told))
    for step, (status, _) in zip((pair.first, pair.second), ended, strict=True):
        # A later one may have been undone by an earlier one that starts over.
        if status == 2 or "--restart" in pair.first.words or "--overwrite" in pair.first.words:
            without = tuple(word for word in step.words if word not in ("--restart", "--overwrite"))
            again, text = run(step._replace(words=without), working)
            told.append(f"again {again}:\n{text[-1500:]}")
            if again != 0:
                return Result(False, "what was refused fails again", "\n".join(told))
    step = next(step for step in STEPS if step.name == pair.after)
    if difference := compare(step, prepared, working):
        return Result(False, "something else than undisturbed", "\n".join([*told, difference]))
    return Result(True, "both" if all(status == 0 for status, _ in ended) else "one was refused, and then done")


def at_once(rng: random.Random, steps: tuple[Step, Step], working: Path) -> list[tuple[int, str]]:
    """Start two commands in any order; gives status and messages of each."""
    order = rng.sample((0, 1), 2)
    processes = {}
    for number in order:
        processes[number] = start(steps[number], working)
        time.sleep(rng.uniform(0, LONGEST_DELAY) if len(processes) == 1 else 0)
    return [finish(processes[number]) for number in (0, 1)]


def two_models(rng: random.Random, prepared: Path, working: Path) -> Result:
    """Predict with two models into one folder: it is of one of them alone."""
    own = _step("predict")
    begin(_step("predict 2d"), prepared, working)
    expected = {own: working.with_name("one"), OTHER_MODEL: working.with_name("other")}
    shutil.copytree(working / "out", expected[own])
    shutil.copytree(prepared / "after" / "predict 2d" / "out2d", expected[OTHER_MODEL])
    shutil.rmtree(working / "out")
    ended = dict(zip(expected, at_once(rng, (own, OTHER_MODEL), working), strict=True))
    told = "\n".join(f"{step.name} {status}:\n{text[-1500:]}" for step, (status, text) in ended.items())
    if sorted(status for status, _ in ended.values()) != [0, 2]:
        return Result(False, "not one of two models", told)
    done = next(step for step, (status, _) in ended.items() if status == 0)
    if found := list(differences(expected[done], working / "out")):
        return Result(False, "a mixture of two models", f"{told}\n{found}")
    return Result(True, "one of two models")


PAIR = Kind("pair", prepare, attempt)
