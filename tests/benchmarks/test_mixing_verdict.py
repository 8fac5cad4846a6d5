"""benchmarks/mixing_verdict.py: the rule for a default mixing, by tables whose truth is made up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from mixing_verdict import MARGIN, Kind, Measured, decide, lines_of, measured_in, obstacle

MACHINE = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
CASES = [f"case_{number}" for number in range(12)]
THREE = ("Dataset004_Hippocampus", "Dataset005_SarcomaPETCT", "Dataset027_ACDC")
CARDIAC = Kind(anisotropic=True, multimodal=False)


def row(name: str, mean: float, *, trainings: int = 3, spread: float = 0.001, parameters: int = 100) -> dict[str, Any]:
    """A row with this mean: cases differ by 0.05, in all rows alike, trainings and errors by `spread`."""
    of_cases = np.random.default_rng(7).normal(0, 0.05, len(CASES))
    random = np.random.default_rng(sum(map(ord, name)))
    of_trainings, errors = random.normal(0, spread, (trainings, 1)), random.normal(0, spread, (trainings, len(CASES)))
    # Their means are taken away, so that the mean of the row is what the test says.
    scores = mean + of_cases - of_cases.mean() + of_trainings - of_trainings.mean() + errors - errors.mean()
    return {
        "name": name,
        "spacing_mm": [10.0, 1.5, 1.5],
        "num_channels": 1,
        "window": [9, 64, 64],
        "seeds": list(range(trainings)),
        "machines": [MACHINE],
        "cases": CASES,
        "cost": {"num_parameters": parameters},
        "scores": {"dice": scores.tolist()},
    }


def document(*rows: dict[str, Any], dataset: str = THREE[2], **settings: str) -> dict[str, Any]:
    return {"dataset": dataset, "settings": settings or {"time_budget": "600.0"}, "rows": list(rows)}


def table(*rows: dict[str, Any], dataset: str = THREE[2], kind: Kind = CARDIAC) -> Measured:
    return Measured(dataset, kind, {each["name"]: each for each in rows})


def reason_of(plain: dict[str, Any], mixed: dict[str, Any]) -> str | None:
    return obstacle(table(plain, mixed), mixed["name"], plain["name"], 0.95)


def test_a_gain_is_an_interval_above_the_margin() -> None:
    assert reason_of(row("si", 0.70), row("si__shift", 0.72)) is None
    # Above zero, and known to be: but not by as much as counts.
    small = reason_of(row("si", 0.70), row("si__shift", 0.70 + MARGIN))
    assert small is not None
    assert small.startswith("+0.005 (+0.00")
    assert small.endswith("is not above 0.005")
    # The same mean, and seeds that differ by as much.
    unsure = reason_of(row("si", 0.70, spread=0.02), row("si__shift", 0.72, spread=0.02))
    assert unsure is not None
    assert "(-0." in unsure


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"cases": CASES[::-1]}, "scored on other cases than si"),
        ({"machines": [MACHINE | {"cores": 4}]}, "trained on several machines"),
        ({"window": [8, 64, 64]}, "windows are 8 x 64 x 64 and those of si 9 x 64 x 64, so that mixing is not all"),
        ({"seeds": [0, 1]}, "2 of 3 seeds"),
        ({"name": "other"}, "no row si__shift"),
        ({"scores": {"dice": [[None] * 11 + [0.9]] * 3}}, "no interval"),
    ],
)
def test_what_says_too_little_does_not_count(changed: dict[str, Any], reason: str) -> None:
    told = obstacle(table(row("si", 0.7), row("si__shift", 0.9) | changed), "si__shift", "si", 0.95)
    assert told is not None
    assert told.startswith(reason)


def test_windows_that_differ_can_be_compared_where_that_is_asked_for() -> None:
    found = table(row("si", 0.7), row("si__shift", 0.9) | {"window": [8, 64, 64]})
    assert decide("si", [found]).mixing is None
    assert decide("si", [found], any_window=True).mixing == "shift"
    assert [line.split(": ")[1] for line in lines_of([found], any_window=True)] == ["no mixing", "shift"]


def test_the_best_of_several_is_not_taken_for_its_mean() -> None:
    """The highest mean has seeds that differ; of the two that gain, the dearer one is not known to be ahead."""
    shift = row("si__shift", 0.72, parameters=100)
    attention = row("si__attention", 0.722, parameters=200)
    conv = row("si__conv", 0.75, spread=0.05, parameters=110)
    verdict = decide("si", [table(row("si", 0.70), attention, conv, shift)])
    assert verdict.mixing == "shift"
    assert verdict.reason.endswith("as do attention, which are not known to be ahead of it")
    better = row("si__attention", 0.76, parameters=200)
    assert decide("si", [table(row("si", 0.70), better, conv, shift)]).mixing == "attention"


def test_the_intervals_of_all_mixings_hold_together() -> None:
    """An interval that one mixing alone would pass with, and which is too wide among three."""
    plain = row("si", 0.70, spread=0.004)
    found = [
        next(
            margin
            for margin in np.arange(0.06, 0, -0.0005)
            if obstacle(table(plain, row("si__shift", 0.70 + margin, spread=0.004)), "si__shift", "si", confidence)
        )
        for confidence in (0.95, 1 - 0.05 / 3)
    ]
    assert found[0] < found[1]
    between = 0.70 + (found[0] + found[1]) / 2
    mixed = row("si__shift", between, spread=0.004)
    assert decide("si", [table(plain, mixed)]).mixing == "shift"
    others = [row("si__conv", 0.69), row("si__attention", 0.69)]
    assert decide("si", [table(plain, mixed, *others)]).mixing is None


def of_three(gains: Sequence[float]) -> list[Measured]:
    kinds = [CARDIAC._replace(anisotropic=False), Kind(anisotropic=False, multimodal=True), CARDIAC]
    return [
        table(row("si", 0.7), row("si__shift", 0.7 + gain), dataset=dataset, kind=kind)
        for dataset, kind, gain in zip(THREE, kinds, gains, strict=True)
    ]


def test_a_default_for_all_gains_on_all_three() -> None:
    lines = lines_of(of_three([0.02, 0.03, 0.02]))
    assert lines[0] == (
        "si, all data sets: shift: it gains more than 0.005 on Dataset004_Hippocampus, Dataset005_SarcomaPETCT, "
        "Dataset027_ACDC"
    )
    lines = lines_of(of_three([0.02, -0.01, 0.02]))
    assert lines[0].startswith("si, all data sets: no mixing: shift on Dataset005_SarcomaPETCT -0.010 (-0.01")
    assert [line.split(": ")[1] for line in lines[1:]] == ["shift", "no mixing", "shift"]
    assert lines[3].startswith("si, anisotropic voxels and one channel: shift")
    few = lines_of(of_three([0.02, 0.03, 0.02])[:2])
    assert few[0] == "si, all data sets: no mixing: 2 of 3 data sets"


def test_tables_are_those_of_each_data_set_in_one_time() -> None:
    other = {"name": "nnU-Net 2d", "cases": CASES, "scores": {"dice": [[0.9] * 12] * 3}}
    rows = (other, row("si", 0.7), row("si__shift", 0.8), row("2d", 0.7))
    (found,) = measured_in([document(*rows)])
    assert (found.dataset, found.kind) == (THREE[2], CARDIAC)
    assert str(found.kind) == "anisotropic voxels and one channel"
    # Rows of nnU-Net, and configurations of which no mixing was trained, have no verdict.
    assert [line.split(",")[0] for line in lines_of([found])] == ["si", "si"]
    for documents in (
        [document(*rows), document(*rows)],
        [document(*rows, iterations="300")],
        [document(*rows), document(*rows, dataset=THREE[0], time_budget="1800.0")],
    ):
        with pytest.raises(SystemExit, match="expected a table of each data set, all in one and the same time, got"):
            measured_in(documents)
    with pytest.raises(SystemExit, match="expected rows of seg25d in the table of Dataset027_ACDC, got nnU-Net 2d"):
        measured_in([document(other)])
