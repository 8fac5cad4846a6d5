"""Boxes and shapes on voxel grids."""

import numpy as np

from seg25d.core.grids import bounding_box, box_shape, box_slices, content_box, count_voxels, sampled_shape


def test_bounding_box_of_two_voxels() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    box = bounding_box(mask)
    assert box == ((1, 4), (2, 3), (3, 7))
    assert box_shape(box) == (3, 1, 4)
    assert mask[box_slices(box)].sum() == 2


def test_bounding_box_of_nothing() -> None:
    assert bounding_box(np.zeros((2, 3, 4), bool)) is None


def test_content_is_what_any_channel_has() -> None:
    image = np.zeros((2, 4, 5, 6), np.float32)
    image[0, 1, 1, 1] = -3
    image[1, 2, 4, 0] = 7
    assert content_box(image) == ((1, 3), (1, 5), (0, 2))


def test_an_all_zero_image_keeps_its_volume() -> None:
    assert content_box(np.zeros((1, 4, 5, 6), np.float32)) == ((0, 4), (0, 5), (0, 6))


def test_sampled_shape_rounds_and_keeps_a_voxel() -> None:
    assert sampled_shape((10, 11, 1), (3.0, 1.0, 1.0), (2.0, 2.0, 4.0)) == (15, 6, 1)


def test_counts(rng: np.random.Generator) -> None:
    labels = rng.choice(np.array([0, 1, 5, 255], np.uint8), (4, 5, 6))
    counts = count_voxels(labels)
    assert counts.sum() == 120
    assert counts[5] == (labels == 5).sum()
    assert count_voxels(labels[:0]).sum() == 0
