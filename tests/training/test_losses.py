"""The loss against values worked out by hand, and on several processes."""

import math

import pytest
import torch
from torch import Tensor

from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.training.losses import DiceCrossEntropy

TWO = Labels(names={"background": 0, "organ": 1})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def volume(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def scores_of(probability: Tensor) -> Tensor:
    """Two-class scores (1, 2, 1, 1, W) with the given probability of class 1."""
    return torch.stack((torch.zeros_like(probability), torch.log(probability / (1 - probability))), 1)


def test_dice_and_cross_entropy_by_hand() -> None:
    target = volume(1, 1, 0, 0).to(torch.uint8)
    loss = DiceCrossEntropy(TWO)([(scores_of(volume(0.8, 0.6, 0.4, 0.2)), 1.0)], target)
    dice = (2 * 1.4 + 1) / (2.0 + 2 + 1)  # smoothing 1 above and below
    entropy = -(math.log(0.8) + math.log(0.6)) * 2 / 4
    assert loss.item() == pytest.approx(1 - dice + entropy, abs=1e-5)


def test_ignored_voxels_change_nothing() -> None:
    target = volume(1, 0).to(torch.uint8)
    ignored = volume(1, 0, IGNORE_INDEX).to(torch.uint8)
    loss = DiceCrossEntropy(TWO)
    expected = loss([(scores_of(volume(0.7, 0.1)), 1.0)], target)
    scores = scores_of(volume(0.7, 0.1, 0.9)).requires_grad_()
    got = loss([(scores, 1.0)], ignored)
    got.backward()
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    assert scores.grad is not None
    assert scores.grad[..., 2].abs().max() == 0


def test_all_voxels_ignored_is_finite() -> None:
    loss = DiceCrossEntropy(TWO)([(scores_of(volume(0.7)), 1.0)], volume(IGNORE_INDEX).to(torch.uint8))
    assert math.isfinite(loss.item())


def test_regions_by_hand() -> None:
    target = volume(2, 0).to(torch.uint8)  # voxel 0 is whole and core, voxel 1 is neither
    probability = torch.tensor([[0.9, 0.2], [0.6, 0.3]]).reshape(1, 2, 1, 1, 2)
    loss = DiceCrossEntropy(REGIONS)([(torch.logit(probability), 1.0)], target)
    dice = ((2 * 0.9 + 1) / (1.1 + 1 + 1) + (2 * 0.6 + 1) / (0.9 + 1 + 1)) / 2
    entropy = -(math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(0.7)) / 4
    assert loss.item() == pytest.approx(1 - dice + entropy, abs=1e-5)


def test_coarse_outputs_see_coarse_labels() -> None:
    target = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    target[:, :, :2] = 1
    fine = torch.zeros(1, 2, 2, 4, 4)
    coarse = torch.zeros(1, 2, 2, 2, 2)
    loss = DiceCrossEntropy(TWO)
    assert loss([(fine, 0.5), (coarse, 0.5)], target).item() == pytest.approx(
        0.5 * loss([(fine, 1.0)], target).item() + 0.5 * loss([(coarse, 1.0)], target[:, :, ::2, ::2]).item()
    )


def test_batch_dice_of_an_empty_sample_is_not_one_of_its_own() -> None:
    target = torch.cat((volume(1, 1), volume(0, 0))).to(torch.uint8)
    probability = torch.cat((volume(0.99, 0.99), volume(0.01, 0.01)))
    assert DiceCrossEntropy(TWO)([(scores_of(probability), 1.0)], target).item() < 0.05
