import functools

import numpy as np
import pytest
import torch

from seg25d.data.made_up import MadeUpCase
from seg25d.data.vessels import CHANNELS, LABELS, SHAPE, SPACING_MM, make_vessels, write_vessels_dataset
from seg25d.representations.base import VolumeGeometry
from seg25d.representations.projections.ceiling import ceiling
from seg25d.representations.projections.method import Projections

SEEDS = range(2)
SEEDS_AND_MORE = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]


@functools.cache
def case(seed: int) -> MadeUpCase:
    """A case of the data set that the demo makes."""
    return make_vessels(np.random.default_rng((25, seed)))


def best_dice_of_a_threshold(image, mask) -> float:
    """Of all masks {image >= threshold}, the best Dice; ties are broken at will, which only helps."""
    order = np.argsort(-image.ravel().astype(int), kind="stable")
    right = mask.ravel()[order].cumsum()
    return float((2 * right / (np.arange(1, mask.size + 1) + mask.sum())).max())


def test_the_best_dice_of_a_threshold_by_hand():
    # The brightest two voxels: one right of two predicted and two true.
    image, mask = np.array([9, 8, 3, 7]), np.array([True, False, True, False])
    assert best_dice_of_a_threshold(image, mask) == pytest.approx(max(2 / 3, 2 / 4, 2 / 5, 4 / 6))


def test_same_seed_same_case():
    first, second = (make_vessels(np.random.default_rng(3), (32, 32, 24)) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.spacing_mm == second.spacing_mm


@pytest.mark.slow
def test_cases_differ_mildly_in_size_and_spacing():
    assert len({case(seed).labels.shape for seed in SEEDS}) > 1
    assert len({case(seed).spacing_mm for seed in SEEDS}) > 1
    for seed in SEEDS:
        images, labels, spacing_mm = case(seed)
        assert images.shape == (len(CHANNELS), *labels.shape)
        np.testing.assert_allclose(spacing_mm, SPACING_MM, rtol=0.031)
        lengths = np.multiply(labels.shape, spacing_mm) / np.multiply(SHAPE, SPACING_MM)
        assert (lengths > 0.9).all()
        assert (lengths < 1.02).all()


@pytest.mark.parametrize("seed", SEEDS_AND_MORE)
def test_vessels_are_sparse(seed):
    labels = case(seed).labels
    assert set(np.unique(labels)) == set(LABELS.values())
    assert 0.0015 < labels.mean() < 0.0045  # paper: 0.0024


@pytest.mark.parametrize("seed", SEEDS_AND_MORE)
def test_no_threshold_finds_them_as_others_are_as_bright(seed):
    image, vessels = case(seed).images[0], case(seed).labels > 0
    assert best_dice_of_a_threshold(image, vessels) < 0.6
    # They do stand out of the tissue: where they are, it is brighter than nearly everywhere else.
    assert np.median(image[vessels]) > np.percentile(image, 98)


@pytest.mark.slow
def test_projections_can_find_them():
    """The ceiling of 12 perfect views."""
    found = []
    for seed in SEEDS:
        _, labels, spacing_mm = case(seed)
        views = Projections(axis=0, detector_axis=1, spacing_mm=spacing_mm, num_views=12)
        found.append(ceiling(labels > 0, views.geometry, 12).dice)
    assert np.mean(found) > 0.95
    assert min(found) > 0.94


@pytest.mark.parametrize("seed", SEEDS_AND_MORE)
def test_they_are_seen_in_maximum_projections(seed):
    """Of the pixels that show the tree, what is in front of it or behind it outshines few."""
    _, labels, spacing_mm = case(seed)
    image = torch.from_numpy(case(seed).images).float()
    tree = torch.from_numpy(labels > 0)
    views = Projections(axis=0, detector_axis=1, spacing_mm=spacing_mm)
    angles = (0.0, 45.0, 90.0, 135.0)
    with_all, with_tree = (views.geometry.project(each[None], angles) for each in (image, image * tree))
    silhouette = views.geometry.project(tree[None, None].float(), angles) >= 0.5
    assert (with_tree >= 0.9 * with_all)[silhouette].float().mean() > 0.7


def test_it_is_planned_as_in_the_paper():
    """Turned about the longest axis, the detector along the middle one, slices across the shortest."""
    planned, _ = next(Projections.candidates(VolumeGeometry(shape=SHAPE, spacing_mm=SPACING_MM, num_outputs=2)))
    assert (planned.axis, planned.detector_axis) == (0, 1)
    assert np.argmax(SPACING_MM) == np.argmin(SHAPE) == 2


def test_data_set_is_in_the_raw_layout_and_reproducible(tmp_path):
    for name in ("a", "b"):
        write_vessels_dataset(tmp_path / name, num_training=1, num_test=1, shape=(32, 32, 24))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        "dataset.json",
        "imagesTr/vessels_000_0000.nii.gz",
        "imagesTs/vessels_001_0000.nii.gz",
        "labelsTr/vessels_000.nii.gz",
        "labelsTs/vessels_001.nii.gz",
    ]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
