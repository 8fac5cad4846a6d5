"""The losses: Dice in several forms, alone or with cross-entropy or focal loss, exact on any number of processes.

Each is a function of a few sums over voxels, which are computed part by part (core/parts.py): the memory for it does
not grow with the volume, nor with the number of classes.

Letters: B batch, K scores, F foreground classes or regions, D H W volume. Label 255 is ignored everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.parts import sums_in_parts
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.training.processes import sum_over_processes

SMOOTH = 1.0
"""Added to numerator and denominator of the soft Dice; with sums over a batch its size hardly matters."""
FOCAL_GAMMA = 2.0
"""Exponent of the focal loss (Lin et al. 2017, and the code of Sobirov et al.: methods.md 1.7)."""
FOCAL_CLAMP = 1e-3
"""The focal loss sees probabilities between this and one minus this (methods.md 1.7)."""
VOLUME = (2, 3, 4)
BATCH = (0, 2, 3, 4)
"""Axes of sums per sample, and over a whole batch."""


class Maps(NamedTuple):
    """One output of a model and its target."""

    scores: Tensor
    """(B, K, D, H, W), float32."""
    target: Tensor
    """(B, D, H, W), uint8."""
    valid: Tensor
    """(B, D, H, W), where the target is not ignored."""
    probabilities: Tensor
    """(B, F, D, H, W): softmax over exclusive classes, sigmoid of regions; zero where ignored."""
    truth: Tensor
    """(B, F, D, H, W), 0 or 1; zero where ignored."""


class SegmentationLoss(nn.Module):
    """The weighted loss of all outputs of a model; a subclass defines the loss of one output by sums over its voxels.

    Whatever a subclass averages goes through `sum_over_processes`, so that a batch spread over processes has the same
    loss and gradient as on one.

    Args:
        labels: Define the number of scores, and whether they are regions.
        smooth: Added to numerator and denominator of the soft Dice.
    """

    def __init__(self, labels: Labels, smooth: float = SMOOTH) -> None:
        super().__init__()
        self.num_outputs = labels.num_outputs
        self.regions = labels.output_members if labels.has_regions else None
        self.sample_labels = _nearest if labels.ignore_value is None else nearest_labelled
        self.smooth = smooth

    def forward(self, outputs: Sequence[tuple[Tensor, float]], target: Tensor) -> Tensor:
        """The weighted loss of all outputs.

        Args:
            outputs: (scores, weight) per scale; scores (B, K, d, h, w), the same size as the target or coarser.
            target: Internal labels (B, D, H, W), uint8.
        """
        total = torch.zeros((), device=target.device)
        for scores, weight in outputs:
            sums = sums_in_parts(self._sums, scores, self.sample_labels(target, scores.shape[2:]))
            total = total + weight * self.value(sums)
        return total

    def sums(self, maps: Maps) -> Sequence[Tensor]:
        """What the loss of one output needs of some of its voxels: sums over them."""
        raise NotImplementedError

    def value(self, sums: Sequence[Tensor]) -> Tensor:
        """The loss of one output, from the sums over all voxels of this process."""
        raise NotImplementedError

    def _sums(self, scores: Tensor, target: Tensor) -> Sequence[Tensor]:
        return self.sums(self._maps(scores.float(), target))

    def _maps(self, scores: Tensor, target: Tensor) -> Maps:
        valid = target != IGNORE_INDEX
        if self.regions is None:
            probabilities, truth, first = scores.softmax(1), one_hot(target, self.num_outputs), 1
        else:
            probabilities, truth, first = scores.sigmoid(), region_maps(target, self.regions), 0
        return Maps(scores, target, valid, (probabilities * valid[:, None])[:, first:], truth[:, first:])


class DiceCrossEntropy(SegmentationLoss):
    """Soft Dice loss plus cross-entropy (sigmoid and binary cross-entropy for regions), equal weights as in nnU-Net.

    Dice sums run over the whole batch ("batch Dice" in nnU-Net) and over all processes.
    """

    def sums(self, maps: Maps) -> Sequence[Tensor]:
        """Per class overlap and sizes; the entropy, and the number of voxels that it is the mean of."""
        if self.regions is None:
            target = maps.target.long()
            entropy = functional.cross_entropy(maps.scores, target, ignore_index=IGNORE_INDEX, reduction="sum")
        else:
            each = functional.binary_cross_entropy_with_logits(maps.scores, maps.truth, reduction="none")
            entropy = (each * maps.valid[:, None]).sum()
        per_voxel = 1 if self.regions is None else self.num_outputs
        return (
            (maps.probabilities * maps.truth).sum(BATCH),
            maps.probabilities.sum(BATCH) + maps.truth.sum(BATCH),
            entropy,
            maps.valid.sum() * float(per_voxel),
        )

    def value(self, sums: Sequence[Tensor]) -> Tensor:
        """1 - (2 sum pg + smooth) / (sum p + sum g + smooth), mean over classes; plus the mean cross-entropy."""
        overlap, size, entropy, voxels = sums_over_processes(*sums)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return 1 - dice.mean() + entropy / voxels.clamp(min=1)


class Dice(SegmentationLoss):
    """Soft Dice loss with linear denominators (methods.md 2.2, 3.7 and 4.3), sums over batch and processes."""

    def sums(self, maps: Maps) -> Sequence[Tensor]:
        """Per class overlap and sizes."""
        sizes = maps.probabilities.sum(BATCH) + maps.truth.sum(BATCH)
        return (maps.probabilities * maps.truth).sum(BATCH), sizes

    def value(self, sums: Sequence[Tensor]) -> Tensor:
        """1 - (2 sum pg + smooth) / (sum p + sum g + smooth), mean over classes."""
        overlap, size = sums_over_processes(*sums)
        return 1 - ((2 * overlap + self.smooth) / (size + self.smooth)).mean()


class DiceSquared(Dice):
    """Soft Dice loss with squared denominators (Milletari et al. 2016, V-Net), sums over batch and processes.

    1 - (2 sum pg + smooth) / (sum p^2 + sum g^2 + smooth), mean over classes.
    """

    def sums(self, maps: Maps) -> Sequence[Tensor]:
        """Per class overlap and squared sizes."""
        sizes = maps.probabilities.square().sum(BATCH) + maps.truth.sum(BATCH)
        return (maps.probabilities * maps.truth).sum(BATCH), sizes


class DiceFocal(SegmentationLoss):
    """Soft Dice loss of each sample, squared denominators, plus the focal loss of the foreground (methods.md 1.7).

    The paper has one foreground class; several are treated as separate binary problems, and averaged.
    """

    def sums(self, maps: Maps) -> Sequence[Tensor]:
        """Per sample and class overlap and squared sizes; the focal loss, and the number of voxels."""
        return (
            (maps.probabilities * maps.truth).sum(VOLUME),
            maps.probabilities.square().sum(VOLUME) + maps.truth.sum(VOLUME),
            (focal_loss(maps.probabilities, maps.truth) * maps.valid[:, None]).sum(),
            maps.valid.sum(),
        )

    def value(self, sums: Sequence[Tensor]) -> Tensor:
        """1 - (2 sum pg + smooth) / (sum p^2 + sum g^2 + smooth), mean over samples and classes; plus mean focal."""
        overlap, size, focal, voxels = sums
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        samples = dice.new_tensor(float(dice.numel()))
        dice, samples, focal, voxels = sums_over_processes(dice.sum(), samples, focal, voxels * float(dice.shape[1]))
        return 1 - dice / samples.clamp(min=1) + focal / voxels.clamp(min=1)


def focal_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Compute the focal loss of every voxel: -(1 - q)^2 log q with q the clamped probability of the true label.

    Args:
        probabilities: Of being foreground, any shape.
        truth: 0 or 1, the same shape.
    """
    right = torch.where(truth > 0, probabilities, 1 - probabilities).clamp(FOCAL_CLAMP, 1 - FOCAL_CLAMP)
    return -((1 - right) ** FOCAL_GAMMA) * right.log()


def one_hot(target: Tensor, num_outputs: int) -> Tensor:
    """Convert labels (B, D, H, W) to maps (B, K, D, H, W) float; ignored voxels are zero in all of them."""
    classes = torch.arange(num_outputs, device=target.device, dtype=target.dtype)
    return (target[:, None] == classes[:, None, None, None]).float()


def region_maps(target: Tensor, regions: Sequence[tuple[int, ...]]) -> Tensor:
    """Convert labels (B, D, H, W) to maps (B, K, D, H, W) float of the regions that they belong to."""
    maps = [torch.isin(target, torch.tensor(members, device=target.device, dtype=target.dtype)) for members in regions]
    return torch.stack(maps, 1).float()


def _nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    if target.shape[1:] == tuple(size):
        return target
    # uint8 has no nearest interpolation on every device; these are few voxels.
    return functional.interpolate(target[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        target.dtype
    )


def nearest_labelled(target: Tensor, size: Sequence[int]) -> Tensor:
    """Sample labels on a coarser grid, where they are ignored from the nearest voxel of the cell that is not.

    Of every fifth slice half would be lost with every halving. Axis by axis; without ignored voxels it is the label
    nearest to the middle of each cell.

    Args:
        target: Internal labels (B, D, H, W), uint8.
        size: The new (d, h, w), nowhere larger than (D, H, W).

    Returns:
        (B, d, h, w); ignored where all of a cell is.
    """
    for axis, new in enumerate(size, 1):
        if (old := target.shape[axis]) == new:
            continue
        index = torch.arange(new, device=target.device)
        first, middle, last = index * old // new, (2 * index + 1) * old // (2 * new), ((index + 1) * old - 1) // new
        chosen = target.index_select(axis, middle)
        for distance in range(1, -(-old // new)):
            for place in (middle - distance, middle + distance):
                other = target.index_select(axis, torch.where((first <= place) & (place <= last), place, middle))
                chosen = torch.where(chosen == IGNORE_INDEX, other, chosen)
        target = chosen
    return target


def sums_over_processes(*values: Tensor) -> list[Tensor]:
    """Sum several tensors over all processes at once; the shapes stay."""
    summed = sum_over_processes(torch.cat([value.flatten() for value in values]))
    parts = torch.split(summed, [value.numel() for value in values])
    return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]


LOSSES: dict[str, type[SegmentationLoss]] = {
    "dice_cross_entropy": DiceCrossEntropy,
    "dice": Dice,
    "dice_squared": DiceSquared,
    "dice_focal": DiceFocal,
}
"""Losses by name."""
