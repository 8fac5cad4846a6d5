import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.ensembling import fuse
from seg25d.ensembling.fuse import majority_vote, mean_of_probabilities


def line(*values, dtype=np.uint8):
    """Values along the last axis of a volume."""
    return np.array(values, dtype).reshape(1, 1, -1)


def test_mean_of_probabilities_by_hand():
    first = np.array([0.2, 0.8], np.float32).reshape(2, 1, 1, 1)
    second = np.array([0.6, 0.4], np.float32).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(mean_of_probabilities([first, second]).ravel(), [0.4, 0.6], rtol=1e-6)
    weighted = mean_of_probabilities([first, second], [3, 1])
    np.testing.assert_allclose(weighted.ravel(), [0.3, 0.7], rtol=1e-6)
    assert weighted.dtype == np.float32
    np.testing.assert_allclose(mean_of_probabilities([first, second], [0, 2]).ravel(), second.ravel())


def test_mean_takes_any_iterable_and_leaves_its_input():
    arrays = [np.full((2, 1, 1, 3), value, np.float16) for value in (0.25, 0.75)]
    np.testing.assert_array_equal(mean_of_probabilities(iter(arrays)), np.full((2, 1, 1, 3), 0.5))
    assert arrays[0].max() == 0.25


@pytest.mark.parametrize(
    ("arrays", "weights", "message"),
    [
        ([], None, "no probabilities"),
        ([np.zeros((2, 1, 1, 1)), np.zeros((3, 1, 1, 1))], None, "shapes"),
        ([np.zeros((2, 1, 1, 1))] * 2, [1.0], "one weight per rater"),
        ([np.zeros((2, 1, 1, 1))] * 2, [1.0, 1.0, 1.0], "one weight per rater"),
        ([np.zeros((2, 1, 1, 1))] * 2, [0.0, 0.0], "at least 0"),
        ([np.zeros((2, 1, 1, 1))] * 2, [2.0, -1.0], "at least 0"),
    ],
)
def test_mean_refuses_what_cannot_be_averaged(arrays, weights, message):
    with pytest.raises(ValueError, match=message):
        mean_of_probabilities(arrays, weights)


def test_three_raters_of_one_class_are_at_least_two_of_three():
    patterns = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1)
    voted = majority_vote([line(*rater) for rater in patterns])
    np.testing.assert_array_equal(voted.ravel(), patterns.sum(axis=0) >= 2)


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        ((4, 4, 9), 4),
        ((0, 1, 2), 1),  # two of three say that there is something
        ((0, 1), 0),  # only what both agree on
        ((3, 5), 3),
        ((0, 0, 1, 2), 0),
        ((0, 0, 1, 1), 0),  # half of the votes are not more than half
        ((0, 0, 7, 7, 3), 7),
        ((0, 0, 1, 2, 3), 0),  # no tie: the background alone has the most votes
    ],
)
def test_votes_and_ties(votes, winner):
    assert majority_vote([line(value) for value in votes]).item() == winner


def test_weighted_votes():
    raters = [line(1, 0, 2), line(2, 0, 2), line(2, 3, 1)]
    np.testing.assert_array_equal(majority_vote(raters, [3, 1, 1]).ravel(), [1, 0, 2])
    # 0.1 + 0.2 and 0.3 are a tie whatever the rounding.
    assert majority_vote([line(1), line(1), line(2)], [0.1, 0.2, 0.3]).item() == 1
    assert majority_vote([line(2), line(2), line(1)], [0.1, 0.2, 0.3]).item() == 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5), st.randoms())
def test_the_order_of_raters_makes_no_difference(rows, random):
    raters = [line(*row) for row in rows]
    expected = majority_vote(raters)
    assert all(value in column for value, column in zip(expected.ravel(), zip(*rows, strict=True), strict=True))
    random.shuffle(raters)
    np.testing.assert_array_equal(majority_vote(raters), expected)


def test_votes_are_counted_block_by_block(monkeypatch, rng):
    raters = [rng.integers(0, 4, (3, 5, 7)).astype(np.uint8) for _ in range(3)]
    expected = majority_vote(raters)
    monkeypatch.setattr(fuse, "_BLOCK", 8)
    np.testing.assert_array_equal(majority_vote(raters), expected)


def test_the_type_holds_the_values_of_all():
    voted = majority_vote([line(1), line(300, dtype=np.uint16), line(300, dtype=np.uint16)])
    assert voted.item() == 300


@pytest.mark.parametrize(
    ("raters", "weights"), [([], None), ([line(1), line(1, 2)], None), ([line(1)] * 2, [1.0]), ([line(1)] * 2, [0, 0])]
)
def test_votes_refuse_what_cannot_be_fused(raters, weights):
    with pytest.raises(ValueError, match=r"expected|weights"):
        majority_vote(raters, weights)


def test_mean_holds_two_raters_at_a_time():
    alive = []

    def raters():
        for _ in range(4):
            assert sum(each() is not None for each in alive) == 0, "the one before is held while the next is computed"
            array = np.full((2, 1, 1, 3), 0.5, np.float32)
            alive.append(weakref.ref(array))
            yield array
            del array

    np.testing.assert_array_equal(mean_of_probabilities(raters()), np.full((2, 1, 1, 3), 0.5))
