"""Kills of every command, and two commands at once: the same command ends with the content of an undisturbed run.

A few attempts of `benchmarks/fault_campaign.py`, and each step once with a kill at a call of its own.
"""

import os
import random
import signal
from pathlib import Path

import pytest
from faults import kills, pairs
from faults.attempts import random_of
from faults.workspace import STEPS, Step, begin, compare, run, undisturbed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.campaign,
    pytest.mark.skipif(os.name != "posix", reason="needs process groups"),
]
SEED = 24


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_survives_a_kill_at_a_call(step: Step, prepared: Path, tmp_path: Path) -> None:
    rng = random.Random(step.name)
    working = tmp_path / "working"
    begin(step, prepared, working)
    call = rng.randint(1, undisturbed(step, prepared).calls)
    kill = kills.Kill(signal.SIGKILL, "group", call, rng.choice(("before", "after")), 0.0)
    kills.run_and_kill(step, working, kill, tmp_path / "calls")
    status, text = run(step, working)
    assert status == 0, text
    assert compare(step, prepared, working) == ""


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", [kills.KILL, pairs.PAIR], ids=lambda kind: kind.name)
def test_attempts_of_the_campaign(kind: kills.Kind, number: int, prepared: Path, tmp_path: Path) -> None:
    result = kind.attempt(random_of(SEED, kind, number), prepared, tmp_path / "attempt")
    assert result.as_promised, f"{result.outcome}\n{result.detail}"


def test_two_models_never_mix_in_one_folder(prepared: Path, tmp_path: Path) -> None:
    result = pairs.two_models(random.Random(SEED), prepared, tmp_path / "working")
    assert result.as_promised, f"{result.outcome}\n{result.detail}"
