"""Views fused without a network, as scores of the same kind as a network's.

Letters: V raters (views, of every fold), M maps per rater, K scores, d h w the part of a volume that is fused.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.types import IntArray
from seg25d.data.labels import Labels
from seg25d.ensembling.fuse import majority_vote
from seg25d.ensembling.nonlocal_staple import nonlocal_staple
from seg25d.inference.predictor import FusionName
from seg25d.representations.fused_views import scores_of

DECIDED = 100.0
"""Score by which what a vote decided is ahead."""


def fuse_views(
    maps: Sequence[Tensor], image: Tensor, method: FusionName, labels: Labels, threshold: float | None = None
) -> Tensor:
    """Fuse what raters say.

    Args:
        maps: Per rater (M, d, h, w): probabilities of foreground classes, or of regions.
        image: (C, d, h, w); non-local STAPLE looks at its first channel.
        method: Any but `network`.
        labels: Say what the maps are; every region is fused by itself.
        threshold: Probability from which on a rater says that there is something, see `Labels.from_scores`.

    Returns:
        (K, d, h, w): of `mean` the logarithm of the mean probability, of the others what was decided.
    """
    if method == "mean":
        mean = torch.stack([each.float() for each in maps]).mean(0)
        return scores_of(mean[None], regions=labels.has_regions)[0]
    vote = _vote(method, image[0].numpy())
    if labels.has_regions:
        masks = [_over(each, threshold).numpy() for each in maps]
        decided = np.stack([vote(each) for each in zip(*masks, strict=True)])
        return DECIDED * (2.0 * torch.from_numpy(decided) - 1)
    fused = vote([_classes(each, threshold) for each in maps])
    classes = np.arange(len(maps[0]) + 1, dtype=fused.dtype)[:, None, None, None]
    return DECIDED * torch.from_numpy(fused[None] == classes).float()


def _vote(method: FusionName, image: NDArray[np.float32]) -> Callable[[Sequence[IntArray]], IntArray]:
    if method == "staple":
        from seg25d.ensembling.staple import staple  # noqa: PLC0415 - loads SimpleITK

        return staple
    return majority_vote if method == "majority" else lambda labels: nonlocal_staple(labels, image)


def _over(maps: Tensor, threshold: float | None) -> Tensor:
    return (maps > 0.5 if threshold is None else maps >= threshold).to(torch.uint8)


def _classes(maps: Tensor, threshold: float | None) -> IntArray:
    """What a rater says (d, h, w): the likeliest class, the background included; with a threshold the one class."""
    if threshold is not None:
        return _over(maps[0], threshold).numpy()
    probabilities = maps.float()
    every = torch.cat([1 - probabilities.sum(0, keepdim=True), probabilities])
    return every.argmax(0).to(torch.uint8).numpy()
