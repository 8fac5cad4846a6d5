import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.grids import slicing_axis
from seg25d.planning.geometry import (
    choose_topology,
    round_up,
    target_spacing,
)
from seg25d.representations.slices import neighbour_context

SIZES = st.lists(st.tuples(st.integers(1, 600), st.floats(0.2, 12.0)), min_size=2, max_size=3)


def test_target_spacing_is_the_median_of_nearly_isotropic_data() -> None:
    spacings = np.array([(1.0, 0.5, 0.5), (3.0, 0.7, 0.6), (2.0, 0.6, 0.9)])
    shapes = np.array([(10, 100, 100)] * 3)
    # 2.0 is more than three times 0.6, but 10 * 3 < 100 only counts together: so take thick data with many slices.
    assert target_spacing(spacings, shapes * (5, 1, 1)) == ((2.0, 0.6, 0.6), False)


def test_target_spacing_of_anisotropic_data_takes_the_tenth_percentile() -> None:
    spacings = np.array([(5.0 + index, 1.0, 1.0) for index in range(11)])
    shapes = np.array([(20, 200, 200)] * 11)
    assert target_spacing(spacings, shapes) == ((6.0, 1.0, 1.0), True)


def test_target_spacing_of_anisotropic_data_is_not_finer_than_in_plane() -> None:
    spacings = np.array([(0.4, 1.0, 1.0)] * 3 + [(5.0, 1.0, 1.0)] * 7)
    shapes = np.array([(20, 200, 200)] * 10)
    spacing, anisotropic = target_spacing(spacings, shapes)
    assert anisotropic
    assert spacing == pytest.approx((1.00001, 1.0, 1.0), abs=1e-9)


def test_a_ratio_of_exactly_three_is_not_anisotropic() -> None:
    assert target_spacing(np.array([(3.0, 1.0, 1.0)]), np.array([(12, 64, 64)])) == ((3.0, 1.0, 1.0), False)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 1), 0), ((1, 2, 1), 1), ((0.5, 0.5, 0.8), 2), ((0.999, 1.0, 0.5), 0), ((3.27, 1.95, 1.95), 0)],
)
def test_slices_are_taken_along_the_coarsest_axis(spacing: tuple[float, float, float], axis: int) -> None:
    assert slicing_axis(spacing) == axis


@pytest.mark.parametrize(
    ("spacing", "axis", "num_slices", "context"),
    [
        ((1, 1, 1), 0, 100, 3),
        ((1.5, 1, 1), 0, 100, 2),
        ((3, 1, 1), 0, 100, 1),
        ((10, 1, 1), 0, 100, 1),
        ((5, 1, 1), 1, 100, 3),
        ((1, 1, 1), 0, 5, 2),
        ((1, 1, 1), 0, 3, 1),
        ((1, 1, 1), 0, 2, 0),
        ((1, 1, 1), 0, 1, 0),
    ],
)
def test_neighbours_follow_the_spacing(
    spacing: tuple[float, float, float], axis: int, num_slices: int, context: int
) -> None:
    assert neighbour_context(spacing, axis, num_slices) == context


@pytest.mark.parametrize(
    ("sizes", "spacing", "stages"),
    [
        ((56, 40), (1, 1), 4),
        ((40, 56, 40), (1, 1, 1), 4),
        ((256, 224), (1.5625, 1.5625), 6),
        ((20, 256, 224), (5, 1.5625, 1.5625), 6),
        ((512, 512), (0.768, 0.768), 8),
        ((128, 128, 128), (1, 0.768, 0.768), 6),
        ((320, 320), (0.625, 0.625), 7),
        ((20, 320, 256), (3.6, 0.625, 0.625), 7),
        ((192, 160), (1, 1), 6),
        ((64, 192, 192), (1.25, 0.803, 0.803), 6),
        ((16, 320, 320), (5.9, 0.5, 0.5), 7),
        ((64, 64), (1, 1), 5),
        ((12, 64, 64), (3, 1, 1), 5),
    ],
)
def test_stages_are_those_of_nnunet(sizes: tuple[int, ...], spacing: tuple[float, ...], stages: int) -> None:
    topology = choose_topology(sizes, spacing)
    assert len(topology.strides) == len(topology.kernels) == stages
    assert all(size % divisor == 0 for size, divisor in zip(sizes, topology.divisor, strict=True))


def test_strides_and_kernels_of_anisotropic_data_are_those_of_nnunet() -> None:
    acdc = choose_topology((20, 256, 224), (5, 1.5625, 1.5625))
    assert acdc.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert acdc.kernels == ((1, 3, 3), *[(3, 3, 3)] * 5)
    prostate = choose_topology((20, 320, 256), (3.6, 0.625, 0.625))
    assert prostate.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert prostate.kernels == ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5)


def test_a_single_axis_is_pooled_from_twelve_voxels_on() -> None:
    assert len(choose_topology((4, 11), (1, 1)).strides) == 1
    assert choose_topology((4, 12), (1, 1)).strides == ((1, 1), (1, 2))


def test_a_flat_axis_has_no_kernel() -> None:
    topology = choose_topology((1, 64, 64), (5, 1, 1))
    assert all(kernel == (1, 3, 3) for kernel in topology.kernels)
    assert topology.divisor == (1, 16, 16)


@given(SIZES)
def test_every_axis_keeps_four_voxels(axes: list[tuple[int, float]]) -> None:
    sizes, spacing = zip(*axes, strict=True)
    divisor = choose_topology(sizes, spacing).divisor
    window = round_up((*sizes, 1)[:3], range(len(sizes)), divisor)
    for size, padded, step in zip(sizes, window, divisor, strict=False):
        assert padded % step == 0
        assert size <= padded < size + step
        assert step == 1 or padded // step >= 4
