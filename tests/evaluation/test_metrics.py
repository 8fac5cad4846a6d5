import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.data.labels import IGNORE_INDEX
from seg25d.evaluation.metrics import Counts, case_metrics, confusion, overlap_metrics

ONE = {"1": (1,)}


def volume(shape=(4, 4, 4), **boxes):
    labels = np.zeros(shape, np.uint8)
    for name, box in boxes.items():
        labels[tuple(slice(*each) for each in box)] = int(name.removeprefix("l"))
    return labels


def test_scores_by_hand():
    # 2 x 2 x 2 against a block moved by one: 4 right, 4 too many, 4 missed of 64 voxels.
    truth = volume(l1=((0, 2), (0, 2), (0, 2)))
    guess = volume(l1=((1, 3), (0, 2), (0, 2)))
    metrics = case_metrics(truth, guess, ONE, (1.0, 1.0, 1.0))["1"]
    assert (metrics.tp, metrics.fp, metrics.fn, metrics.tn) == (4, 4, 4, 52)
    assert metrics.dice == pytest.approx(8 / 16)
    assert metrics.iou == pytest.approx(4 / 12)
    assert metrics.precision == pytest.approx(0.5)
    assert metrics.recall == pytest.approx(0.5)
    assert metrics.mean_accuracy == pytest.approx((52 / 56 + 4 / 8) / 2)
    assert metrics.mean_iou == pytest.approx((52 / 60 + 4 / 12) / 2)
    # Every surface voxel of one block is at most one voxel away from the other.
    assert metrics.hd95_mm == pytest.approx(1.0)
    assert metrics.surface_dice == 1
    assert metrics.lesion_f1 == 1
    assert metrics.volume_error_ml == 0
    assert metrics.volume_error_percent == 0


def test_volume_errors_by_hand():
    # 8 true voxels of 2.5 mm3, of which 6 are found; 1 is false: 7 - 8 voxels.
    truth = volume(l1=((0, 2), (0, 2), (0, 2)))
    guess = truth.copy()
    guess[0, 0] = 0
    guess[3, 3, 3] = 1
    metrics = case_metrics(truth, guess, ONE, (2.5, 1.0, 1.0))["1"]
    assert (metrics.tp, metrics.fp, metrics.fn) == (6, 1, 2)
    assert metrics.volume_error_ml == pytest.approx(-0.0025)
    assert metrics.volume_error_percent == pytest.approx(-12.5)


def test_the_tolerance_is_in_millimetres():
    truth = volume((9, 3, 3), l1=((1, 2), (1, 2), (1, 2)))
    guess = volume((9, 3, 3), l1=((3, 4), (1, 2), (1, 2)))
    shares = [case_metrics(truth, guess, ONE, (2.5, 1.0, 1.0), each)["1"].surface_dice for each in (4.9, 5.0)]
    assert shares == [0, 1]


def test_distances_are_millimetres():
    truth = volume((9, 3, 3), l1=((1, 2), (1, 2), (1, 2)))
    guess = volume((9, 3, 3), l1=((7, 8), (2, 3), (1, 2)))
    metrics = case_metrics(truth, guess, ONE, (2.5, 0.5, 1.0))["1"]
    assert metrics.hd95_mm == pytest.approx(math.hypot(6 * 2.5, 0.5))


def test_the_larger_direction_counts():
    # The truth is one voxel; the guess has it and a line of 20 more: 19 of 20 distances are below the 95th percentile.
    truth, guess = np.zeros((1, 1, 30), np.uint8), np.zeros((1, 1, 30), np.uint8)
    truth[..., 0] = 1
    guess[..., :21] = 1
    # Distances from guess to truth: 0, 1, ..., 20; their 95th percentile is 19. The other way all are 0.
    assert case_metrics(truth, guess, ONE, (1.0, 1.0, 1.0))["1"].hd95_mm == pytest.approx(19.0)


def test_both_empty_is_no_score():
    metrics = case_metrics(volume(), volume(), ONE, (1.0, 1.0, 1.0))["1"]
    assert metrics.dice is None
    assert metrics.hd95_mm is None
    assert metrics.iou is None
    assert metrics.precision is None
    assert metrics.recall is None
    assert metrics.mean_accuracy is None
    assert metrics.mean_iou is None
    assert metrics.surface_dice is None
    assert metrics.lesion_f1 is None
    assert metrics.volume_error_ml is None
    assert metrics.volume_error_percent is None
    assert metrics.num_true_components == metrics.num_false_components == 0
    assert metrics.tn == 64


@pytest.mark.parametrize("swapped", [False, True])
def test_one_empty_is_the_diagonal_of_the_volume(swapped):
    pair = [volume((4, 5, 6)), volume((4, 5, 6), l1=((1, 2), (1, 2), (1, 2)))]
    metrics = case_metrics(*(pair[::-1] if swapped else pair), ONE, (3.0, 1.0, 2.0))["1"]
    assert metrics.dice == 0
    assert metrics.iou == 0
    assert metrics.hd95_mm == pytest.approx(math.sqrt(12**2 + 5**2 + 12**2))
    assert metrics.surface_dice == 0
    assert metrics.lesion_f1 == 0
    assert metrics.num_missed_components == int(swapped)
    assert metrics.num_false_components == int(not swapped)
    # A voxel of 6 mm3 more, or less.
    assert metrics.volume_error_ml == pytest.approx(-0.006 if swapped else 0.006)
    assert metrics.volume_error_percent == (-100 if swapped else None)
    assert (metrics.recall is None) == (not swapped)
    assert (metrics.precision is None) == swapped


def test_ignored_voxels_count_nowhere():
    truth = volume(l1=((0, 2), (0, 2), (0, 2)))
    guess = truth.copy()
    guess[3] = 1
    truth[3] = IGNORE_INDEX
    metrics = case_metrics(truth, guess, ONE, (1.0, 1.0, 1.0))["1"]
    assert (metrics.tp, metrics.fp, metrics.fn, metrics.tn) == (8, 0, 0, 40)
    assert metrics.dice == 1
    assert metrics.hd95_mm == 0


def test_regions_take_all_their_members_together():
    truth = volume(l1=((0, 1), (0, 1), (0, 2)), l2=((0, 1), (1, 2), (0, 2)))
    guess = volume(l2=((0, 1), (0, 1), (0, 2)), l1=((0, 1), (1, 2), (0, 2)))
    metrics = case_metrics(truth, guess, {"whole": (1, 2), "core": (2,)}, (1.0, 1.0, 1.0))
    assert metrics["whole"].dice == 1
    assert metrics["whole"].hd95_mm == 0
    assert metrics["core"].dice == 0
    assert metrics["core"].hd95_mm == pytest.approx(1.0)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shape"):
        case_metrics(volume((4, 4, 4)), volume((4, 4, 5)), ONE, (1.0, 1.0, 1.0))


def test_a_volume_without_voxels():
    empty = np.zeros((0, 4, 4), np.uint8)
    assert confusion(empty, empty, ONE) == {"1": Counts(0, 0, 0, 0)}


def test_recall_of_everything_leaves_mean_accuracy_open():
    assert overlap_metrics(Counts(5, 0, 0, 0)).mean_accuracy is None
    assert overlap_metrics(Counts(5, 0, 0, 0)).dice == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_agree_with_masks(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, IGNORE_INDEX], np.uint8), size=(5, 6, 7))
    guess = rng.integers(0, 3, (5, 6, 7)).astype(np.uint8)
    valid = truth != IGNORE_INDEX
    counts = confusion(truth, guess, {"1": (1,), "both": (1, 2)})
    for name, members in (("1", [1]), ("both", [1, 2])):
        is_true, is_guessed = np.isin(truth, members), np.isin(guess, members)
        assert counts[name] == Counts(
            int((valid & is_true & is_guessed).sum()),
            int((valid & ~is_true & is_guessed).sum()),
            int((valid & is_true & ~is_guessed).sum()),
            int((valid & ~is_true & ~is_guessed).sum()),
        )
