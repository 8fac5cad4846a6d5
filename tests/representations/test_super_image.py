"""The layout of super images, and how the grid is chosen."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.representations.base import VolumeGeometry
from seg25d.representations.lifted.super_image import from_super_image, to_super_image
from seg25d.representations.super_image import SuperImage, choose_grid


@pytest.mark.parametrize(
    ("slices", "height", "width", "grid"),
    [
        (144, 144, 144, (12, 12)),  # paper, section 2.1
        (48, 80, 80, (8, 6)),  # paper, Table 2: the best of the six layouts
        (64, 64, 64, (8, 8)),  # paper, Table 3
        (40, 56, 40, (5, 8)),  # 280 x 320
        (1, 5, 5, (1, 1)),
        (2, 5, 5, (2, 1)),  # more rows than columns on ties
    ],
)
def test_grids(slices: int, height: int, width: int, grid: tuple[int, int]) -> None:
    assert choose_grid(slices, height, width) == grid


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 64))
def test_every_slice_has_a_place_and_no_row_is_empty(slices: int, height: int, width: int) -> None:
    rows, columns = choose_grid(slices, height, width)
    assert rows * columns >= slices > (rows - 1) * columns


def test_slices_are_tiled_row_by_row() -> None:
    slices = torch.arange(6.0)[None, None, :, None, None].expand(1, 1, 6, 2, 3)
    image = to_super_image(slices, (2, 3))
    assert image.shape == (1, 1, 4, 9)
    assert image[0, 0, ::2, ::3].tolist() == [[0, 1, 2], [3, 4, 5]]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_undoing_drops_the_padding(depth: int, rows: int, columns: int) -> None:
    volume = torch.rand(2, 2, depth, 3, 2)
    if rows * columns < depth:
        with pytest.raises(ValueError, match="no room"):
            to_super_image(volume, (rows, columns))
    else:
        image = to_super_image(volume, (rows, columns))
        assert torch.equal(from_super_image(image, (rows, columns), depth), volume)


def test_a_window_with_more_slices_than_planned_gets_a_grid_of_its_own() -> None:
    model = SuperImage(grid=(2, 2)).lift(torch.nn.Identity())
    volume = torch.rand(1, 2, 9, 3, 2)
    assert torch.equal(model(volume), volume)


def test_candidates_start_with_the_whole_volume_and_shrink_in_the_plane_first() -> None:
    geometry = VolumeGeometry(shape=(40, 200, 160), spacing_mm=(3, 1, 1))
    candidates = list(SuperImage.candidates(geometry, axis=0))
    windows = [window for _, window in candidates]
    assert windows[0] == (40, 200, 160)
    assert windows[8] == (40, 100, 80)
    assert windows[9][0] < 40
    assert all(math_product(a) >= math_product(b) for a, b in itertools.pairwise(windows))
    assert all(representation.grid[0] * representation.grid[1] >= window[0] for representation, window in candidates)


def math_product(window: tuple[int, int, int]) -> int:
    return window[0] * window[1] * window[2]
