"""Resampling: against scikit-image, against torch, and laws."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.preprocessing import resample
from seg25d.preprocessing.resample import axis_matrix, resample_image, resample_labels
from tests.preprocessing.resampled_scores import resampled_scores

shapes = st.tuples(*[st.integers(1, 9)] * 3)


@pytest.mark.parametrize("shape", [(13, 7, 11), (3, 20, 9), (1, 1, 1), (6, 10, 17)])
def test_images_equal_scikit_image(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    transform = pytest.importorskip("skimage.transform")
    image = rng.normal(size=(2, 6, 10, 9)).astype(np.float32)
    expected = [transform.resize(c, shape, order=3, mode="edge", anti_aliasing=False, clip=False) for c in image]
    np.testing.assert_allclose(resample_image(image, shape), expected, atol=2e-6)


def test_linear_interpolation_equals_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    scores = rng.normal(size=(3, 5, 6, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], size=(9, 4, 7), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(resampled_scores(scores, (9, 4, 7)), expected[0].numpy(), atol=2e-6)


def test_separate_axis_takes_whole_slices(rng: np.random.Generator) -> None:
    image = rng.normal(size=(1, 3, 5, 5)).astype(np.float32)
    result = resample_image(image, (6, 8, 4), axis=0)
    planes = resample_image(image, (3, 8, 4))
    np.testing.assert_allclose(result[0], planes[0, [0, 0, 1, 1, 2, 2]], atol=1e-6)


def test_identical_grids_share_memory(rng: np.random.Generator) -> None:
    image = rng.normal(size=(1, 3, 5, 5)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 5, 5)).astype(np.uint8)
    assert resample_image(image, (3, 5, 5)) is image
    assert resample_labels(labels, (3, 5, 5)) is labels


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, 1, 3]))
def test_weights_sum_to_one(size: int, new_size: int, order: int) -> None:
    matrix = axis_matrix(size, new_size, order)
    assert matrix.shape == (new_size, size)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    if size == new_size:
        np.testing.assert_allclose(matrix.toarray(), np.eye(size), atol=1e-6)


@given(st.integers(0, 2**32 - 1), shapes, shapes, st.sampled_from([None, 0, 1, 2]))
def test_labels_are_the_argmax_of_all_masks(
    seed: int, shape: tuple[int, int, int], new_shape: tuple[int, int, int], axis: int | None
) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), shape)
    values = np.unique(labels)
    masks = np.stack([labels == value for value in values]).astype(np.float32)
    shares = np.sort(scores := resampled_scores(masks, new_shape, axis), axis=0)
    clear = np.ones(new_shape, bool) if len(values) == 1 else shares[-1] - shares[-2] > 1e-4
    result = resample_labels(labels, new_shape, axis)
    assert set(np.unique(result)) <= set(values)
    np.testing.assert_array_equal(result[clear], values[scores.argmax(axis=0)][clear])


@given(st.integers(0, 2**32 - 1), shapes, shapes, st.sampled_from([None, 0, 1, 2]), st.integers(1, 2000))
def test_parts_change_nothing(
    seed: int, shape: tuple[int, int, int], new_shape: tuple[int, int, int], axis: int | None, part_bytes: int
) -> None:
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    labels = (image[0] > 0).astype(np.uint8)
    expected = resample_image(image, new_shape, axis), resample_labels(labels, new_shape, axis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "PART_BYTES", part_bytes)
        np.testing.assert_array_equal(resample_image(image, new_shape, axis), expected[0])
        np.testing.assert_array_equal(resample_labels(labels, new_shape, axis), expected[1])


@pytest.mark.parametrize("shape", [(60, 70, 80), (40, 70, 80), (50, 70, 80)])
def test_little_more_memory_than_the_result(
    shape: tuple[int, int, int], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the result: parts of images; of labels the highest share in float32, a mask, and parts."""
    monkeypatch.setattr(resample, "PART_BYTES", 1 << 16)
    image = rng.normal(size=(1, 50, 64, 72)).astype(np.float32)
    labels = (image[0] > 1).astype(np.uint8)
    resample_image(image[:, :2], shape)  # scipy is loaded
    for call, per_voxel in ((lambda: resample_image(image, shape), 4), (lambda: resample_labels(labels, shape), 6)):
        tracemalloc.start()
        try:
            call()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < per_voxel * np.prod(shape) + 8 * resample.PART_BYTES


def test_ties_go_to_the_lower_index() -> None:
    labels = np.array([2, 1], np.uint8).reshape(2, 1, 1)
    assert resample_labels(labels, (1, 1, 1)).item() == 1


def test_a_class_thinner_than_the_new_voxels_may_vanish() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1, 1, 1] = 4
    assert not resample_labels(labels, (2, 2, 2)).any()
    assert not resample_labels(labels, (9, 2, 9), axis=0).any()


def test_doubling_and_halving_labels_gives_them_back(rng: np.random.Generator) -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 3
    doubled = resample_labels(labels, (16, 16, 16))
    np.testing.assert_array_equal(resample_labels(doubled, (8, 8, 8)), labels)
