import tracemalloc

import numpy as np
import pytest

from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.inference.postprocessing import PostProcessing, remove_components
from seg25d.selection.choose_postprocessing import (
    THRESHOLDS,
    choose_components,
    choose_threshold,
    count_above_thresholds,
    find_components,
)

LABELS = Labels(names={"background": 0, "organ": 1, "lesion": 2})
MM = (1.0, 1.0, 1.0)


def dice(truth, predicted, value):
    """By hand."""
    both = int(((truth == value) & (predicted == value)).sum())
    total = int((truth == value).sum() + ((predicted == value) & (truth != IGNORE_INDEX)).sum())
    return 2 * both / total if total else None


def one_organ(false_voxels=1):
    """A truth with one organ, and a prediction with voxels far from it."""
    truth = np.zeros((6, 10, 10), np.uint8)
    truth[1:4, 1:4, 1:4] = 1
    predicted = truth.copy()
    predicted[5, 9, 9 - false_voxels + 1 :] = 1
    return truth, predicted


def two_organs():
    """A truth with two parts, both found."""
    truth = np.zeros((6, 10, 10), np.uint8)
    truth[1:4, 1:4, 1:4] = truth[5, 8:, 8:] = 1
    return truth, truth.copy()


def choose(*cases):
    return choose_components([find_components(predicted, truth, LABELS, MM) for truth, predicted in cases])


def test_helps_where_something_wrong_is_apart():
    steps = choose(one_organ(), one_organ(2))
    assert steps.largest_foreground
    for truth, predicted in (one_organ(), one_organ(2)):
        np.testing.assert_array_equal(remove_components(predicted, LABELS, MM, steps), truth)


def test_is_refused_where_it_harms():
    assert choose(two_organs(), two_organs()).does_nothing


def test_small_components_go_where_the_second_largest_is_right():
    both = np.maximum(two_organs()[0], 0)
    wrong = both.copy()
    wrong[0, 9, 0] = 1
    steps = choose((both, wrong), (both, wrong))
    assert not steps.largest_foreground
    assert steps.largest == ()
    assert 1 < steps.smallest_mm3["1"] <= 4
    np.testing.assert_array_equal(remove_components(wrong, LABELS, MM, steps), both)


def test_a_class_that_would_suffer_keeps_the_foreground_from_being_cut():
    truth, predicted = one_organ(2)
    truth[0, 0, 9] = predicted[0, 0, 9] = 2
    steps = choose((truth, predicted), (truth, predicted))
    assert not steps.largest_foreground, "it would remove the lesion"
    assert steps.largest == ("1",)
    np.testing.assert_array_equal(remove_components(predicted, LABELS, MM, steps), truth)


def test_a_class_may_not_suffer_however_much_another_gains():
    truth, predicted = one_organ(8)
    for array in (truth, predicted):
        array[1:4, 4, 1:4] = array[0, 0, 9] = 2
    steps = choose((truth, predicted), (truth, predicted))
    # 0.87 would become 1 for the organ, but 1 would become 0.95 for the lesion.
    assert not steps.largest_foreground
    assert steps.largest == ("1",)
    np.testing.assert_array_equal(remove_components(predicted, LABELS, MM, steps), truth)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_gives_the_dice_that_is_counted(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, IGNORE_INDEX], np.uint8), (6, 9, 9), p=[0.5, 0.3, 0.15, 0.05])
    predicted = rng.choice(np.array([0, 1, 2], np.uint8), truth.shape, p=[0.7, 0.2, 0.1])
    found = find_components(predicted, truth, LABELS, MM)
    steps = PostProcessing(largest_foreground=True)
    kept = remove_components(predicted, LABELS, MM, steps)
    for value, name in ((1, "1"), (2, "2")):
        for stays, labels in ((np.ones(len(found[name].hits), bool), predicted), (found[name].in_largest, kept)):
            one = found[name].only(stays)
            counted = 2 * one.hits.sum() / (one.counted.sum() + one.truth_voxels)
            assert counted == pytest.approx(dice(truth, labels, value))


def test_no_cases_and_empty_ones_choose_nothing():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert choose_components([]).does_nothing
    assert choose((empty, empty)).does_nothing
    truth, _ = one_organ()
    assert choose((truth, np.zeros_like(truth))).does_nothing


def histograms(probabilities, truth):
    array = np.array(probabilities, np.float32)
    return count_above_thresholds(array, np.array(truth, bool), np.ones(len(array), bool))


def test_counts_above_thresholds_are_those_of_each():
    values, truth = [0.05, 0.2, 0.5, 0.93, 0.01], [0, 1, 0, 1, 1]
    counts = histograms(values, truth)
    for index, threshold in enumerate(THRESHOLDS):
        above = np.array(values, np.float32) >= np.float32(threshold)
        assert counts.inside[index] == (above & np.array(truth, bool)).sum()
        assert counts.outside[index] == (above & ~np.array(truth, bool)).sum()


def test_a_threshold_is_changed_only_where_that_helps():
    right = histograms([0.2] * 10 + [0.05] * 10, [1] * 10 + [0] * 10)
    assert 0.05 < choose_threshold([right], 0.5) <= 0.2
    good = histograms([0.9] * 10 + [0.1] * 10, [1] * 10 + [0] * 10)
    assert choose_threshold([good, good], 0.5) == 0.5
    empty = histograms([0.01, 0.01], [0, 0])
    assert choose_threshold([empty], 0.4) == 0.4


def test_voxels_that_the_truth_ignores_count_nowhere():
    truth, predicted = one_organ(3)
    truth[5] = IGNORE_INDEX
    (found,) = find_components(predicted, truth, Labels(names={"background": 0, "organ": 1}), MM).values()
    assert (found.counted.tolist(), found.hits.tolist(), found.truth_voxels) == ([27, 0], [27, 0], 27)
    assert found.volumes_mm3.tolist() == [27.0, 3.0], "sizes are those of what is predicted"
    assert choose((truth, predicted)).does_nothing, "nothing wrong counts"
    values = np.array([0.3, 0.7, 0.7, 0.9], np.float32)
    counts = count_above_thresholds(values, np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool))
    at_half = THRESHOLDS.index(0.5)
    assert (counts.inside[at_half], counts.outside[at_half], counts.truth_voxels) == (0, 1, 1)
    assert (counts.inside[0], counts.outside[0]) == (1, 1)


def speckled(seed):
    """A truth and a prediction with thousands of components of each class."""
    rng = np.random.default_rng(seed)
    truth, predicted = (rng.choice(np.array([0, 1, 2], np.uint8), (40, 64, 64), p=[0.9, 0.05, 0.05]) for _ in range(2))
    for array in (truth, predicted):
        array[:9, :9, :9] = 1
    return truth, predicted


def test_components_take_few_bytes_and_are_copied_class_by_class():
    """With 60 classes and scattered voxels, those of all cases are the most that the choice keeps."""
    cases = [find_components(predicted, truth, LABELS, MM) for truth, predicted in map(speckled, range(3))]
    one = cases[0]["1"]
    assert len(one.sizes) > 1000
    assert one.sizes.max() >= 9**3, "more than a byte holds"
    arrays = (one.sizes, one.counted, one.hits, one.in_largest)
    assert sum(array.nbytes for array in arrays) <= 7 * len(one.sizes)
    assert one.volumes_mm3.dtype == np.float64
    many = [
        {
            f"{name} {number}": each._replace(in_largest=each.hits >= 0)
            for name, each in case.items()
            for number in range(30)
        }
        for case in cases
    ]
    of_class = 3 * 8 * len(one.sizes)
    tracemalloc.start()
    try:
        choose_components(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * of_class
