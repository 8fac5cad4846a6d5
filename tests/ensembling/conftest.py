"""Raters who err in a known way."""

import numpy as np
import pytest


@pytest.fixture
def make_raters():
    """A function from a truth, error rates per rater and a seed to labels: wrong voxels get another value at random."""

    def make(truth, error_rates, seed=0):
        rng = np.random.default_rng(seed)
        values = np.unique(truth)
        raters = []
        for rate in error_rates:
            wrong = rng.random(truth.shape) < rate
            step = rng.integers(1, len(values), truth.shape)
            others = values[(np.searchsorted(values, truth) + step) % len(values)]
            raters.append(np.where(wrong, others, truth).astype(np.uint8))
        return raters

    return make


@pytest.fixture
def three_classes():
    """A volume of 0, 2 and 5 in blocks."""
    truth = np.zeros((10, 12, 11), np.uint8)
    truth[2:8, 2:7, 3:9] = 2
    truth[3:9, 7:11, 2:8] = 5
    return truth
