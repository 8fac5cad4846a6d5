"""Positions on an old grid: by hand, and laws about whole slices that were taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.types import Shape, Spacing
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.positions import (
    linear_positions,
    nearest_positions,
    nearest_voxels,
    separate_positions,
    taken_positions,
)
from seg25d.preprocessing.resample import resample_image

sizes = st.integers(1, 60)


@pytest.mark.parametrize(
    ("size", "new_size", "expected"),
    [
        (3, 3, [0, 1, 2]),
        (2, 4, [0, 0, 0.5, 1]),
        (3, 9, [0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 2]),
        (4, 5, [0, 1, 1.5, 2, 3]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_slices_that_were_taken_lie_on_their_own(size: int, new_size: int, expected: list[float]) -> None:
    low, high, fraction = taken_positions(size, new_size)
    np.testing.assert_allclose(low + fraction, expected, atol=1e-12)
    assert ((high == low) == (fraction == 0)).all()


@given(sizes, sizes)
def test_what_was_taken_comes_back_to_the_bit(size: int, more: int) -> None:
    new_size = size + more - 1
    taken = nearest_voxels(new_size, size)
    assert (np.diff(taken) > 0).all()
    low, high, fraction = taken_positions(size, new_size)
    np.testing.assert_array_equal(low[taken], np.arange(size))
    assert not fraction[taken].any()
    # In order, never beyond the ends, and never further than between two slices.
    assert (np.diff(low + fraction) >= 0).all()
    assert low.min() == 0
    assert high.max() == size - 1
    assert (high - low <= 1).all()
    # What repeats the same scores lies before the first slice that was taken, or behind the last one.
    repeated = np.flatnonzero(np.diff(low + fraction) == 0)
    assert all(index < taken[0] or index >= taken[-1] for index in repeated)


@given(sizes, sizes)
def test_the_slices_are_those_that_preprocessing_takes(size: int, more: int) -> None:
    new_size = size + more - 1
    slices = np.arange(new_size, dtype=np.float32)[None, :, None, None]
    np.testing.assert_array_equal(
        resample_image(slices, (size, 1, 1), axis=0)[0, :, 0, 0], nearest_voxels(new_size, size)
    )


@given(sizes)
def test_equal_sizes_change_nothing(size: int) -> None:
    for positions in (linear_positions, nearest_positions, taken_positions):
        low, high, fraction = positions(size, size)
        assert low.tolist() == high.tolist() == [*range(size)]
        assert not fraction.any()


def _grid(canonical: Shape, shape: Shape, canonical_spacing_mm: Spacing, spacing_mm: Spacing) -> Grid:
    depth, height, width = ((0, size) for size in canonical)
    return Grid(
        canonical_shape=canonical,
        canonical_spacing_mm=canonical_spacing_mm,
        bounding_box=(depth, height, width),
        spacing_mm=spacing_mm,
        shape=shape,
    )


@pytest.mark.parametrize(
    ("canonical", "model", "depth", "axis", "expected"),
    [
        # Thinner slices in the file, by how little ever: between those that were taken.
        ((3.0, 1.0, 1.0), (10.0, 1.0, 1.0), 3, 0, taken_positions(3, 10)),
        ((5.0, 1.0, 1.0), (5.5, 1.0, 1.0), 9, 0, taken_positions(9, 10)),
        # The reverse: the slice that holds the middle of each.
        ((10.0, 1.0, 1.0), (3.0, 1.0, 1.0), 33, 0, nearest_positions(33, 10)),
        ((5.0, 1.0, 1.0), (5.0, 1.0, 1.0), 10, 0, nearest_positions(10, 10)),
        # No axis is much coarser, in the file or for the model: interpolated, in preprocessing too.
        ((2.0, 1.0, 1.0), (3.0, 1.0, 1.0), 7, 0, None),
        ((3.0, 1.0, 1.0), (10.0, 1.0, 1.0), 3, 1, None),
        # In the file another axis is coarser: along this one preprocessing interpolated between voxel centres.
        ((1.0, 1.0, 5.0), (5.0, 1.0, 1.0), 2, 0, None),
    ],
)
def test_which_axis_is_not_simply_interpolated(
    canonical: Spacing, model: Spacing, depth: int, axis: int, expected: tuple[np.ndarray, ...] | None
) -> None:
    found = separate_positions(_grid((10, 8, 8), (depth, 8, 8), canonical, model), axis)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_resized_to_a_common_size_is_interpolated() -> None:
    whole = ((0, 20), (0, 96), (0, 40))
    for spacing_mm in ((5.0, 0.75, 0.75), (0.75, 0.75, 0.75)):
        grid = Grid.plan((20, 96, 40), spacing_mm, whole, (2.5, 1.0, 1.0), (10, 64, 4))
        assert [separate_positions(grid, axis) for axis in range(3)] == [None] * 3
