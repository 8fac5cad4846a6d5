"""Sums and maps of probabilities, as a whole and plane by plane."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from seg25d.core.arrays import PlaneWriter
from seg25d.data.labels import Labels
from seg25d.inference.export import export_slabs, labels_from_slabs
from seg25d.inference.sliding_window import Slab
from seg25d.inference.uncertainty import STEPS, Uncertainty, entropy
from seg25d.preprocessing.grid import Grid

CLASSES = Labels(names={"background": 0, "a": 1, "b": 5})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
both = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])


def made_up(labels: Labels, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    scores = torch.from_numpy(rng.normal(scale=3, size=(labels.num_outputs, 6, 7, 8)).astype(np.float32))
    probabilities = (scores.sigmoid() if labels.has_regions else scores.softmax(0)).numpy()
    return probabilities, labels.from_scores(scores.numpy())


@both
def test_sums_are_those_of_the_definition(labels: Labels, rng: np.random.Generator) -> None:
    probabilities, indices = made_up(labels, rng)
    uncertainty = Uncertainty(labels)
    uncertainty.add(probabilities, indices)
    foreground = probabilities if labels.has_regions else probabilities[1:]
    assert list(uncertainty.sums) == list(labels.foreground)
    for own, (name, members) in zip(foreground, labels.foreground.items(), strict=True):
        mask, sums = np.isin(indices, members), uncertainty.sums[name]
        assert sums.voxels == mask.sum()
        assert sums.inside == pytest.approx(own[mask].sum(dtype=np.float64))
    assert uncertainty.map is None


@both
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_give_what_whole_probabilities_give(
    labels: Labels, axis: int, rng: np.random.Generator, writer: PlaneWriter
) -> None:
    scores = torch.from_numpy(rng.normal(scale=3, size=(labels.num_outputs, 5, 6, 7)).astype(np.float32))
    box = ((1, 9), (0, 6), (2, 8))
    grid = Grid(
        canonical_shape=(10, 6, 9),
        canonical_spacing_mm=(1.0, 1.0, 1.0),
        bounding_box=box,
        spacing_mm=(1.6, 1.0, 1.0),
        shape=(5, 6, 7),
    )
    planes = scores.movedim(axis + 1, 0)
    slabs = [Slab(axis, 0, planes[:2]), Slab(axis, 2, planes[2:])]
    streamed, with_probabilities, whole = (Uncertainty(labels, with_map=True) for _ in range(3))
    # What an attempt that ran out of memory has left is forgotten.
    streamed.add(np.ones((labels.num_outputs, 1), np.float32), np.ones(1, np.uint8))
    indices = labels_from_slabs(slabs, grid, labels, None, streamed)
    exported = export_slabs(slabs, grid, labels, [writer], None, with_probabilities)
    whole.begin(exported.shape)
    whole.add(writer.array[...], exported, whole.map)
    np.testing.assert_array_equal(indices, exported)
    np.testing.assert_allclose(streamed.map, whole.map, atol=1e-3)
    assert streamed.map is not None
    assert (streamed.map[0] == 0).all(), "outside of the crop it is background"
    assert with_probabilities.map is not None
    np.testing.assert_array_equal(with_probabilities.map, whole.map)
    for name, sums in whole.sums.items():
        assert streamed.sums[name].voxels == sums.voxels
        assert streamed.sums[name].inside == pytest.approx(sums.inside, rel=1e-6)
        assert with_probabilities.sums[name].inside == pytest.approx(sums.inside, rel=1e-12)


def test_entropy_is_0_where_all_is_certain_and_1_where_nothing_is_known() -> None:
    certain, unknown = np.zeros((4, 2), np.float32), np.full((4, 2), 0.25, np.float32)
    certain[2] = 1
    np.testing.assert_array_equal(entropy(certain, regions=False), 0)
    np.testing.assert_allclose(entropy(unknown, regions=False), 1, rtol=1e-6)
    regions = np.array([[0, 1, 0.5, 1], [0, 1, 1, 0.11]], np.float32)
    np.testing.assert_allclose(entropy(regions, regions=True), [0, 0, 1, 0.4999], atol=1e-3)


def test_entropy_is_that_of_scipy(rng: np.random.Generator) -> None:
    probabilities = rng.dirichlet(np.ones(5), 50).T.astype(np.float32)
    expected = 1 - rel_entr(probabilities, 0.2).sum(0) / np.log(5)
    np.testing.assert_allclose(entropy(probabilities, regions=False), expected, atol=1e-5)


def test_a_picture_gets_whole_numbers(rng: np.random.Generator) -> None:
    uncertainty = Uncertainty(CLASSES, with_map=True)
    probabilities, indices = made_up(CLASSES, rng)
    uncertainty.begin(indices.shape)
    uncertainty.add(probabilities, indices, uncertainty.map)
    grey, exact = uncertainty.finished_map(grey=True), uncertainty.finished_map()
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey / 255, exact, atol=0.5 / 255 + 0.5 / STEPS + 1e-6)
    np.testing.assert_array_equal(exact * STEPS, np.rint(exact * STEPS))


@pytest.mark.parametrize("grey", [False, True])
def test_a_finished_map_is_made_in_its_place(grey: bool, rng: np.random.Generator) -> None:
    uncertainty = Uncertainty(CLASSES, with_map=True)
    uncertainty.map = rng.random((40, 50, 60)).astype(np.float16)
    exact = uncertainty.map.astype(np.float32)
    expected = np.rint(exact * 255).astype(np.uint8) if grey else np.rint(exact * STEPS) / np.float32(STEPS)
    tracemalloc.start()
    finished = uncertainty.finished_map(grey=grey)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(finished, expected)
    assert finished.dtype == expected.dtype
    assert peak < 1.3 * exact.nbytes, "one volume in float32, and a picture in bytes"
