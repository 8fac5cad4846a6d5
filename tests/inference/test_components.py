"""Which components are small, by hand."""

import numpy as np

from seg25d.inference.components import small_components


def test_components_below_half_of_the_largest_of_their_class_are_small():
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[0, 0, :6] = 1  # 6 voxels
    labels[2, 0, :3] = 1  # half of them: stays
    labels[0, 2, :2] = 1  # small
    labels[1, 3, 2] = 1  # joined to the one before at a corner only: small too
    labels[3, 5, 0] = 2  # the only one of its class
    expected = np.zeros(labels.shape, bool)
    expected[0, 2, :2] = expected[1, 3, 2] = True
    np.testing.assert_array_equal(small_components(labels), expected)


def test_nothing_is_small_where_there_is_nothing():
    assert not small_components(np.zeros((2, 3, 4), np.uint8)).any()
