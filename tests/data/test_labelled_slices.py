"""How many slices are labelled, counted and in words."""

import numpy as np

from seg25d.data.labelled_slices import (
    count_labelled_slices,
    describe_labelled_slices,
    find_lone_slices,
    hide_unlabelled,
)
from seg25d.data.labels import IGNORE_INDEX


def test_slices_are_counted_along_every_axis() -> None:
    indices = np.full((4, 5, 6), IGNORE_INDEX, np.uint8)
    assert count_labelled_slices(indices) == (0, 0, 0)
    indices[1, 2, 3] = indices[3, 2, 4] = 0
    assert count_labelled_slices(indices) == (2, 1, 2)
    assert count_labelled_slices(np.zeros((4, 5, 6), np.uint8)) == (4, 5, 6)


def test_words_are_about_the_axis_with_the_fewest() -> None:
    cases = [((8, 50, 35), (40, 50, 35)), ((6, 48, 30), (30, 48, 30)), ((40, 50, 35), (40, 50, 35))]
    told = describe_labelled_slices(cases)
    assert told is not None
    assert told.startswith("2 of 3 case(s) are labelled in some slices along D (inferior-superior) only")
    assert "in 7 of 35;" in told
    assert describe_labelled_slices(cases[2:]) is None
    assert describe_labelled_slices([]) is None


def test_single_slices_with_background_between_are_found() -> None:
    indices = np.zeros((9, 6, 6), np.uint8)
    indices[1::3, 2:4, 2:4] = 1
    assert find_lone_slices(indices) == 0
    assert find_lone_slices(np.moveaxis(indices, 0, 2)) == 2
    # A fourth one beside them, only two of them, an object, and none at all.
    indices[2, 2, 2] = 1
    assert find_lone_slices(indices) is None
    indices[:3] = 0
    assert find_lone_slices(indices) is None
    assert find_lone_slices(np.ones((9, 6, 6), np.uint8)) is None
    assert find_lone_slices(np.zeros((9, 6, 6), np.uint8)) is None


def test_where_the_slices_between_are_ignored_all_is_well() -> None:
    indices = np.full((9, 6, 6), IGNORE_INDEX, np.uint8)
    indices[1::3] = 0
    indices[1::3, 2, 2] = 1
    assert find_lone_slices(indices) is None
    indices[2] = 0
    assert find_lone_slices(indices) == 0


def test_what_is_not_labelled_is_hidden() -> None:
    indices = np.zeros((8, 3, 4), np.uint8)
    indices[2:5:2, 1, 1] = 1
    before = indices.copy()

    def shown(hidden: np.ndarray) -> list[int]:
        axis_lines = (hidden != IGNORE_INDEX).all(axis=(1, 2))
        assert ((hidden == indices) | (hidden == IGNORE_INDEX)).all()
        return np.flatnonzero(axis_lines).tolist()

    assert shown(hide_unlabelled(indices, 0)) == [2, 4]
    assert shown(hide_unlabelled(indices, 0, 2)) == [0, 2, 4, 6]
    assert shown(hide_unlabelled(indices, 0, 3)) == [2, 5]
    along_w = hide_unlabelled(indices, 2, 3)
    assert np.flatnonzero((along_w != IGNORE_INDEX).all(axis=(0, 1))).tolist() == [1]
    np.testing.assert_array_equal(indices, before)
    empty = np.zeros((8, 3, 4), np.uint8)
    assert np.flatnonzero((hide_unlabelled(empty, 0, 3) == 0).all(axis=(1, 2))).tolist() == [0, 3, 6]
    assert (hide_unlabelled(empty, 0) == IGNORE_INDEX).all()
