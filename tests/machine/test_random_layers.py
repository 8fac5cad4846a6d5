"""200 random layers a run, in processes of their own, so that a crash or a hang is a failure and not an end."""

import datetime
import os
import sys
from pathlib import Path

import pytest

from seg25d.machine.names import KNOWN, LAYERS
from seg25d.machine.self_test import run_checks

TRIALS = int(os.environ.get("SEG25D_FUZZ_COUNT", "10"))
"""Of each of the five kinds of layers, for each seed and number of threads."""
SEEDS = {"fixed": 20261121, "of the day": datetime.datetime.now(datetime.UTC).date().toordinal()}
MALLOC_DEBUG = "libc_malloc_debug.so.0"


@pytest.mark.slow
@pytest.mark.processor
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_layers_in_bfloat16_are_right(seed: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc checks each piece of memory that is freed, where it can."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    if sys.platform == "linux" and any(Path("/").glob(f"lib/*/{MALLOC_DEBUG}")):
        monkeypatch.setenv("MALLOC_CHECK_", "3")
        monkeypatch.setenv("LD_PRELOAD", MALLOC_DEBUG)
    checks = [check for check in LAYERS if check != KNOWN]
    findings = run_checks("cpu", "bfloat16", checks, 2 * SEEDS[seed] + threads, seconds=300, trials=TRIALS)
    assert [finding.status for finding in findings] == ["right"] * len(checks), findings
