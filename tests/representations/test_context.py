"""Neighbouring slices as channels, and the slicing axis in front."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.representations.context import slices_back, slices_first, with_neighbours


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 4))
def test_neighbours_come_from_below_to_above_and_the_outermost_slice_goes_on(depth, channels, context) -> None:
    volume = torch.arange(2.0 * channels * depth * 6).reshape(2, channels, depth, 2, 3)
    seen = with_neighbours(volume, context)
    assert seen.shape == (2, channels * (2 * context + 1), depth, 2, 3)
    for z in range(depth):
        for number, shift in enumerate(range(-context, context + 1)):
            neighbour = volume[:, :, min(max(z + shift, 0), depth - 1)]
            assert torch.equal(seen[:, number * channels : (number + 1) * channels, z], neighbour)


def test_each_axis_comes_to_the_front_and_back_while_the_others_keep_their_order() -> None:
    volume = torch.rand(2, 3, 4, 5, 6)
    for axis, shape in enumerate([(4, 5, 6), (5, 4, 6), (6, 4, 5)]):
        moved = slices_first(volume, axis)
        assert moved.shape == (2, 3, *shape)
        assert torch.equal(moved[:, :, 1], volume.select(2 + axis, 1))
        assert torch.equal(slices_back(moved, axis), volume)
