"""Rounds of coarse-to-fine prediction with refiners whose answer is known."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.grids import bounding_box, box_slices, with_margin
from seg25d.inference.fixed_point import Refined, fixed_point, foreground_dice
from seg25d.planning.coarse_to_fine import FineConfig

SHAPE = (12, 12, 12)
MARGIN = (2, 2, 2)


def block(low, high, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = True
    return mask


class Refiner:
    """Finds what `answer` makes of the crop's place, and notes the crops."""

    def __init__(self, answer):
        self.answer = answer
        self.crops = []

    def __call__(self, box):
        self.crops.append(box)
        mask = self.answer(len(self.crops))[box_slices(box)]
        return Refined(box, torch.zeros(2, *mask.shape), mask)


@given(st.integers(0, 8), st.integers(1, 3), st.integers(0, 4))
def test_a_perfect_refiner_that_gets_the_truth_stops_after_one_round(start, size, margin):
    truth = block((start,) * 3, (start + size,) * 3)
    refiner = Refiner(lambda _: truth)
    result = fixed_point(truth, refiner, (margin,) * 3, FineConfig())
    assert len(refiner.crops) == 1
    assert result.box == with_margin(bounding_box(truth), (margin,) * 3, SHAPE)
    np.testing.assert_array_equal(result.mask, truth[box_slices(result.box)])


def test_a_perfect_refiner_finds_an_object_of_which_a_part_was_found():
    truth = block((2, 2, 2), (8, 8, 8))
    refiner = Refiner(lambda _: truth)
    result = fixed_point(block((4, 4, 4), (5, 5, 5)), refiner, MARGIN, FineConfig())
    # 2 to 7 is seen first, then 0 to 9, then all of it again.
    assert refiner.crops == [((2, 7),) * 3, ((0, 9),) * 3, ((0, 10),) * 3]
    assert result.mask.sum() == truth.sum()


def test_it_ends_where_the_next_crop_would_be_the_same():
    # The mask shrinks a lot, but its box does not.
    before, after = block((2, 2, 2), (9, 9, 9)), np.zeros(SHAPE, bool)
    after[2, 2, 2] = after[8, 8, 8] = True
    refiner = Refiner(lambda _: after)
    assert fixed_point(before, refiner, MARGIN, FineConfig()) is not None
    assert len(refiner.crops) == 1


def test_it_ends_where_the_mask_hardly_changes():
    coarse = block((0, 0, 0), (9, 9, 9))
    answer = coarse.copy()
    # The next crop would be larger, but Dice is 2 * 729 / (729 + 730).
    answer[9, 9, 9] = True
    refiner = Refiner(lambda _: answer)
    for stop_dice, rounds in ((0.999, 1), (1, 2)):
        refiner.crops.clear()
        fixed_point(coarse, refiner, (1, 1, 1), FineConfig(stop_dice=stop_dice))
        assert len(refiner.crops) == rounds


def test_it_ends_after_so_many_rounds():
    # It never stands still.
    places = [block((at, 0, 0), (at + 2, 2, 2)) | block((5, 0, 0), (7, 2, 2)) for at in (3, 7)]
    refiner = Refiner(lambda number: places[number % 2])
    for rounds in (1, 4, 10):
        refiner.crops.clear()
        result = fixed_point(places[0], refiner, MARGIN, FineConfig(max_rounds=rounds))
        assert len(refiner.crops) == rounds
        assert result.box == refiner.crops[-1]


def test_where_a_round_finds_nothing_the_one_before_stands():
    masks = [block((3, 3, 3), (6, 6, 6)), np.zeros(SHAPE, bool)]
    refiner = Refiner(lambda number: masks[min(number, 2) - 1])
    result = fixed_point(block((2, 2, 2), (4, 4, 4)), refiner, MARGIN, FineConfig())
    assert len(refiner.crops) == 2
    assert result.box == refiner.crops[0]
    assert result.mask.any()


def test_where_nothing_is_found_there_is_no_result():
    refiner = Refiner(lambda _: np.zeros(SHAPE, bool))
    assert fixed_point(np.zeros(SHAPE, bool), refiner, MARGIN, FineConfig()) is None
    assert refiner.crops == []
    assert fixed_point(block((2, 2, 2), (4, 4, 4)), refiner, MARGIN, FineConfig()) is None


def test_dice_by_hand():
    first, second = block((0, 0, 0), (1, 1, 4)), block((0, 0, 3), (1, 1, 5))
    assert foreground_dice(first, second) == 2 / 6
    assert foreground_dice(first, first) == 1
