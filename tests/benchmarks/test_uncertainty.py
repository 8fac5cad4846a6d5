"""benchmarks/uncertainty.py: what it says of figures whose worth is known; that it predicts is seen when it is used."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        return importlib.import_module("uncertainty")


def cases(figures: tuple[str, ...]) -> list[dict[str, Any]]:
    """The expected Dice tells the Dice, all others are noise."""
    rng = np.random.default_rng(0)
    dice = rng.uniform(0.5, 0.9, 60)
    return [
        {
            "case": f"case_{number:02d}",
            "fold": number % 5,
            "areas": {},
            "structures": {
                "1": {
                    "dice": float(value),
                    "figures": {name: float(rng.random()) for name in figures} | {"expected Dice": float(value) - 3},
                }
            },
        }
        for number, value in enumerate(dice)
    ]


def test_errors_are_compared_case_by_case(script: ModuleType) -> None:
    known = cases(script.FIGURES)
    exact, noise = (script.calibrated(known, name) for name in ("expected Dice", "mean probability"))
    assert script.errors(exact) == pytest.approx(np.zeros(60), abs=1e-4)
    found = script.compared(exact, noise)
    assert found["difference"] == pytest.approx(-noise.judgement.mean_absolute_error, abs=1e-4)
    low, high = found["interval"]
    assert low < found["difference"] < high < 0
    assert script.compared(noise, noise) == {"difference": 0, "interval": [0, 0]}
    other = script.compared(script.calibrated(known, "entropy"), noise)
    assert other["interval"][0] < 0 < other["interval"][1], "one noise is as good as another"
