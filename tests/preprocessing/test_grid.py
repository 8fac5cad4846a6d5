"""Which axis is handled apart, and what a grid remembers."""

import pytest

from seg25d.preprocessing.grid import Grid, separate_axis


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((3, 1, 1), (1, 1, 1), None),
        ((3.1, 1, 1), (1, 1, 1), 0),
        ((1, 1, 1), (1, 5, 1), 1),
        ((5, 1, 1), (1, 1, 5), 0),
        ((0.24, 1.25, 1.25), (1, 1, 5), None),
    ],
)
def test_separate_axis(
    spacing: tuple[float, float, float], target: tuple[float, float, float], axis: int | None
) -> None:
    assert separate_axis(spacing, target) == axis


def test_grid() -> None:
    grid = Grid.plan((20, 40, 40), (5.0, 1.0, 1.0), ((2, 12), (0, 40), (10, 31)), (2.5, 2.0, 2.0))
    assert grid.cropped_shape == (10, 40, 21)
    assert grid.shape == (20, 20, 10)
    assert grid.separate_axis == 0
    assert grid.inverse_separate_axis == 0
    assert Grid.model_validate_json(grid.model_dump_json()) == grid


def test_cases_get_a_common_size_and_each_its_own_spacing() -> None:
    box = ((2, 12), (4, 90), (10, 31))
    grids = [
        Grid.plan(shape, (5.0, 0.75, 0.5), box, (2.5, 1.0, 1.0), (None, 64, 32))
        for shape in ((20, 96, 40), (30, 128, 80))
    ]
    # Uncropped along the axes of a common size, as slices are resized as a whole.
    assert [grid.bounding_box for grid in grids] == [((2, 12), (0, 96), (0, 40)), ((2, 12), (0, 128), (0, 80))]
    assert [grid.shape for grid in grids] == [(20, 64, 32)] * 2
    assert [grid.spacing_mm for grid in grids] == [(2.5, 1.125, 0.625), (2.5, 1.5, 1.25)]
    assert [grid.separate_axis for grid in grids] == [0, 0]
    # A common size is reached by interpolation, however thick slices are or become.
    for spacing in ((5.0, 0.75, 0.75), (0.75, 0.75, 0.75)):
        grid = Grid.plan((20, 96, 40), spacing, box, (2.5, 1.0, 1.0), (64, 64, 4))
        assert (grid.separate_axis, grid.inverse_separate_axis) == (None, None)
    same = Grid.plan((20, 96, 40), (5.0, 0.75, 0.5), box, (2.5, 1.0, 1.0), (None, None, None))
    expected = Grid.plan((20, 96, 40), (5.0, 0.75, 0.5), box, (2.5, 1.0, 1.0))
    assert same.model_copy(update={"common_shape": None}) == expected
