"""The mean probability, the lines that make a Dice of it, and how they are judged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.errors import RecordError
from seg25d.core.records import parse_record, write_record
from seg25d.evaluation.predicted_dice import (
    LEAST_FOR_A_LINE,
    Calibration,
    JudgedCase,
    KnownCase,
    Line,
    Sums,
    calibrate,
    judge,
    mean_dice,
    read_calibration,
)


def sums(mean: float, voxels: int = 100) -> Sums:
    """Sums with a mean probability."""
    return Sums(voxels=voxels, inside=mean * voxels)


def known(number: int, mean: float, dice: float | None, fold: int = 0, **more: Sums) -> KnownCase:
    return KnownCase(
        case=f"case_{number:03d}",
        fold=fold,
        sums={"1": sums(mean), **more},
        dice={"1": dice, **dict.fromkeys(more)},
        present=frozenset({"1"} if dice else {}),
    )


def test_the_mean_probability_is_the_share_that_is_right_if_the_probabilities_are(rng: np.random.Generator) -> None:
    probabilities = np.concatenate([rng.beta(0.5, 4, 4000), rng.beta(4, 0.5, 2000)])
    chosen = probabilities > 0.5
    own = Sums(voxels=int(chosen.sum()), inside=probabilities[chosen].sum())
    right = (rng.random((200, 6000)) < probabilities)[:, chosen].mean(1)
    assert own.mean_probability == pytest.approx(right.mean(), abs=3 * right.std() / np.sqrt(200))


def test_the_mean_probability_is_over_what_was_segmented() -> None:
    assert Sums(voxels=7, inside=7).mean_probability == 1
    assert Sums(voxels=8, inside=6).mean_probability == 0.75
    assert Sums(voxels=0, inside=0).mean_probability is None


def test_what_was_fitted_to_another_figure_is_never_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibration = calibrate([known(n, 0.8 + 0.01 * n, 0.7 + 0.01 * n) for n in range(12)])
    assert calibration is not None
    path = tmp_path / "predicted_dice.json"
    write_record(path, calibration)
    assert read_calibration(path) == calibration
    assert not caplog.records
    path.write_text(json.dumps(calibration.model_dump(mode="json") | {"schema_version": 1}))
    assert read_calibration(path) is None
    assert "predicted_dice.json is not used" in caplog.text
    assert "FOLD --val` of all its folds makes it again" in caplog.text
    path.write_text("{}")
    with pytest.raises(RecordError, match=r"predicted_dice\.json is not valid"):
        read_calibration(path)


@given(st.floats(0.1, 3), st.floats(-0.5, 0.5, allow_subnormal=False), st.integers(2, 5))
def test_lines_are_found_again_and_judged_on_other_folds(slope: float, offset: float, folds: int) -> None:
    values = np.linspace(0.5, 0.9, 12 * folds)
    cases = [known(n, x, float(np.clip(offset + slope * x, 0, 1)), n % folds) for n, x in enumerate(values)]
    straight = all(0 < offset + slope * x < 1 for x in values)
    calibration = calibrate(cases)
    assert calibration is not None
    if straight:
        assert calibration.lines["1"].slope == pytest.approx(slope, rel=1e-6)
        assert calibration.judgement.mean_absolute_error == pytest.approx(0, abs=2e-4)
        assert calibration.judgement.correlation == pytest.approx(1, abs=1e-3)
    marked = [calibration.marks(calibration.predict(case.sums)) for case in cases]
    assert sum(marked) <= -(-len(cases) // 5)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_no_case_is_judged_by_a_line_that_it_helped_to_fit() -> None:
    cases = [known(n, 0.8 + 0.01 * (n % 10), 0.5, fold=0) for n in range(10)]
    cases += [known(n, 0.8 + 0.01 * (n % 10), 0.9, fold=1) for n in range(10, 20)]
    calibration = calibrate(cases)
    assert calibration is not None
    predicted = {case.case: case.predicted["1"] for case in calibration.cases}
    assert predicted["case_000"] == pytest.approx(0.9)
    assert predicted["case_010"] == pytest.approx(0.5)


def test_few_cases_give_their_mean() -> None:
    cases = [known(n, 0.5 + 0.04 * n, 0.1 * n) for n in range(LEAST_FOR_A_LINE - 1)]
    calibration = calibrate(cases)
    assert calibration is not None
    assert calibration.lines["1"].slope == 0
    assert calibration.lines["1"].offset == pytest.approx(0.4)


def test_a_line_does_not_fall() -> None:
    calibration = calibrate([known(n, 0.5 + 0.01 * n, 0.9 - 0.01 * n) for n in range(20)])
    assert calibration is not None
    assert calibration.lines["1"].slope == 0


def test_a_structure_that_is_missing_has_a_dice_of_0_where_all_have_it() -> None:
    nothing = Sums(voxels=0, inside=0)
    assert Line(slope=1, offset=0, always=True).predict(nothing) == 0
    assert Line(slope=1, offset=0, always=False).predict(nothing) is None
    cases = [known(n, 0.8, 0.8) for n in range(20)]
    calibration = calibrate(cases)
    assert calibration is not None
    assert calibration.marks(calibration.predict({"1": nothing}))
    some = [known(n, 0.8, None if n % 2 else 0.8) for n in range(20)]
    calibration = calibrate(some)
    assert calibration is not None
    assert not calibration.marks(calibration.predict({"1": nothing}))


def test_structures_that_no_case_has_are_left_out() -> None:
    calibration = calibrate([known(n, 0.8, 0.8, **{"2": Sums(voxels=0, inside=0)}) for n in range(12)])
    assert calibration is not None
    assert set(calibration.lines) == {"1"}
    assert calibrate([known(1, 0.8, None)]) is None
    assert calibrate([]) is None


def test_judging_counts_the_worst_cases_among_the_suspects() -> None:
    def case(number: int, predicted: float, dice: float) -> JudgedCase:
        return JudgedCase(case=f"c{number}", predicted={"1": predicted, "2": None}, dice={"1": dice, "2": 0.3})

    cases = [case(n, n / 100, n / 100) for n in range(20)]
    judged = judge(cases)
    assert (judged.worst, judged.found) == (2, 2)
    assert judged.correlation == pytest.approx(1)
    turned = judge([case(n, n / 100, 1 - n / 100) for n in range(20)])
    assert (turned.worst, turned.found) == (2, 0)
    assert turned.correlation == pytest.approx(-1)
    assert judge([case(0, 0.5, 0.7)]).mean_absolute_error == pytest.approx(0.2)
    assert judge([]).mean_absolute_error is None


def test_without_lines_no_case_is_marked_and_nothing_is_claimed(rng: np.random.Generator) -> None:
    for _ in range(50):
        cases = [known(n, 0.8, float(dice), n % 2) for n, dice in enumerate(rng.uniform(0.7, 0.9, 8))]
        calibration = calibrate(cases)
        assert calibration is not None
        assert calibration.is_flat
        assert not any(calibration.marks(calibration.predict(case.sums)) for case in cases)
        judged = calibration.judgement
        assert (judged.correlation, judged.correlation_of_cases, judged.found) == (None, None, None)


def test_means_of_other_folds_are_no_predictions(rng: np.random.Generator) -> None:
    """Twelve cases have a line, the six of the other fold have none: a worse fold has the better mean of others."""
    cases = [known(n, 0.8 + 0.01 * n, 0.7 + 0.02 * n + 0.01 * float(rng.random()), n % 2) for n in range(12)]
    calibration = calibrate(cases)
    assert calibration is not None
    assert not calibration.is_flat
    judged = calibration.judgement
    assert (judged.correlation, judged.correlation_of_cases, judged.found) == (None, None, None)
    more = calibrate([*cases, *(case.model_copy(update={"case": f"more_{case.case}"}) for case in cases)])
    assert more is not None
    assert more.judgement.correlation == pytest.approx(1, abs=0.1)


def test_that_one_structure_is_easier_than_another_is_no_knowledge_of_cases(rng: np.random.Generator) -> None:
    def case(number: int) -> JudgedCase:
        dice = {"1": 0.9 + 0.05 * rng.random(), "2": 0.3 + 0.05 * rng.random()}
        predicted = {"1": 0.9 + 0.05 * rng.random(), "2": 0.3 + 0.05 * rng.random()}
        return JudgedCase(case=f"c{number}", predicted=predicted, dice=dice)

    judged = judge([case(number) for number in range(400)])
    assert judged.correlation is not None
    assert abs(judged.correlation) < 0.15


def test_a_false_structure_does_not_make_it_one_that_all_have() -> None:
    some = [known(n, 0.8, 0.0 if n == 3 else 0.9) for n in range(12)]
    calibration = calibrate(some)
    assert calibration is not None
    assert calibration.lines["1"].always is False


def test_a_case_of_two_folds_is_judged_by_neither() -> None:
    twice = [known(0, 0.9, 0.1, fold) for fold in (0, 1)]
    cases = [*twice, *(known(n, 0.8, 0.8, n % 2) for n in range(1, 21))]
    calibration = calibrate(cases)
    assert calibration is not None
    assert [case.predicted["1"] for case in calibration.cases if case.case == "case_000"] == [0.8, 0.8]


@pytest.mark.parametrize(
    "change",
    [{"marked_below": 1e300}, {"error_of_means": -1}, {"cases": [{"case": "../a", "predicted": {}, "dice": {}}]}],
)
def test_numbers_of_files_have_bounds(change: dict[str, Any]) -> None:
    calibration = calibrate([known(n, 0.8, 0.8) for n in range(12)])
    assert calibration is not None
    with pytest.raises(RecordError):
        parse_record(calibration.model_dump(mode="json") | change, Calibration, "file")


def test_means_leave_out_what_is_not_known() -> None:
    assert mean_dice({"1": 0.5, "2": None, "3": 1.0}) == 0.75
    assert mean_dice({"1": None}) is None
