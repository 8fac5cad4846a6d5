"""Counts and samples of voxels per class."""

import zlib

import numpy as np
import pytest
from _pytest.monkeypatch import MonkeyPatch

from seg25d.core.grids import count_voxels
from seg25d.preprocessing import locations
from seg25d.preprocessing.locations import sample_locations


def test_small_classes_are_kept_whole() -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 1, 2] = labels[2, 3, 4] = 2
    labels[1] = 255
    found = sample_locations(labels, count_voxels(labels), "case", 255)
    assert list(found) == [2]
    np.testing.assert_array_equal(found[2], [[0, 1, 2], [2, 3, 4]])


def test_large_classes_are_sampled_alike_every_time(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "MAX_LOCATIONS", 50)
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:8, 2:7] = 1
    counts = count_voxels(labels)
    found = sample_locations(labels, counts, "case", 255)[1]
    assert found.shape == (50, 3)
    assert len(np.unique(found, axis=0)) == 50
    assert (labels[tuple(found.T)] == 1).all()
    np.testing.assert_array_equal(found, sample_locations(labels, counts, "case", 255)[1])
    assert not np.array_equal(found, sample_locations(labels, counts, "other", 255)[1])


@pytest.mark.parametrize("seed", range(4))
def test_all_classes_in_one_pass_are_as_each_alone(seed: int, monkeypatch: MonkeyPatch) -> None:
    """Ranks among the voxels of each class in scan order, drawn in the order of the classes."""
    monkeypatch.setattr(locations, "MAX_LOCATIONS", 20)
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 4, 200, 255], rng.integers(1, 9, 3), p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(np.uint8)
    draw, wanted = np.random.default_rng(zlib.crc32(b"case")), {}
    for value in (1, 4, 200):
        voxels = np.argwhere(labels == value)
        if len(voxels) > 20:
            voxels = voxels[np.sort(draw.choice(len(voxels), 20, replace=False))]
        if len(voxels):
            wanted[value] = voxels.astype(np.int32)
    found = sample_locations(labels, count_voxels(labels), "case", 255)
    assert list(found) == list(wanted)
    for value, voxels in wanted.items():
        assert found[value].dtype == np.int32
        np.testing.assert_array_equal(found[value], voxels)


def test_no_foreground() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    assert sample_locations(labels, count_voxels(labels), "case", 255) == {}
