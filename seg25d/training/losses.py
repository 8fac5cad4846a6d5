"""Dice plus cross-entropy over a batch, exact on any number of processes.

Letters: B batch, K scores, D H W volume. Label 255 is ignored everywhere.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from seg25d.data.labels import IGNORE_INDEX, Labels

SMOOTH = 1.0
"""Added to numerator and denominator of the soft Dice; with sums over a batch its size hardly matters."""


class DiceCrossEntropy(nn.Module):
    """Soft Dice loss plus cross-entropy (sigmoid and binary cross-entropy for regions), equal weights as in nnU-Net.

    Dice sums run over the whole batch ("batch Dice" in nnU-Net) and over all processes, so that a batch spread over
    processes has the same loss and gradient as on one.

    Args:
        labels: Says how many scores there are and whether they are regions.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.num_outputs = labels.num_outputs
        self.regions = labels.output_members if labels.has_regions else None

    def forward(self, outputs: Sequence[tuple[Tensor, float]], target: Tensor) -> Tensor:
        """The weighted loss of all outputs.

        Args:
            outputs: (scores, weight) per scale; scores (B, K, d, h, w), the same size as the target or coarser.
            target: Internal labels (B, D, H, W), uint8.
        """
        total = torch.zeros((), device=target.device)
        for scores, weight in outputs:
            total = total + weight * self._one_scale(scores.float(), _nearest(target, scores.shape[2:]))
        return total

    def _one_scale(self, scores: Tensor, target: Tensor) -> Tensor:
        valid = target != IGNORE_INDEX
        if self.regions is None:
            probabilities = scores.softmax(1)
            truth = one_hot(target, self.num_outputs)
            entropy = functional.cross_entropy(scores, target.long(), ignore_index=IGNORE_INDEX, reduction="sum")
            per_voxel, first = 1, 1
        else:
            probabilities = scores.sigmoid()
            truth = region_maps(target, self.regions)
            entropy = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
            entropy = (entropy * valid[:, None]).sum()
            per_voxel, first = self.num_outputs, 0
        axes = (0, 2, 3, 4)
        probabilities = (probabilities * valid[:, None])[:, first:]
        truth = truth[:, first:]
        sums = torch.cat(
            (
                (probabilities * truth).sum(axes),
                probabilities.sum(axes) + truth.sum(axes),
                entropy[None],
                valid.sum()[None] * float(per_voxel),
            )
        )
        sums = sum_over_processes(sums)
        classes = self.num_outputs - first
        overlap, size, entropy, voxels = sums[:classes], sums[classes : 2 * classes], sums[-2], sums[-1]
        dice = (2 * overlap + SMOOTH) / (size + SMOOTH)
        return 1 - dice.mean() + entropy / voxels.clamp(min=1)


def one_hot(target: Tensor, num_outputs: int) -> Tensor:
    """Maps (B, K, D, H, W) float of labels (B, D, H, W); ignored voxels are zero in all of them."""
    classes = torch.arange(num_outputs, device=target.device, dtype=target.dtype)
    return (target[:, None] == classes[:, None, None, None]).float()


def region_maps(target: Tensor, regions: Sequence[tuple[int, ...]]) -> Tensor:
    """Maps (B, K, D, H, W) float of the regions that labels (B, D, H, W) belong to."""
    maps = [torch.isin(target, torch.tensor(members, device=target.device, dtype=target.dtype)) for members in regions]
    return torch.stack(maps, 1).float()


def _nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    if target.shape[1:] == tuple(size):
        return target
    # uint8 has no nearest interpolation on every device; these are few voxels.
    return functional.interpolate(target[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].to(
        target.dtype
    )


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum over all processes, with the gradient of the global sum; the same tensor where there is only one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    from torch.distributed.nn.functional import all_reduce  # noqa: PLC0415 - only where there are processes

    summed: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return summed


LOSSES: dict[str, Callable[[Labels], nn.Module]] = {"dice_cross_entropy": DiceCrossEntropy}
"""Losses by name."""
