"""benchmarks/super_image_grids.py: HD95 in the volume and on the plane of the super image."""

import math

import numpy as np
import pytest
from super_image_grids import contenders, distance_mm, hd95_mm, measures_on, num_empty, tiled

from seg25d.evaluation.pairs import Segmentations
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM, find_surfaces, surface_scores

SPACING_MM = (2.0, 1.0, 1.5)


def boxes(**depths: slice) -> Segmentations:
    """A case of 4 x 6 x 5 voxels with a box of label 1 in truth and prediction; slices are along the first axis."""
    labels = {name: np.zeros((4, 6, 5), np.uint8) for name in ("truth", "prediction")}
    for name, depth in depths.items():
        labels[name][depth, 1:4, 1:4] = 1
    return Segmentations(labels["truth"], labels["prediction"], {"1": (1,)}, SPACING_MM)


def test_slices_are_tiled_row_by_row() -> None:
    labels = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
    by_hand = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 0, 0], [10, 11, 0, 0]]
    assert tiled(labels, 0, 2).tolist() == by_hand
    assert tiled(np.moveaxis(labels, 0, 2), 2, 2).tolist() == by_hand


def test_in_a_volume_it_is_the_distance_of_the_package() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        truth, predicted = (random.random((6, 7, 8)) < share for share in (0.3, 0.2))
        surfaces = [find_surfaces(mask.astype(np.uint8)) for mask in (truth, predicted)]
        scores = surface_scores(surfaces[0], surfaces[1], (1,), SPACING_MM, SURFACE_TOLERANCE_MM)
        assert scores is not None
        assert distance_mm(truth, predicted, SPACING_MM) == pytest.approx(scores.hd95_mm)


def test_a_slice_too_many_is_near_in_the_volume_and_far_on_the_plane() -> None:
    case = boxes(truth=slice(0, 2), prediction=slice(0, 3))
    assert hd95_mm(case) == pytest.approx(2.0)
    # In two columns the third slice lies below the first one, six voxels of 1 mm away; in four, 10 voxels of 1.5 mm.
    assert hd95_mm(case, 2) == pytest.approx(6.0)
    assert hd95_mm(case, 4) > 7
    assert num_empty(case) == 0


def test_on_the_plane_borders_are_those_of_the_image() -> None:
    """Of a filled square only its border counts: one that is a pixel larger is a pixel away everywhere."""
    small, large = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    small[2:7, 2:7] = large[1:8, 1:8] = True
    assert distance_mm(small, large, (1.0, 1.0)) == pytest.approx(math.sqrt(2))
    assert distance_mm(small, small, (1.0, 1.0)) == 0


def test_what_is_not_found_is_as_far_as_the_diagonal() -> None:
    missed = boxes(truth=slice(0, 2))
    assert hd95_mm(missed) == pytest.approx(math.hypot(8, 6, 7.5))
    assert hd95_mm(missed, 2) == pytest.approx(math.hypot(12, 15))
    assert num_empty(missed) == num_empty(boxes(prediction=slice(0, 1))) == 1
    assert hd95_mm(boxes()) == num_empty(boxes()) == 0
    half = missed._replace(foreground={"1": (1,), "2": (2,)})
    assert hd95_mm(half) == pytest.approx(math.hypot(8, 6, 7.5) / 2)


def test_both_rows_that_are_compared_have_the_scores() -> None:
    rows = {row.name: set(row.measures) for row in contenders([(6, 8), (24, 2)])}
    assert rows == {"3D": set(measures_on(8)), "6 x 8": set(measures_on(8)), "24 x 2": set()}
