"""Crops around the object: they never hide any of it, and their margins are what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.data.labels import IGNORE_INDEX
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.training.crops import crop_around, draw_margins, object_box, usual_margins


def test_the_box_holds_all_classes_and_nothing_that_is_ignored() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2, 3, 4], labels[5, 3, 6], labels[8, 8, 8] = 1, 2, IGNORE_INDEX
    assert object_box(labels) == ((2, 6), (3, 4), (4, 7))
    assert object_box(np.full((2, 2, 2), IGNORE_INDEX, np.uint8)) is None


@given(st.integers(0, 1000), st.integers(0, 30), st.integers(0, 30))
def test_a_crop_holds_the_object_and_lies_in_the_volume(seed: int, margin: int, random_margin: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 10, 3)
    high = low + rng.integers(1, 10, 3)
    box = tuple((int(first), int(last)) for first, last in zip(low, high, strict=True))
    margins = draw_margins(rng, FineConfig(margin=margin, random_margin=random_margin))
    crop = crop_around(box, margins, (20, 20, 20), (2.5, 1.0, 1.2))
    for (start, stop), (first, last) in zip(crop, box, strict=True):
        assert 0 <= start <= first < last <= stop <= 20


def test_margins_are_voxels_of_the_finest_axis_and_millimetres_elsewhere() -> None:
    margins = np.array([[20, 4], [20, 0], [7, 20]])
    crop = crop_around(((50, 60), (50, 60), (50, 60)), margins, (100, 100, 100), (2.5, 1.0, 0.5))
    # 10 mm and 2 mm of 2.5; 10 mm and none of 1; 7 and 20 voxels of 0.5.
    assert crop == ((46, 61), (40, 60), (43, 80))
    assert crop_around(None, margins, (4, 5, 6), (1.0, 1.0, 1.0)) == ((0, 4), (0, 5), (0, 6))


def test_margins_are_random_as_often_as_asked(rng: np.random.Generator) -> None:
    fine = FineConfig()
    drawn = [draw_margins(rng, fine) for _ in range(400)]
    usual = [each for each in drawn if (each == usual_margins(fine)).all()]
    others = np.stack([each for each in drawn if (each != usual_margins(fine)).any()])
    assert 160 < len(usual) < 240
    # Six numbers from 0 to 40, each by itself.
    assert (others.min(), others.max()) == (0, 40)
    assert others.mean() == pytest.approx(20, abs=1.5)
    assert all(len(np.unique(each)) > 1 for each in others)
