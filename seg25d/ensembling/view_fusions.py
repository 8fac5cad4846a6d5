"""Fusion of views without a network, to scores of the same kind as a network's.

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
from seg25d.representations.lifted.fused_views import scores_of

DECIDED = 100.0
"""Score difference between the winner of a vote and the other classes."""


def fuse_views(
    maps: Sequence[Tensor], image: Tensor, method: FusionName, labels: Labels, threshold: float | None = None
) -> Tensor:
    """Fuse the maps of raters.

    Args:
        maps: One map (M, d, h, w) per rater: probabilities of foreground classes, or of regions.
        image: Image (C, d, h, w); non-local STAPLE uses its first channel.
        method: Any method but `network`.
        labels: Meaning of the maps; every region is fused separately.
        threshold: Lowest probability that counts as a vote for foreground, see `Labels.from_scores`.

    Returns:
        Scores (K, d, h, w): for `mean` the logarithm of the mean probability, otherwise `DECIDED` for the winner.
    """
    if method == "mean":
        mean = torch.stack([each.float() for each in maps]).mean(0)
        return scores_of(mean[None], regions=labels.has_regions)[0]
    vote = _choose_vote(method, image[0].numpy())
    if labels.has_regions:
        masks = [_apply_threshold(each, threshold).numpy() for each in maps]
        decided = np.stack([vote(each) for each in zip(*masks, strict=True)])
        return DECIDED * (2.0 * torch.from_numpy(decided) - 1)
    fused = vote([_choose_classes(each, threshold) for each in maps])
    classes = np.arange(len(maps[0]) + 1, dtype=fused.dtype)[:, None, None, None]
    return DECIDED * torch.from_numpy(fused[None] == classes).float()


def _choose_vote(method: FusionName, image: NDArray[np.float32]) -> Callable[[Sequence[IntArray]], IntArray]:
    if method == "staple":
        from seg25d.ensembling.staple import staple  # noqa: PLC0415 - loads SimpleITK

        return staple
    return majority_vote if method == "majority" else lambda labels: nonlocal_staple(labels, image)


def _apply_threshold(maps: Tensor, threshold: float | None) -> Tensor:
    return (maps > 0.5 if threshold is None else maps >= threshold).to(torch.uint8)


def _choose_classes(maps: Tensor, threshold: float | None) -> IntArray:
    """The votes of a rater (d, h, w): the most probable class or background; with a threshold, the single class."""
    if threshold is not None:
        return _apply_threshold(maps[0], threshold).numpy()
    probabilities = maps.float()
    every = torch.cat([1 - probabilities.sum(0, keepdim=True), probabilities])
    return every.argmax(0).to(torch.uint8).numpy()
