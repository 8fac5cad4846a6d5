import numpy as np
import pytest

from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.ensembling import weights
from seg25d.ensembling.weights import fit_weights, overlap_sums

ORGAN = Labels(names={"background": 0, "organ": 4})
GAPS = Labels(names={"background": 0, "liver": 3, "spleen": 7, "ignore": 9})
TUMOUR = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def organ(*foreground):
    """Probabilities (2, 1, 1, n) of background and organ."""
    array = np.array(foreground, np.float32).reshape(1, 1, -1)
    return np.stack([1 - array, array])


def indices(*values):
    return np.array(values, np.uint8).reshape(1, 1, -1)


def test_sums_by_hand():
    raters = [organ(1, 0.5, 0), organ(0, 1, 0.5)]
    sums = overlap_sums(raters, indices(1, 1, 0), ORGAN)
    assert set(sums) == {1}
    np.testing.assert_allclose(sums[1].overlaps, [1.5, 1])
    np.testing.assert_allclose(sums[1].products, [[1.25, 0.5], [0.5, 1.25]])
    assert sums[1].size == 2
    # With equal weights p is 0.5, 0.75, 0.25: 2 * 1.25 / (0.875 + 2).
    assert sums[1].dice(np.array([0.5, 0.5])) == pytest.approx(2.5 / 2.875)


def test_sums_are_those_of_the_averaged_probabilities(rng):
    raters = [rng.dirichlet((1, 1, 1), (3, 4, 5)).transpose(3, 0, 1, 2).astype(np.float32) for _ in range(3)]
    truth = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    truth[0] = IGNORE_INDEX
    weights = np.array([0.2, 0.5, 0.3])
    mean = np.tensordot(weights, np.stack(raters), 1)
    for channel, sums in overlap_sums(raters, truth, GAPS).items():
        p, g = mean[channel, 1:], truth[1:] == channel
        assert sums.dice(weights) == pytest.approx(2 * p[g].sum() / ((p**2).sum() + g.sum()), rel=1e-5)
        step = 1e-5 * np.eye(3)
        slopes = [(sums.dice(weights + each) - sums.dice(weights - each)) / 2e-5 for each in step]
        np.testing.assert_allclose(sums.gradient(weights), slopes, rtol=1e-4, atol=1e-6)


def test_regions_count_as_they_are_predicted():
    rater = np.array([[1, 1, 0], [0, 1, 0]], np.float32).reshape(2, 1, 1, 3)
    sums = overlap_sums([rater], indices(1, 2, 0), TUMOUR)
    assert [sums[channel].dice(np.ones(1)) for channel in (0, 1)] == [1, 1]


def test_classes_that_are_absent_do_not_count():
    assert not overlap_sums([organ(1, 0)], indices(0, IGNORE_INDEX), ORGAN)


def test_the_better_rater_gets_the_weight():
    truth = indices(1, 1, 0, 0)
    case = overlap_sums([organ(0.5, 0.4, 0.6, 0.5), organ(1, 0.9, 0.1, 0)], truth, ORGAN)
    weights = fit_weights([case], 2)
    assert weights[1] > 0.9
    assert sum(weights) == pytest.approx(1)


def test_raters_with_errors_of_their_own_share_the_weight(rng):
    truth = (rng.random((4, 8, 8)) < 0.3).astype(np.uint8)
    raters = [organ(*np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 1).ravel()) for _ in range(3)]
    case = overlap_sums(raters, truth.reshape(1, 1, -1), ORGAN)
    weights = fit_weights([case], 3)
    assert min(weights) > 0.2
    equal = np.full(3, 1 / 3)
    assert case[1].dice(np.array(weights)) >= case[1].dice(equal)


def test_raters_that_are_alike_keep_equal_weights():
    case = overlap_sums([organ(0.8, 0.1)] * 2, indices(1, 0), ORGAN)
    assert fit_weights([case], 2) == (0.5, 0.5)


def test_thirds_still_add_up_to_1():
    case = overlap_sums([organ(0.8, 0.1)] * 3, indices(1, 0), ORGAN)
    assert sorted(fit_weights([case], 3)) == [0.333, 0.333, 0.334]


def test_what_rounding_leaves_over_goes_to_the_largest_weight():
    assert weights._round_weights(np.array([1 / 6, 1 / 6, 2 / 3])) == (0.167, 0.167, 0.666)
    assert weights._round_weights(np.array([0.2004, 0.3993, 0.4003])) == (0.2, 0.399, 0.401)


def test_every_class_counts_the_same_however_many_cases_have_it():
    good, bad = np.eye(3)[[0, 1, 2]].T.reshape(3, 1, 1, 3), np.full((3, 1, 1, 3), 1 / 3)
    first_knows_1 = [np.stack([good[0], good[1], bad[2]]), np.stack([good[0], bad[1], good[2]])]
    common = overlap_sums(first_knows_1, indices(0, 1, 0), GAPS)
    both = overlap_sums(first_knows_1, indices(0, 1, 2), GAPS)
    assert fit_weights([both] + [common] * 9, 2) == pytest.approx((0.5, 0.5), abs=0.1)


def test_without_any_foreground_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no reference has any foreground"):
        fit_weights([{}, {}], 2)
