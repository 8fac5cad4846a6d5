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


def in_row(*parts: tuple[int, int]) -> np.ndarray:
    """Voxels from one place up to another in a row of 20."""
    labels = np.zeros((1, 1, 20), np.uint8)
    for start, stop in parts:
        labels[0, 0, start:stop] = 1
    return labels


def test_a_component_needs_a_voxel_on_which_all_planes_agree():
    fused = in_row((0, 6), (7, 9), (10, 13), (14, 15))
    # All three agree on a voxel of the second and of the third; of the first, the largest, two alone say all.
    planes = [in_row((0, 6), (7, 8), (10, 11)), in_row((0, 6), (7, 9), (10, 13)), in_row((7, 8), (10, 13), (14, 15))]
    np.testing.assert_array_equal(small_components(fused, planes), in_row((0, 6), (14, 15)) == 1)
    # Sizes are shares of the largest one with such a voxel.
    assert not small_components(in_row((7, 9), (10, 14)), planes).any()
    np.testing.assert_array_equal(small_components(in_row((7, 9), (10, 15)), planes), in_row((7, 9)) == 1)


def test_where_not_all_planes_agree_the_most_that_do_count():
    fused = in_row((0, 4), (6, 10))
    of_two = [in_row((0, 1)), in_row((0, 1), (6, 8)), in_row((8, 10))]
    np.testing.assert_array_equal(small_components(fused, of_two), in_row((6, 10)) == 1)
    of_one = [in_row((0, 1)), in_row((6, 8)), in_row((8, 10))]
    assert not small_components(fused, of_one).any()
    assert not small_components(fused, [in_row()] * 3).any()


def test_planes_have_to_agree_on_the_class():
    fused, plane = in_row((0, 4), (6, 10)), in_row((0, 4), (6, 10))
    fused[0, 0, 6:10] = plane[0, 0, 6:8] = 2
    other = in_row((0, 1), (6, 10))
    # Of class 1 all three agree on a voxel, of class 2 the first two do: both stay, as each is for itself.
    assert not small_components(fused, [plane, plane, other]).any()
    # A second piece of class 1, which the third plane calls class 2.
    fused[0, 0, 12:15] = plane[0, 0, 12:15] = 1
    other[0, 0, 12:15] = 2
    np.testing.assert_array_equal(small_components(fused, [plane, plane, other]), in_row((12, 15)) == 1)
