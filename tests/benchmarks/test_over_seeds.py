"""benchmarks/over_seeds.py: what it says of methods whose difference is known."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from over_seeds import Difference, difference, mean_over_seeds, patient_of
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

SEEDS = 3
REPEATS = 2000
MOST = 0.067
"""Of these; of 20,000 repeats it was 0.057 at the most, and that many have a standard deviation of 0.005."""


class Spread(NamedTuple):
    """Standard deviations of the effects of methods that are equal."""

    seed: float = 0.0
    """Of a training."""
    case: float = 0.0
    """Of a case in one method."""
    error: float = 0.0
    shared: float = 0.0
    """Of a seed, which both methods have in common."""


SPREADS = (
    Spread(seed=0.01, error=0.01),
    Spread(seed=0.003, error=0.01),
    Spread(seed=0.003, case=0.01, error=0.01),
    Spread(case=0.01, error=0.02),
    Spread(seed=0.02, case=0.02),
    Spread(seed=0.01, case=0.02),
)


def drawn(random: np.random.Generator, spread: Spread, cases: int = 20) -> np.ndarray:
    """Scores of two methods without a difference: (methods, trainings, cases)."""
    shared = random.normal(0.8, 0.1, cases) + random.normal(0, spread.shared, (SEEDS, 1))
    methods = [
        shared
        + random.normal(0, spread.case, cases)
        + random.normal(0, spread.seed, (SEEDS, 1))
        + random.normal(0, spread.error, (SEEDS, cases))
        for _ in range(2)
    ]
    return np.stack(methods)


def share_of_false_positives(spread: Spread, cases: int, *, paired: bool) -> float:
    """How often equal methods differ with p < 0.05; the interval says the same."""
    random = np.random.default_rng(0)
    found = [difference(*drawn(random, spread, cases).tolist(), paired=paired) for _ in range(REPEATS)]
    share = float(np.mean([each is not None and each.p is not None and each.p < 0.05 for each in found]))
    covered = np.mean([each is not None and each.low < 0 < each.high for each in found])  # type: ignore[operator]
    assert covered == pytest.approx(1 - share, abs=1e-3)
    return share


@pytest.mark.parametrize("cases", [5, 20])
@pytest.mark.parametrize("spread", SPREADS)
def test_of_equal_methods_at_most_one_in_twenty_differs(spread: Spread, cases: int) -> None:
    assert share_of_false_positives(spread, cases, paired=False) < MOST


@pytest.mark.parametrize("cases", [5, 20])
@pytest.mark.parametrize("spread", [*SPREADS, Spread(seed=0.003, error=0.01, shared=0.03)])
def test_nor_of_methods_whose_trainings_belong_together(spread: Spread, cases: int) -> None:
    assert share_of_false_positives(spread, cases, paired=True) < MOST


def test_what_both_methods_have_of_a_seed_does_not_hide_a_difference() -> None:
    """Fusions of the same views: seeds move both by 0.03, their difference by hardly anything."""
    mine, their = drawn(np.random.default_rng(0), Spread(seed=0.001, error=0.003, shared=0.03))
    mine += 0.01
    apart, paired = (difference(mine.tolist(), their.tolist(), paired=each) for each in (False, True))
    assert apart is not None
    assert paired is not None
    assert apart.mean == pytest.approx(paired.mean)
    assert (apart.p or 0.0) > 0.05 > (paired.p or 1.0)
    with pytest.raises(ValueError, match="expected trainings with the same seeds, got 3 and 2 of them"):
        difference(mine.tolist(), their[:2].tolist(), paired=True)


def test_a_test_over_cases_alone_would_find_what_seeds_did() -> None:
    random = np.random.default_rng(0)
    wrong, right = 0, 0
    for _ in range(300):
        mine, their = drawn(random, Spread(seed=0.01, error=0.01))
        wrong += ttest_rel(mine[0], their[0]).pvalue < 0.05
        found = difference(mine.tolist(), their.tolist())
        assert found is not None
        right += (found.p or 0.0) < 0.05
    assert wrong > 150
    assert right < 30


def test_without_an_effect_of_cases_it_is_the_test_of_two_samples_of_trainings() -> None:
    mine, their = np.array([0.80, 0.82, 0.81])[:, None], np.array([0.84, 0.87, 0.85])[:, None]
    rows = np.repeat(mine, 5, 1).tolist(), np.repeat(their, 5, 1).tolist()
    found, paired = difference(*rows), difference(*rows, paired=True)
    assert found is not None
    assert found.mean == pytest.approx(-0.043333, abs=1e-5)
    assert found.p == pytest.approx(ttest_ind(mine[:, 0], their[:, 0], equal_var=False).pvalue)
    assert paired is not None
    assert paired.p == pytest.approx(ttest_rel(mine[:, 0], their[:, 0]).pvalue)


def test_without_an_effect_of_seeds_it_is_the_test_of_gains_over_cases() -> None:
    gains = np.array([0.01, 0.03, -0.01, 0.02])
    found = difference(np.repeat(0.8 + gains[None], 3, 0).tolist(), [[0.8] * 4] * 3, paired=True)
    assert found is not None
    assert found.p == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert found.freedom == pytest.approx(3)


def test_p_against_other_differences() -> None:
    found = Difference(0.02, 0.01, 0.03, 0.01, 20, 0.005, 10.0)
    assert found.p_against(0.02) == pytest.approx(1)
    assert found.p_against(0.0) == pytest.approx(found.p_against(0.04))
    assert found.p_against(0.01) > found.p_against(0.0)
    assert found.p_against(math.inf) == found.p_against(-math.inf) == 0
    assert Difference(0.02, None, None, None, 20).p_against(0.0) == 1


def test_a_large_difference_is_found() -> None:
    mine, their = drawn(np.random.default_rng(0), Spread(seed=0.003, case=0.005, error=0.01))
    found = difference((mine + 0.03).tolist(), their.tolist())
    assert found is not None
    assert (found.p or 0.0) < 0.01
    assert (found.low or 0.0) > 0
    assert found.p_against(0.0) == pytest.approx(found.p)
    assert found.p_against(found.high or 0.0) == pytest.approx(0.05)


def test_one_training_has_no_p() -> None:
    found = difference([[0.8, 0.9]], [[0.7, 0.8], [0.7, 0.9]])
    assert found == Difference(pytest.approx(0.075), None, None, None, 2)
    assert str(found) == "+0.075 (no interval)"


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_what_does_not_vary_has_no_p(gain: float, *, paired: bool) -> None:
    """Networks that find nothing have a Dice of 0 everywhere: nothing is known of what others with seeds would find."""
    found = difference([[gain] * 4] * 3, [[0.0] * 4] * 3, paired=paired)
    assert found == Difference(pytest.approx(gain), None, None, None, 4)


def test_cases_without_a_score_do_not_count() -> None:
    found = difference([[0.8, None, 0.9], [0.8, 0.1, 0.9]], [[0.7, 0.5, 0.8], [0.7, 0.5, 0.8]])
    assert found is not None
    assert found.num_cases == 2
    assert found.mean == pytest.approx(0.1)
    assert difference([[0.8, None], [0.8, 0.1]], [[0.7, 0.5], [0.7, 0.5]]) is None
    assert difference([[None], [0.1]], [[0.5], [0.5]], cases=["patient001_frame01"]) is None
    with pytest.raises(ValueError, match="expected scores of the same cases, got 2 and 1"):
        difference([[0.8, None]], [[0.7]])


def test_cases_of_a_patient_count_once() -> None:
    cases = ["patient002_frame01", "patient001_frame01", "patient001_frame12", "patient002_frame09", "hippocampus_003"]
    assert [patient_of(case) for case in cases[1:]] == ["patient001", "patient001", "patient002", "hippocampus_003"]
    mine, their = [[0.5, 0.8, 0.9, 0.7, 0.6], [0.4, 0.8, 0.8, 0.9, 0.5]], [[0.0] * 5] * 2
    by_hand = [[0.6, 0.85, 0.6], [0.65, 0.8, 0.5]]
    found, expected = difference(mine, their, cases=cases), difference(by_hand, [[0.0] * 3] * 2)
    assert found is not None
    assert expected is not None
    assert found == pytest.approx(expected)
    assert found.num_cases == 3


def test_means_over_seeds_have_the_spread_over_trainings() -> None:
    assert mean_over_seeds([[0.8, 0.9], [0.9, 1.0]]) == "0.900 ± 0.071"
    assert mean_over_seeds([[0.8, None]], 2) == "0.80"
    assert mean_over_seeds([[None]]) == "-"
