"""benchmarks/mixing_facts.py: lines of the rule's table from a table whose truth is made up."""

from typing import Any

import numpy as np
import pytest
from mixing_facts import gains_of, line_of

from seg25d.planning.mixing_rule import DataKind, MeasuredGain, default_mixing

MACHINE = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
CASES = [f"case_{number}" for number in range(12)]


def row(configuration: str, mean: float, trainings: int = 3) -> dict[str, Any]:
    """A row with this mean: cases differ by 0.05, in all rows alike, errors by 0.001."""
    of_cases = np.random.default_rng(7).normal(0, 0.05, len(CASES))
    errors = np.random.default_rng(len(configuration)).normal(0, 0.001, (trainings, len(CASES)))
    scores = mean + of_cases + errors
    return {
        "name": configuration.replace("axial", "2d"),
        "configuration": configuration,
        "spacing_mm": [10.0, 1.5, 1.5],
        "num_channels": 1,
        "seeds": list(range(trainings)),
        "machines": [MACHINE],
        "cases": CASES,
        "scores": {"dice": scores.tolist()},
    }


def table(*rows: dict[str, Any], **settings: str) -> dict[str, Any]:
    return {"dataset": "Dataset027_ACDC", "settings": settings or {"time_budget": "600.0"}, "rows": list(rows)}


def test_each_mixing_is_compared_with_the_same_configuration_without_it() -> None:
    other = {"name": "nnU-Net 2d", "cases": CASES, "scores": {"dice": [[0.9] * 12] * 3}}
    rows = [row("axial", 0.80), row("si", 0.70), row("axial__shift", 0.82), row("si__conv", 0.69), other]
    first, second = gains_of(table(*rows), "mixing_27.json")
    assert (first.configuration, first.mixing, second.configuration, second.mixing) == ("axial", "shift", "si", "conv")
    assert first.kind == DataKind(anisotropic=True, multimodal=False)
    assert (first.gain, second.gain) == (pytest.approx(0.02, abs=0.002), pytest.approx(-0.01, abs=0.002))
    assert first.low < first.gain < first.high
    assert first.num_seeds == 3
    assert first.source == ("Dataset027_ACDC, 600 s on Processor X, 2 cores, 1 thread, torch 2.13.0; mixing_27.json")
    measured = [first, second]
    assert default_mixing("axial", (8.0, 1.0, 1.0), 1, measured).mixing == "shift"
    assert default_mixing("si", (8.0, 1.0, 1.0), 1, measured).mixing is None
    # What is printed is what the table takes.
    names = {"MeasuredGain": MeasuredGain, "DataKind": DataKind}
    assert eval(line_of(first), names) == (first,)


@pytest.mark.parametrize(
    "document",
    [
        table(row("si", 0.7), row("si__shift", 0.8), iterations="300"),
        table(row("si__shift", 0.8)),
        table(row("si", 0.7), row("si__shift", 0.8, trainings=1)),
        table(row("si", 0.7), {**row("si__shift", 0.8), "cases": CASES[::-1]}),
    ],
)
def test_what_says_too_little_gets_no_line(document: dict[str, Any]) -> None:
    assert list(gains_of(document, "mixing.json")) == []
