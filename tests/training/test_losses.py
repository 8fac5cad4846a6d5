"""The losses against values worked out by hand, formulas in numpy, MONAI's, and on several processes."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.parts import sums_in_parts
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.training import losses
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import LOSSES, Dice, DiceCrossEntropy, DiceFocal, DiceSquared

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


SPARSE = Labels(names={"background": 0, "organ": 1, "ignore": 2})


def test_coarse_outputs_see_every_labelled_slice() -> None:
    """Of nine slices the second, the fifth and the eighth are labelled; half as many hold one each, or none."""
    target = torch.full((1, 9, 2, 2), IGNORE_INDEX, dtype=torch.uint8)
    target[:, 1], target[:, 4], target[:, 7] = 1, 0, 1
    halves = losses.nearest_labelled(target, (5, 2, 2))
    # Cells of 1.8 slices, the first of 0 and 1, the second of 1 to 3, the third of 3 to 5, and so on.
    assert halves[0, :, 0, 0].tolist() == [1, 1, 0, 1, 1]
    assert losses.nearest_labelled(target[:, 2:4], (1, 2, 2))[0, 0, 0, 0] == IGNORE_INDEX
    assert losses.nearest_labelled(target[:, :8], (4, 1, 1))[0, :, 0, 0].tolist() == [1, IGNORE_INDEX, 0, 1]
    coarse = torch.zeros(1, 2, 4, 2, 2)
    loss = DiceCrossEntropy(SPARSE)([(coarse, 1.0)], target[:, :8])
    expected = DiceCrossEntropy(SPARSE)([(coarse[:, :, :3], 1.0)], target[:, [1, 4, 7]])
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("size", [(3, 4, 5), (2, 4, 3), (1, 1, 1), (6, 8, 5)])
def test_coarse_labels_without_ignored_voxels_are_the_nearest_ones(size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(7)
    target = torch.from_numpy(rng.integers(0, 4, (2, 6, 8, 5)).astype(np.uint8))
    assert torch.equal(losses.nearest_labelled(target, size), losses._nearest(target, size))
    # Labels that are there are never changed, and what is chosen lies in the cell.
    target[torch.from_numpy(rng.random(target.shape) < 0.7)] = IGNORE_INDEX
    nearest, chosen = losses._nearest(target, size), losses.nearest_labelled(target, size)
    assert torch.equal(chosen[nearest != IGNORE_INDEX], nearest[nearest != IGNORE_INDEX])
    assert (chosen == IGNORE_INDEX).sum() <= (nearest == IGNORE_INDEX).sum()


def test_batch_dice_of_an_empty_sample_is_not_one_of_its_own() -> None:
    target = torch.cat((volume(1, 1), volume(0, 0))).to(torch.uint8)
    probability = torch.cat((volume(0.99, 0.99), volume(0.01, 0.01)))
    assert DiceCrossEntropy(TWO)([(scores_of(probability), 1.0)], target).item() < 0.05


THREE = Labels(names={"background": 0, "organ": 1, "lesion": 2})
CASES = [(TWO, 2), (THREE, 3), (REGIONS, 3)]
"""Labels, and how many values their targets have."""


def sample(labels: Labels, num_values: int, *, ignored: bool = True) -> tuple[Tensor, Tensor]:
    """Scores (3, K, 2, 3, 4) and a target of which a part is ignored; the last volume has no foreground."""
    rng = np.random.default_rng(3)
    scores = torch.from_numpy(rng.normal(0, 2, (3, labels.num_outputs, 2, 3, 4)).astype(np.float32))
    target = rng.integers(0, num_values, (3, 2, 3, 4)).astype(np.uint8)
    target[2] = 0
    if ignored:
        target[0, 0] = IGNORE_INDEX
    return scores, torch.from_numpy(target)


def in_numpy(labels: Labels, scores: Tensor, target: Tensor) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Probabilities and truth (B, F, voxels) of the foreground in double precision, and which voxels count."""
    logits, values = scores.double().numpy().reshape(*scores.shape[:2], -1), target.numpy().reshape(len(target), -1)
    if labels.has_regions:
        probabilities = 1 / (1 + np.exp(-logits))
        truth = np.stack([np.isin(values, members) for members in labels.output_members], 1)
    else:
        powers = np.exp(logits)
        probabilities = (powers / powers.sum(1, keepdims=True))[:, 1:]
        truth = np.stack([values == index for index in range(1, labels.num_outputs)], 1)
    return probabilities, truth.astype(float), np.broadcast_to((values != IGNORE_INDEX)[:, None], truth.shape)


@pytest.mark.parametrize(("labels", "num_values"), CASES)
@pytest.mark.parametrize("smooth", [1e-6, 1.0])
@pytest.mark.parametrize(("kind", "power"), [(Dice, 1), (DiceSquared, 2)])
def test_dice_over_the_batch(kind: type[Dice], power: int, smooth: float, labels: Labels, num_values: int) -> None:
    scores, target = sample(labels, num_values)
    p, g, counts = in_numpy(labels, scores, target)
    overlap = (p * g * counts).sum((0, 2))
    size = (p**power * counts).sum((0, 2)) + (g * counts).sum((0, 2))
    expected = 1 - ((2 * overlap + smooth) / (size + smooth)).mean()
    assert kind(labels, smooth)([(scores, 1.0)], target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("labels", "num_values"), CASES)
def test_dice_and_focal_per_sample(labels: Labels, num_values: int) -> None:
    scores, target = sample(labels, num_values)
    scores[1] *= 10  # some probabilities beyond the clamp
    p, g, counts = in_numpy(labels, scores, target)
    dice = (2 * (p * g * counts).sum(2) + 1) / ((p**2 * counts).sum(2) + (g * counts).sum(2) + 1)
    clamped = p.clip(1e-3, 1 - 1e-3)
    focal = -(g * (1 - clamped) ** 2 * np.log(clamped) + (1 - g) * clamped**2 * np.log(1 - clamped))
    expected = 1 - dice.mean() + focal[counts].mean()
    assert DiceFocal(labels)([(scores, 1.0)], target).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("kind", "squared"), [(Dice, False), (DiceSquared, True)])
def test_dice_is_that_of_monai(kind: type[Dice], squared: bool) -> None:
    scores, target = sample(THREE, 3, ignored=False)
    theirs = DiceLoss(
        include_background=False,
        softmax=True,
        to_onehot_y=True,
        squared_pred=squared,
        batch=True,
        smooth_nr=1,
        smooth_dr=1,
    )
    expected = theirs(scores, target[:, None]).item()
    assert kind(THREE)([(scores, 1.0)], target).item() == pytest.approx(expected, abs=1e-6)


def test_dice_and_focal_are_those_of_monai() -> None:
    scores, target = sample(TWO, 2, ignored=False)
    # One sigmoid channel, as in the paper, is the softmax of two.
    single, truth = scores[:, 1:] - scores[:, :1], target[:, None].float()
    dice = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=1, smooth_dr=1)(single, truth)
    focal = FocalLoss(gamma=2)(single, truth)
    assert DiceFocal(TWO)([(scores, 1.0)], target).item() == pytest.approx((dice + focal).item(), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("labels", "num_values"), CASES)
def test_every_loss_leaves_ignored_voxels_alone_and_moves_all_scores_of_others(
    name: str, labels: Labels, num_values: int
) -> None:
    scores, target = sample(labels, num_values)
    loss = LOSSES[name](labels)
    changed = torch.where((target == IGNORE_INDEX)[:, None], scores + 3, scores).requires_grad_()
    value = loss([(changed, 1.0)], target)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(loss([(scores, 1.0)], target).item(), abs=1e-6)
    assert changed.grad is not None
    assert (changed.grad[0, :, 0] == 0).all()
    assert (changed.grad[1] != 0).all()
    assert math.isfinite(loss([(scores, 1.0)], torch.full_like(target, IGNORE_INDEX)).item())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_weighs_its_outputs(name: str) -> None:
    scores, target = sample(TWO, 2)
    coarse = scores[..., ::2]
    loss = LOSSES[name](TWO)
    # Nearest neighbours of every second voxel are the odd ones.
    separately = 0.7 * loss([(scores, 1.0)], target) + 0.3 * loss([(coarse, 1.0)], target[..., 1::2])
    assert loss([(scores, 0.7), (coarse, 0.3)], target).item() == pytest.approx(separately.item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("split", [1, 2])
def test_every_loss_of_a_spread_batch_is_that_of_the_whole(
    name: str, split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums of one process are recorded and added to those of the other, as the exchange between them does."""
    scores, target = sample(THREE, 3)
    loss = LOSSES[name](THREE)
    whole = loss([(scores, 1.0)], target).item()
    others: list[Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(losses, "sum_over_processes", lambda values: others.append(values) or values)
        loss([(scores[:split], 1.0)], target[:split])
        patch.setattr(losses, "sum_over_processes", lambda values: values + others[0])
        spread = loss([(scores[split:], 1.0)], target[split:]).item()
    assert spread == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_a_perfect_prediction_is_about_zero(name: str) -> None:
    _, target = sample(THREE, 3)
    scores = torch.where(losses.one_hot(target, 3) > 0, 20.0, -20.0)
    assert LOSSES[name](THREE)([(scores, 1.0)], target).item() == pytest.approx(0, abs=1e-5)


def test_the_settings_know_all_losses() -> None:
    assert set(LOSSES) == set(get_args(TrainingConfig.model_fields["loss"].annotation))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "labels", [Labels(names={"background": 0, "a": 1, "b": 2}), REGIONS], ids=["classes", "regions"]
)
def test_parts_of_a_volume_give_the_loss_of_the_whole(
    name: str, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = LOSSES[name](labels)
    scores = torch.randn(2, labels.num_outputs, 6, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (2, 6, 8, 8), dtype=torch.uint8)
    target[:, 2:4, :3] = IGNORE_INDEX
    whole = loss([(scores, 1.0)], target)
    (gradient,) = torch.autograd.grad(whole, scores)
    counted = []
    monkeypatch.setattr(
        losses,
        "sums_in_parts",
        lambda sums, *each: sums_in_parts(lambda *part: counted.append(1) or sums(*part), *each, 512),
    )
    parts = loss([(scores, 1.0)], target)
    (gradient_of_parts,) = torch.autograd.grad(parts, scores)
    assert len(counted) > 10
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient_of_parts, gradient)


def slope_of_dice(smooth: float, probability: float, num_foreground: int) -> Tensor:
    """Gradient of the Dice loss by the foreground's scores of 1024 voxels that all have the same probability."""
    foreground = (torch.arange(1024) < num_foreground).to(torch.uint8).reshape(1, 1, 1, -1)
    scores = scores_of(torch.full((1, 1, 1, 1024), probability, dtype=torch.float64)).float().requires_grad_()
    Dice(TWO, smooth)([(scores, 1.0)], foreground).backward()
    assert scores.grad is not None
    return scores.grad[0, 1].flatten()


def test_dice_of_a_window_without_foreground_teaches_nothing_or_to_find_nothing() -> None:
    """With S the sum of probabilities p, the slope by a score is p (1 - p) smooth / (S + smooth)^2."""
    assert slope_of_dice(1e-6, 0.5, 0).abs().sum() < 2e-9
    # Where hardly anything is found the slope is large, and leads to still less; with 1 instead of 1e-6 it is earlier.
    for smooth in (1e-6, 1.0):
        slope = slope_of_dice(smooth, smooth / 1024, 0)
        assert slope.min() > 0
        assert slope.sum() == pytest.approx(1 / 4, rel=1e-2)


def test_dice_of_foreground_goes_on_unless_nothing_is_found_at_all() -> None:
    """Near an empty mask the slope is -2 p / G at each of G voxels of foreground: it ends with the probability."""
    assert slope_of_dice(1e-6, 0.5, 4)[:4].max() < -9e-4
    assert slope_of_dice(1e-6, 1e-9, 4)[:4].tolist() == pytest.approx([-2e-9 / 4] * 4, rel=1e-2)
    assert not slope_of_dice(1e-6, 1e-46, 4).any()
