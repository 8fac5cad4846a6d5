import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.data.labels import Labels, logit
from seg25d.inference import indices

pytestmark = pytest.mark.processor
CLASSES = Labels(names={"background": 0, "a": 1, "b": 5, "c": 7})
ONE = Labels(names={"background": 0, "organ": 3})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,), "rim": (9,)}, regions_class_order=(9, 1, 2))


@given(
    st.sampled_from([(CLASSES, None), (ONE, None), (ONE, 0.3), (REGIONS, None), (REGIONS, 0.3)]), st.integers(0, 10**6)
)
def test_devices_choose_what_numpy_chooses(meaning, seed):
    """Also of equal scores, and of scores on the threshold."""
    labels, threshold = meaning
    rng = np.random.default_rng(seed)
    values = np.float32([0, 1, -1, logit(0.3), logit(0.3) + 1, np.nextafter(np.float32(logit(0.3)), np.float32(0))])
    scores = torch.from_numpy(rng.choice(values, (labels.num_outputs, 4, 5)))
    expected = labels.from_scores(scores.numpy(), threshold)
    for chosen in (
        indices.indices_from_scores(scores, labels, threshold),
        indices._on_device(scores, labels, threshold),
    ):
        assert chosen.dtype == torch.uint8
        np.testing.assert_array_equal(chosen, expected)


@pytest.mark.parametrize(("labels", "threshold"), [(CLASSES, None), (ONE, 0.3), (REGIONS, None)])
def test_indices_stay_where_the_scores_are(labels, threshold):
    scores = torch.empty(labels.num_outputs, 4, 5, device="meta")
    chosen = indices.indices_from_scores(scores, labels, threshold)
    assert (chosen.device.type, chosen.dtype, chosen.shape) == ("meta", torch.uint8, (4, 5))
