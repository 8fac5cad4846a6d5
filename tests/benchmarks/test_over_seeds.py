"""benchmarks/over_seeds.py: what it says of methods whose difference is known."""

import numpy as np
import pytest
from over_seeds import Difference, difference, mean_over_seeds
from scipy.stats import ttest_ind, ttest_rel


def drawn(random: np.random.Generator, *, seed: float, case: float, error: float, cases: int = 20) -> np.ndarray:
    """Scores of two methods without a difference: (methods, 3 trainings, cases)."""
    shared = random.normal(0.8, 0.1, cases)
    methods = [
        shared + random.normal(0, case, cases) + random.normal(0, seed, (3, 1)) + random.normal(0, error, (3, cases))
        for _ in range(2)
    ]
    return np.stack(methods)


@pytest.mark.parametrize(
    "variances",
    [
        {"seed": 0.01, "case": 0.0, "error": 0.01},
        {"seed": 0.003, "case": 0.01, "error": 0.01},
        {"seed": 0.0, "case": 0.01, "error": 0.02},
        {"seed": 0.02, "case": 0.02, "error": 0.0},
    ],
)
def test_of_equal_methods_one_in_twenty_differs(variances: dict[str, float]) -> None:
    random = np.random.default_rng(0)
    found = [difference(*drawn(random, **variances).tolist()) for _ in range(1500)]
    share = np.mean([each is not None and each.p is not None and each.p < 0.05 for each in found])
    assert 0.02 < share < 0.07
    covered = np.mean([each is not None and each.low < 0 < each.high for each in found])  # type: ignore[operator]
    assert covered == pytest.approx(1 - share, abs=1e-3)


def test_a_test_over_cases_alone_would_find_what_seeds_did() -> None:
    random = np.random.default_rng(0)
    wrong, right = 0, 0
    for _ in range(300):
        mine, their = drawn(random, seed=0.01, case=0.0, error=0.01)
        wrong += ttest_rel(mine[0], their[0]).pvalue < 0.05
        found = difference(mine.tolist(), their.tolist())
        assert found is not None
        right += (found.p or 0.0) < 0.05
    assert wrong > 150
    assert right < 30


def test_without_an_effect_of_cases_it_is_the_test_of_two_samples_of_trainings() -> None:
    mine, their = np.array([0.80, 0.82, 0.81])[:, None], np.array([0.84, 0.87, 0.85])[:, None]
    found = difference(np.repeat(mine, 5, 1).tolist(), np.repeat(their, 5, 1).tolist())
    assert found is not None
    assert found.mean == pytest.approx(-0.043333, abs=1e-5)
    assert found.p == pytest.approx(ttest_ind(mine[:, 0], their[:, 0], equal_var=False).pvalue)


def test_a_large_difference_is_found() -> None:
    mine, their = drawn(np.random.default_rng(0), seed=0.003, case=0.005, error=0.01)
    found = difference((mine + 0.03).tolist(), their.tolist())
    assert found is not None
    assert (found.p or 0.0) < 0.01
    assert (found.low or 0.0) > 0


def test_one_training_has_no_p() -> None:
    found = difference([[0.8, 0.9]], [[0.7, 0.8], [0.7, 0.9]])
    assert found == Difference(pytest.approx(0.075), None, None, None, 2)
    assert str(found) == "+0.075 (one training)"


def test_cases_without_a_score_do_not_count() -> None:
    found = difference([[0.8, None, 0.9], [0.8, 0.1, 0.9]], [[0.7, 0.5, 0.8], [0.7, 0.5, 0.8]])
    assert found is not None
    assert found.num_cases == 2
    assert found.mean == pytest.approx(0.1)
    assert difference([[0.8, None], [0.8, 0.1]], [[0.7, 0.5], [0.7, 0.5]]) is None
    with pytest.raises(ValueError, match="expected scores of the same cases, got 2 and 1"):
        difference([[0.8, None]], [[0.7]])


def test_means_over_seeds_have_the_spread_over_trainings() -> None:
    assert mean_over_seeds([[0.8, 0.9], [0.9, 1.0]]) == "0.900 ± 0.071"
    assert mean_over_seeds([[0.8, None]], 2) == "0.80"
    assert mean_over_seeds([[None]]) == "-"
