"""Boxes and shapes on voxel grids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.core import grids
from seg25d.core.grids import (
    alike_axes,
    bounding_box,
    box_shape,
    box_slices,
    content_box,
    count_numbers,
    count_voxels,
    even_margin,
    even_parts,
    joint_box,
    regular_starts,
    sampled_shape,
    sampled_spacing,
    with_margin,
)
from seg25d.core.types import Shape


def test_bounding_box_of_two_voxels() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    box = bounding_box(mask)
    assert box == ((1, 4), (2, 3), (3, 7))
    assert box_shape(box) == (3, 1, 4)
    assert mask[box_slices(box)].sum() == 2


def test_bounding_box_of_nothing() -> None:
    assert bounding_box(np.zeros((2, 3, 4), bool)) is None


def test_content_is_what_any_channel_has() -> None:
    image = np.zeros((2, 4, 5, 6), np.float32)
    image[0, 1, 1, 1] = -3
    image[1, 2, 4, 0] = 7
    assert content_box(image) == ((1, 3), (1, 5), (0, 2))


def test_an_all_zero_image_keeps_its_volume() -> None:
    assert content_box(np.zeros((1, 4, 5, 6), np.float32)) == ((0, 4), (0, 5), (0, 6))


def test_sampled_shape_rounds_and_keeps_a_voxel() -> None:
    assert sampled_shape((10, 11, 1), (3.0, 1.0, 1.0), (2.0, 2.0, 4.0)) == (15, 6, 1)


def test_axes_of_a_common_size_have_it_whatever_the_spacing() -> None:
    assert sampled_shape((10, 96, 40), (5, 0.75, 0.5), (2.5, 1, 1), (None, 64, 32)) == (20, 64, 32)
    assert sampled_spacing((10, 96, 40), (5, 0.75, 0.5), (2.5, 1, 1), (None, 64, 32)) == (2.5, 1.125, 0.625)
    assert sampled_spacing((10, 96, 40), (5, 0.75, 0.5), (2.5, 1, 1), None) == (2.5, 1, 1)


def test_counts(rng: np.random.Generator) -> None:
    labels = rng.choice(np.array([0, 1, 5, 255], np.uint8), (4, 5, 6))
    counts = count_voxels(labels)
    assert counts.sum() == 120
    assert counts[5] == (labels == 5).sum()
    assert count_voxels(labels[:0]).sum() == 0


@pytest.mark.parametrize(
    ("size", "window", "step", "count", "padding"),
    [
        (601, 32, 12, 49, 7),  # Shivdeo et al. 2021, section 3.2, and methods.md 2.1
        (601, 32, 20, 30, 11),
        (601, 32, 32, 19, 7),
        (709, 32, 12, 58, 7),
        (709, 32, 20, 35, 3),
        (709, 32, 32, 23, 27),
        (20, 32, 12, 1, 12),
        (32, 32, 12, 1, 0),
        (33, 32, 12, 2, 11),
    ],
)
def test_regular_windows_follow_the_paper(size: int, window: int, step: int, count: int, padding: int) -> None:
    starts = regular_starts(size, window, step)
    assert len(starts) == count
    assert starts == [index * step for index in range(count)]
    assert starts[-1] + window - size == padding
    flush = regular_starts(size, window, step, flush=True)
    assert flush[:-1] == starts[:-1]
    assert flush[-1] == max(0, size - window)


def test_margins_are_cut_at_the_ends_of_the_volume() -> None:
    assert with_margin(((2, 3), (0, 4), (5, 6)), (1, 2, 9), (10, 5, 10)) == ((1, 4), (0, 5), (0, 10))


def test_a_margin_is_as_wide_along_all_axes() -> None:
    assert even_margin(20, (1.0, 1.0, 1.0)) == (20, 20, 20)
    # 14 mm; the finest axis gets what was asked for, whatever its spacing.
    assert even_margin(20, (5.0, 0.7, 1.4)) == (3, 20, 10)
    assert even_margin(0, (5.0, 0.7, 1.4)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("spacing_mm", "window", "groups"),
    [
        ((1, 1, 1), None, (0, 0, 0)),
        ((1.2, 1, 0.9), None, (0, 0, 0)),
        ((5, 0.8, 0.8), None, (0, 1, 1)),
        ((0.8, 0.8, 3), None, (0, 0, 2)),
        ((1, 2, 4), None, (0, 1, 2)),
        ((1, 0.7, 1.4), None, (0, 0, 2)),
        ((1, 1, 1), (64, 64, 32), (0, 0, 2)),
    ],
)
def test_axes_are_alike_by_spacing_and_window(spacing_mm, window, groups) -> None:
    assert alike_axes(spacing_mm, window) == groups


@settings(max_examples=30)
@given(st.tuples(*[st.integers(0, 5)] * 3), st.integers(1, 40), st.booleans())
def test_numbers_are_counted_in_parts(shape: Shape, together: int, some: bool) -> None:
    rng = np.random.default_rng(0)
    numbers, where = rng.integers(0, 4, shape).astype(np.uint32), rng.random(shape) < 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "COUNTED_TOGETHER", together)
        counts = count_numbers(numbers, 6, where if some else None)
    expected = [int(((numbers == number) & (where | (not some))).sum()) for number in range(6)]
    assert counts.tolist() == expected


def test_a_box_around_boxes() -> None:
    boxes = [(slice(1, 3), slice(0, 2)), (slice(2, 5), slice(1, 2))]
    assert joint_box(boxes) == (slice(1, 5), slice(0, 2))
    assert joint_box(boxes[:1]) == boxes[0]


@given(st.integers(1, 200), st.integers(1, 50))
def test_parts_are_even_and_as_few_as_possible(size: int, most: int) -> None:
    parts = even_parts(size, most)
    assert [place for part in parts for place in range(size)[part]] == list(range(size))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert (len(parts) - 1) * most < size
