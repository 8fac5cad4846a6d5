import itertools
import tracemalloc

import numpy as np
import pytest

from seg25d.ensembling import correspondence
from seg25d.ensembling.correspondence import Correspondence, nonlocal_votes, normalized

SETTINGS = Correspondence(search_radius=1, patch_radius=1, distance_deviation=1.2, intensity_deviation=0.6)


def votes_by_the_formula(codes, image, where, num_values, settings):
    """Voxel by voxel, as the formula says."""
    patch = settings.patch_radius
    padded = np.pad(image.astype(np.float64), patch, mode="edge")

    def patch_at(voxel):
        return padded[tuple(slice(part, part + 2 * patch + 1) for part in voxel)]

    votes = []
    for voxel in np.argwhere(where):
        vote, total = np.zeros((len(codes), num_values)), 0.0
        reach = range(-settings.search_radius, settings.search_radius + 1)
        for offset in itertools.product(reach, repeat=3):
            other = voxel + offset
            if (other < 0).any() or (other >= image.shape).any():
                continue
            distance = np.square(patch_at(voxel) - patch_at(other)).mean()
            alpha = np.exp(-distance / (2 * settings.intensity_deviation**2))
            alpha *= np.exp(-np.square(offset).sum() / (2 * settings.distance_deviation**2))
            total += alpha
            for rater, code in enumerate(codes):
                vote[rater, code[tuple(other)]] += alpha
        votes.append(vote / total)
    return np.stack(votes, axis=1)


def dense(votes):
    """(J, n, K)."""
    return np.concatenate([part for _, part in votes.blocks()], axis=1)


@pytest.mark.parametrize("patch_radius", [0, 1, 2])
@pytest.mark.parametrize(("tile", "search_radius"), [(3, 1), (32, 1), (32, 2)])
def test_votes_follow_the_formula(rng, monkeypatch, patch_radius, tile, search_radius):
    monkeypatch.setattr(correspondence, "TILE", tile)
    settings = SETTINGS.model_copy(update={"patch_radius": patch_radius, "search_radius": search_radius})
    image = normalized(rng.normal(size=(5, 6, 4)))
    codes = [rng.integers(0, 3, image.shape).astype(np.int32) for _ in range(2)]
    where = rng.random(image.shape) < 0.4
    where[0, 0, 0] = where[-1, -1, -1] = True
    votes = dense(nonlocal_votes(codes, image, where, 3, settings))
    np.testing.assert_allclose(votes, votes_by_the_formula(codes, image, where, 3, settings), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(votes.sum(axis=2), 1, rtol=1e-5)


def test_without_search_a_rater_says_what_it_said(rng):
    codes = [rng.integers(0, 4, (4, 3, 5)).astype(np.int32) for _ in range(3)]
    where = np.ones((4, 3, 5), np.bool_)
    settings = Correspondence(search_radius=0)
    votes = dense(nonlocal_votes(codes, rng.normal(size=where.shape).astype(np.float32), where, 4, settings))
    np.testing.assert_array_equal(votes, np.eye(4)[np.stack(codes).reshape(3, -1)])


def test_images_are_made_comparable():
    image = np.array([[[-1000, 0, 1000]]], np.int16)
    np.testing.assert_allclose(normalized(image).ravel(), [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)
    np.testing.assert_array_equal(normalized(np.full((2, 2, 2), 7)), 0)


def test_votes_come_in_blocks_of_successive_voxels(rng, monkeypatch):
    image = normalized(rng.normal(size=(7, 6, 9)))
    codes = [rng.integers(0, 5, image.shape).astype(np.int8) for _ in range(3)]
    where = rng.random(image.shape) < 0.5
    whole = dense(nonlocal_votes(codes, image, where, 5, SETTINGS))
    monkeypatch.setattr(correspondence, "BLOCK", 10)
    votes = nonlocal_votes(codes, image, where, 5, SETTINGS)
    blocks = [block for block, _ in votes.blocks()]
    assert [(block.start, block.stop) for block in blocks][:2] == [(0, 10), (10, 20)]
    assert blocks[-1].stop == votes.shape[1] == where.sum()
    np.testing.assert_array_equal(dense(votes), whole)


def test_votes_of_many_labels_take_the_memory_of_those_that_are_near(monkeypatch):
    """Whole, those of 24^3 voxels would take 10 MB."""
    monkeypatch.setattr(correspondence, "TILE", 8)
    monkeypatch.setattr(correspondence, "BLOCK", 1 << 10)
    codes = [(np.indices((24, 24, 24)) // 6).transpose(1, 2, 3, 0) @ np.array([16, 4, 1])] * 3
    codes = [code.astype(np.int8) for code in codes]
    where, image = np.ones(codes[0].shape, np.bool_), np.zeros(codes[0].shape, np.float32)
    whole = 4 * 3 * where.size * 64
    nonlocal_votes(codes, image, where, 64, SETTINGS)  # what is loaded
    tracemalloc.start()
    votes = nonlocal_votes(codes, image, where, 64, SETTINGS)
    theirs = [part.sum() for _, part in votes.blocks()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(theirs) == pytest.approx(3 * where.size, rel=1e-4)
    assert peak < whole / 2
