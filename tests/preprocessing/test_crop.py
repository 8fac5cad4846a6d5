"""Cropping can be undone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seg25d.preprocessing.crop import content_box, crop, restore


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
def test_restoring_gives_the_labels_back(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) > 0.8).astype(np.uint8)
    box = content_box(labels[None])
    cropped = crop(labels, box)
    assert np.shares_memory(cropped, labels)
    np.testing.assert_array_equal(restore(cropped, box, shape), labels)
