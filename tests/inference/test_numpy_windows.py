"""Windows, sums and export of numpy's arrays: by the same code as of torch's, with the same result."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.core.execution import HostExecution
from seg25d.data.labels import Labels
from seg25d.inference import window_sums
from seg25d.inference.export import export_slabs, labels_from_slabs
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.inference.sliding_window import WindowOptions, axis_weights, gaussian_weights, predict_slabs, window_starts
from seg25d.inference.uncertainty import Uncertainty
from seg25d.preprocessing.grid import Grid
from seg25d.representations.base import RegularSteps

CLASSES = Labels(names={"background": 0, "a": 1, "b": 5})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,), "rim": (9,)}, regions_class_order=(9, 1, 2))


def blurred(volume):
    """Three scores of which the second sees its neighbours, so that windows matter; of arrays of both libraries."""
    shifted = volume[:, :1] * 0
    shifted[:, :, 1:] = volume[:, :1, :-1]
    stack = torch.cat if isinstance(volume, torch.Tensor) else np.concatenate
    return stack([volume[:, :1] * 2, shifted, 1 - volume[:, :1]], 1)


class Blurred(torch.nn.Module):
    def forward(self, volume):
        return blurred(volume)


def volume_of(slabs, shape) -> np.ndarray:
    scores = np.empty((3, *shape), np.float32)
    for slab in slabs:
        np.moveaxis(scores, 1 + slab.axis, 0)[slab.start : slab.start + len(slab.planes)] = np.asarray(slab.planes)
    return scores


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(1, 5),
    st.sampled_from([(), (2,), (0, 1, 2)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0, 1, 2]),
)
def test_scores_are_those_of_torch(shape, window, batch_size, mirror_axes, regular, lowest, repeated):
    image = np.random.default_rng(sum(shape)).normal(size=(1, *shape)).astype(np.float32)
    options = WindowOptions(
        window,
        mirror_axes=mirror_axes,
        batch_size=batch_size,
        regular=RegularSteps(1, 1, max(1, window[1] // 2)) if regular else None,
        padded_with_lowest=lowest,
        repeated_axis=repeated,
    )
    before = image.copy()
    found = volume_of(predict_slabs([blurred], image, 3, options), shape)
    expected = volume_of(predict_slabs([Blurred()], torch.from_numpy(image), 3, options), shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(image, before)


def test_large_sums_are_in_half_precision_and_in_a_file(monkeypatch):
    monkeypatch.setattr(window_sums, "PLANES_BYTES", 0)
    image = np.random.default_rng(0).normal(size=(1, 9, 8, 7)).astype(np.float32)
    options = WindowOptions((6, 5, 4), mirror_axes=(0,))
    slabs = list(predict_slabs([blurred], image, 3, options))
    assert {slab.planes.dtype for slab in slabs} == {np.dtype(np.float16)}
    found = volume_of(predict_slabs([blurred], image, 3, options), image.shape[1:])
    monkeypatch.undo()
    expected = volume_of(predict_slabs([blurred], image, 3, options), image.shape[1:])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.6, 1.4, 0.9), (4.0, 1.0, 1.0)])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_labels_and_what_probabilities_say_are_those_of_torch(labels, spacing_mm, writer):
    canonical = (9, 12, 10)
    grid = Grid.plan(canonical, spacing_mm, ((0, 9), (1, 12), (0, 10)), (1.0, 1.0, 1.0))
    image = np.random.default_rng(0).normal(size=(1, *grid.shape)).astype(np.float32)
    options = WindowOptions((4, 6, 5))
    results = []
    for models, volume in (([blurred], image), ([Blurred()], torch.from_numpy(image))):
        uncertainty = Uncertainty(labels, with_map=True)
        indices = labels_from_slabs(predict_slabs(models, volume, 3, options), grid, labels, None, uncertainty)
        exported = export_slabs(predict_slabs(models, volume, 3, options), grid, labels, [writer])
        np.testing.assert_array_equal(exported, indices)
        results.append((indices, writer.array[...], uncertainty.finished_map()))
    (found, probabilities, unsure), (expected, wanted, sure) = results
    assert len(np.unique(expected)) > 1
    assert np.count_nonzero(found != expected) <= 1
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    np.testing.assert_allclose(unsure, sure, atol=3e-3)


def test_a_predictor_of_functions_needs_no_torch(header):
    predictor = Predictor([lambda images: np.concatenate([images, images[:, :1]], 1)], header, HostExecution())
    image = np.random.default_rng(0).normal(size=(2, 9, 12, 10)).astype(np.float32)
    indices = predictor.predict_array(image, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(indices, np.stack([image[0], image[1], image[0]]).argmax(0))
    maps = predictor.predict_maps(image)
    assert (maps.dtype, maps.shape) == (np.float16, (2, 9, 12, 10))


def test_windows_keep_their_size_along_axes_that_a_graph_fixes(header):
    class Fixed:
        free_axes = frozenset({2})

        def __call__(self, images):
            assert images.shape[2:4] == (8, 8)
            return np.concatenate([images, images[:, :1]], 1)

    predictor = Predictor([Fixed()], header, HostExecution(), PredictorOptions(mirroring=False))
    assert predictor.window_options((11, 11, 11)).window == (8, 8, 12)
    predictor.predict_array(np.zeros((2, 11, 11, 11), np.float32), (1.0, 1.0, 1.0))


def torch_weights(size: int, window: int, starts: list[int]) -> dict[int, torch.Tensor]:
    """The weights as torch computes them."""
    offset = (torch.arange(window, dtype=torch.float64) - (window - 1) / 2) / (window / 8)
    weights = torch.exp(-0.5 * offset**2).clamp_min(1e-3)
    total = torch.zeros(size, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += weights
    return {start: (weights / total[start : start + window]).float() for start in starts}


@pytest.mark.parametrize("share", [1.0, 1.3, 2.7, 4.0])
def test_weights_of_windows_are_torch_s_to_the_last_bit(share):
    """They were torch's: no segmentation may change."""
    for window in range(1, 400, 3):
        size = int(share * window)
        starts = window_starts(size, window, 0.5)
        expected = torch_weights(size, window, starts)
        for start, found in axis_weights(size, window, starts).items():
            np.testing.assert_array_equal(found, expected[start].numpy(), err_msg=f"{window} of {size}")
    assert gaussian_weights(3).dtype == np.float64
