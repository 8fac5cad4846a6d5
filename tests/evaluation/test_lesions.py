import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from seg25d.data.labels import IGNORE_INDEX
from seg25d.evaluation.lesions import LesionCounts, count_lesions

ONE = {"1": (1,)}


def line(text):
    """A volume of one row: a digit per voxel."""
    return np.array([[[int(letter) for letter in text]]], np.uint8)


@pytest.mark.parametrize(
    ("truth", "guess", "expected", "f1"),
    [
        ("0110110110", "0010000001", LesionCounts(1, 2, 1), 2 / 5),
        ("0110110110", "0111111100", LesionCounts(3, 0, 0), 1.0),  # one prediction finds all
        ("0111111100", "0110110000", LesionCounts(1, 0, 0), 1.0),  # pieces of one lesion count once
        ("0110000000", "0000000000", LesionCounts(0, 1, 0), 0.0),
        ("0000000000", "0110001100", LesionCounts(0, 0, 2), 0.0),
        ("0000000000", "0000000000", LesionCounts(0, 0, 0), None),
        ("0220000110", "0110000220", LesionCounts(0, 1, 1), 0.0),  # only the same class finds
    ],
)
def test_counts_by_hand(truth, guess, expected, f1):
    counts = count_lesions(line(truth), line(guess), ONE)["1"]
    assert counts == expected
    assert counts.f1 == f1


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0, 0, 0] = truth[1, 1, 1] = truth[3, 3, 3] = 1
    guess = np.zeros_like(truth)
    guess[1, 1, 1] = 1
    assert count_lesions(truth, guess, ONE)["1"] == LesionCounts(1, 1, 0)


def test_neighbours_of_another_class_are_apart_but_one_region():
    truth, guess = line("0112211000"), line("0100000000")
    assert count_lesions(truth, guess, {"1": (1,), "2": (2,)}) == {"1": (1, 1, 0), "2": (0, 1, 0)}
    assert count_lesions(truth, guess, {"whole": (1, 2), "core": (2,)}) == {"whole": (1, 0, 0), "core": (0, 1, 0)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_agree_with_components_one_by_one(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, IGNORE_INDEX], np.uint8), p=(0.7, 0.15, 0.1, 0.05), size=(6, 7, 8))
    guess = np.where(truth == IGNORE_INDEX, truth, rng.choice(3, p=(0.8, 0.1, 0.1), size=truth.shape).astype(np.uint8))
    for foreground in ({"1": (1,), "2": (2,)}, {"all": (1, 2), "2": (2,)}):
        for name, counts in count_lesions(truth, guess, foreground).items():
            masks = [np.isin(each, foreground[name]) for each in (truth, guess)]
            (true_ids, num_true), (ids, num) = (ndimage.label(mask, np.ones((3, 3, 3))) for mask in masks)
            found = sum(masks[1][true_ids == each].any() for each in range(1, num_true + 1))
            false = sum(not masks[0][ids == each].any() for each in range(1, num + 1))
            assert counts == (found, num_true - found, false)
