"""Views of masks in their boxes are those of the whole plane, and what is left out changes nothing."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seg25d.representations.projections import ceiling as module
from seg25d.representations.projections.ceiling import Ceiling, case_ceilings
from seg25d.representations.projections.plane import Plane, ViewAxes
from seg25d.representations.projections.schedule import even_angles
from seg25d.representations.projections.silhouettes import PlaneMask, candidates, hull, silhouettes
from seg25d.representations.projections.views import ViewGeometry

PLANES = [
    Plane((23, 26), (1.0, 1.0)),
    Plane((26, 40), (1.5, 1.0)),
    Plane((15, 31), (0.7, 3.0)),
    Plane((30, 30), (1.0, 1.0)),
]
ANGLES = even_angles(20)


def in_plane(mask: PlaneMask, plane: Plane) -> NDArray[np.bool_]:
    """(N, R, S)."""
    whole = np.zeros((len(mask.voxels), *plane.size), bool)
    row, column = mask.corner
    whole[:, row : row + mask.voxels.shape[1], column : column + mask.voxels.shape[2]] = mask.voxels
    return whole


def draw_masks(plane: Plane, rng: np.random.Generator) -> list[PlaneMask]:
    """Scattered pixels, a full box at a corner of the plane, and more slices than there are bits."""
    return [
        PlaneMask(rng.random((3, 6, 9)) < 0.3, (5, 11)),
        PlaneMask(np.ones((1, 4, 3), bool), (plane.size[0] - 4, 0)),
        PlaneMask(rng.random((19, *plane.size)) < 0.02, (0, 0)),
    ]


def of_whole_planes(mask: PlaneMask, plane: Plane) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Silhouettes (V, S, N) and hull (R, S, N) as torch computes them for models."""
    geometry = ViewGeometry(0, 2, (1.0, *plane.spacing_mm))
    volume = torch.from_numpy(in_plane(mask, plane)).float()[None, None]
    views = geometry.project(volume, ANGLES) >= 0.5
    found = geometry.mean_of_views(views.float(), ANGLES, volume.shape[2:])
    return views[0, :, 0].movedim(1, 2).numpy(), found[0, 0].movedim(0, 2).numpy()


@pytest.mark.parametrize("plane", PLANES)
def test_views_and_hulls_are_those_of_models(plane: Plane, rng: np.random.Generator) -> None:
    masks = draw_masks(plane, rng)
    for mask, views in zip(masks, silhouettes(masks, plane, ANGLES), strict=True):
        wanted_views, wanted_hull = of_whole_planes(mask, plane)
        np.testing.assert_array_equal(views, wanted_views)
        assert 0 < views.mean() < 1
        pixels = np.indices(plane.size).reshape(2, -1)
        found = hull(views, plane, ANGLES, (pixels[0], pixels[1]))
        np.testing.assert_allclose(found.reshape(wanted_hull.shape), wanted_hull, atol=1e-6)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("share", [0.75, 0.5])
def test_no_pixel_with_the_share_is_left_out(plane: Plane, share: float, rng: np.random.Generator) -> None:
    for mask in draw_masks(plane, rng)[:2]:
        views, wanted = of_whole_planes(mask, plane)
        looked_at = candidates(views, plane, ANGLES, share)
        assert looked_at[(wanted >= share).any(2)].all()
        assert looked_at.mean() < 0.8
    assert candidates(views, plane, ANGLES, 0.0).all()


def test_what_all_views_show_is_one_exactly() -> None:
    plane, angles = Plane((40, 40), (0.8, 0.8)), even_angles(60)
    mask = PlaneMask(np.ones((1, 9, 12), bool), (14, 15))
    (views,) = silhouettes([mask], plane, angles)
    pixels = np.indices((5, 8)).reshape(2, -1) + np.array([[16], [17]])
    assert (hull(views, plane, angles, (pixels[0], pixels[1])) == 1).all()


def by_whole_planes(mask: NDArray[np.bool_], axes: ViewAxes, num_views: int) -> Ceiling:
    """All pixels, all of their values as thresholds."""
    plane, angles = axes.plane(mask.shape), even_angles(num_views)
    before = (axes.detector_size(mask.shape) - plane.size[1]) // 2
    padded = mask.transpose(axes.axis, *axes.plane_axes)
    padded = np.pad(padded, ((0, 0), (0, 0), (before, axes.detector_size(mask.shape) - plane.size[1] - before)))
    plane = Plane((plane.size[0], padded.shape[2]), plane.spacing_mm)
    (views,) = silhouettes([PlaneMask(padded, (0, 0))], plane, angles)
    pixels = np.indices(plane.size).reshape(2, -1)
    values = hull(views, plane, angles, (pixels[0], pixels[1])).T.reshape(padded.shape)
    cuts = [
        Ceiling(2 * int((padded & (values >= cut)).sum()) / int((values >= cut).sum() + padded.sum()), float(cut))
        for cut in np.unique(values)[::-1]
    ]
    return max(cuts, key=lambda each: each.dice)


@pytest.mark.parametrize(("seed", "density"), list(itertools.product(range(4), (0.004, 0.03))))
def test_ceilings_are_those_of_whole_planes(seed: int, density: float) -> None:
    """Random labels with a region of two values, an ignored value and a class that is absent."""
    rng = np.random.default_rng(seed)
    shape, axis = rng.integers(6, 15, 3), int(rng.integers(3))
    labels = rng.integers(1, 4, shape).astype(np.uint8) * (rng.random(shape) < density)
    labels[1:5, 2:6, 1:4] = 2
    labels[0, 0, 0] = 255
    others = [other for other in range(3) if other != axis]
    axes = ViewAxes(axis, others[seed % 2], tuple(rng.choice([1.0, 1.5, 2.0], 3).tolist()))
    classes = {"2": (2,), "both": (1, 2), "absent": (9,)}
    wanted = {name: by_whole_planes(np.isin(labels, classes[name]), axes, 12).dice for name in ("2", "both")}
    assert case_ceilings(labels, classes, axes, 12) == wanted


def test_a_threshold_below_the_share_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pixels that no view shows together with the largest share: both are right where the threshold is low."""
    shares: list[float] = []

    def noting(views: NDArray[np.bool_], plane: Plane, angles: tuple[float, ...], share: float) -> NDArray[np.bool_]:
        shares.append(share)
        return candidates(views, plane, angles, share)

    monkeypatch.setattr(module, "candidates", noting)
    mask = np.zeros((1, 41, 41), bool)
    mask[0, ::4, 20] = mask[0, 20, ::4] = True
    axes = ViewAxes(0, None, (1.0, 1.0, 1.0))
    assert module.ceiling(mask, axes, 60) == by_whole_planes(mask, axes, 60)
    assert len(shares) > 1


def test_a_pixel_that_few_views_show_is_looked_at() -> None:
    """Between the samples of oblique rays it is less than half of each."""
    mask = np.zeros((1, 20, 26), bool)
    mask[0, 7, 13] = True
    axes = ViewAxes(0, None, (1.0, 1.0, 1.0))
    found = module.ceiling(mask, axes, 60)
    assert found == by_whole_planes(mask, axes, 60)
    assert found.threshold < module.SHARES[0]
