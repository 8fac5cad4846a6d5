import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from scipy import ndimage

from seg25d.evaluation.surfaces import find_surfaces, surface_scores

MILLIMETRE = (1.0, 1.0, 1.0)


def scores(truth, guess, spacing_mm=MILLIMETRE, members=(1,), tolerance_mm=1.0):
    surfaces = (find_surfaces(np.asarray(each, np.uint8)) for each in (truth, guess))
    return surface_scores(*surfaces, members, spacing_mm, tolerance_mm)


def voxels(surfaces, members):
    mask = np.zeros(surfaces.labels.shape, np.bool_)
    mask.reshape(-1)[surfaces.of(members)] = True
    return mask[1:-1, 1:-1, 1:-1]


def blobs(seed, shape=(12, 11, 10)):
    rng = np.random.default_rng(seed)
    return [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > 0.08 for _ in range(2)]


def test_shares_by_hand():
    # Four voxels in a row each, three of them shared.
    truth, guess = np.zeros((1, 1, 12)), np.zeros((1, 1, 12))
    truth[..., [1, 2, 3, 6]] = 1
    guess[..., [1, 2, 3, 4]] = 1
    # From the truth 0, 0, 0 and 2 (6 to 4); from the prediction 0, 0, 0 and 1 (4 to 3).
    assert scores(truth, guess, tolerance_mm=0.5).surface_dice == pytest.approx(6 / 8)
    assert scores(truth, guess, tolerance_mm=1.0).surface_dice == pytest.approx(7 / 8)
    assert scores(truth, guess, tolerance_mm=2.0).surface_dice == 1
    # 95 % of 0 0 0 2 lies at position 2.85 of 0..3: 0.85 of the way from 0 to 2.
    assert scores(truth, guess).hd95_mm == pytest.approx(1.7)


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (1, 0)])
def test_an_empty_surface_gives_no_scores(pair):
    assert scores(*(np.full((3, 3, 3), value) for value in pair)) is None


def test_no_voxels_give_no_scores():
    assert scores(np.zeros((0, 3, 3)), np.zeros((0, 3, 3))) is None


def test_the_inside_is_no_surface_but_the_border_of_the_array_is():
    surface = voxels(find_surfaces(np.ones((3, 4, 5), np.uint8)), (1,))
    assert not surface[1, 1:-1, 1:-1].any()
    assert surface.sum() == 60 - 6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_surfaces_are_masks_without_their_erosion(seed):
    labels = np.random.default_rng(seed).choice(4, p=(0.2, 0.4, 0.3, 0.1), size=(6, 7, 8)).astype(np.uint8)
    labels[1:4, 1:5, 1:6] = 2
    surfaces = find_surfaces(labels)
    for members in ((1,), (2,), (1, 2), (3, 1), (1, 2, 3)):
        mask = np.isin(labels, members)
        assert np.array_equal(voxels(surfaces, members), mask & ~ndimage.binary_erosion(mask))


def hd95_of_monai(truth, guess, spacing_mm):
    """MONAI's distances of either direction, and numpy's percentile of them."""
    edges = get_mask_edges(np.pad(truth, 1), np.pad(guess, 1), crop=False)
    pairs = (edges, edges[::-1])
    return max(float(np.percentile(get_surface_distance(*pair, spacing=spacing_mm), 95)) for pair in pairs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.floats(0.3, 5.0)] * 3), st.floats(0.0, 6.0, allow_subnormal=False))
def test_both_scores_are_those_of_monai(seed, spacing_mm, tolerance_mm):
    truth, guess = blobs(seed)
    if not (truth.any() and guess.any()):
        return
    ours = scores(truth, guess, spacing_mm, tolerance_mm=tolerance_mm)
    assert ours.hd95_mm == hd95_of_monai(truth, guess, spacing_mm)
    batches = [torch.from_numpy(mask)[None, None] for mask in (guess, truth)]
    whole = compute_hausdorff_distance(*batches, include_background=True, percentile=95, spacing=spacing_mm)
    # The distances are equal to the last digit; torch finds the place of the percentile with 32 bits, numpy with 64.
    assert ours.hd95_mm == pytest.approx(whole.item(), rel=1e-5)
    share = compute_surface_dice(*batches, [tolerance_mm], include_background=True, spacing=spacing_mm)
    assert ours.surface_dice == pytest.approx(share.item(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.floats(0.3, 5.0)] * 3))
def test_distances_agree_with_distance_transforms(seed, spacing_mm):
    masks = blobs(seed)
    if not all(mask.any() for mask in masks):
        return
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    directed = []
    for here, there in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~there, sampling=spacing_mm)
        directed.append(np.percentile(distance[here], 95))
    assert scores(*masks, spacing_mm).hd95_mm == pytest.approx(max(directed), rel=1e-6)


def test_distances_survive_flushed_denormals():
    # scipy's KDTree overflows the stack on coordinates of 0 in this state, in which CPUs train and predict.
    mask = np.zeros((20, 20, 20), np.bool_)
    mask[0] = True
    mask[:, 10, 10] = True
    torch.set_flush_denormal(True)
    try:
        assert scores(mask, np.flip(mask, 0)).hd95_mm > 0
    finally:
        torch.set_flush_denormal(False)
