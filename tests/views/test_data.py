"""The region that a fusion network learns from."""

import numpy as np
import torch

from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.views.data import region

LABELS = Labels(names={"background": 0, "organ": 1})
NOTHING = [torch.zeros(1, 80, 90, 100)] * 3


def test_it_is_the_box_of_the_object_and_32_voxels_around() -> None:
    labels = np.zeros((80, 90, 100), np.uint8)
    labels[40:42, 10, 60:70] = 1
    labels[79, 89, 99] = IGNORE_INDEX
    assert region(labels, NOTHING, LABELS, (1.0, 1.0, 1.0)) == ((8, 74), (0, 43), (28, 100))


def test_thick_slices_have_fewer_voxels_around() -> None:
    labels = np.zeros((80, 90, 100), np.uint8)
    labels[40, 45, 50] = 1
    assert region(labels, NOTHING, LABELS, (4.0, 1.0, 1.0)) == ((32, 49), (13, 78), (18, 83))


def test_without_an_object_it_is_what_the_views_find_or_else_the_centre() -> None:
    labels = np.zeros((80, 90, 100), np.uint8)
    assert region(labels, NOTHING, LABELS, (1.0, 1.0, 1.0)) == ((8, 73), (13, 78), (18, 83))
    found = torch.zeros(1, 80, 90, 100)
    found[0, 0, 0, 0] = 1
    assert region(labels, [found] * 3, LABELS, (1.0, 1.0, 1.0)) == ((0, 33), (0, 33), (0, 33))
