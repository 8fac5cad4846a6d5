"""Views fused without a network, as scores of the same kind as a network's.

Letters: V raters (views, of every fold), M maps per rater, K scores, d h w the part of a volume that is fused.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.types import IntArray
from seg25d.ensembling.fuse import majority_vote
from seg25d.ensembling.nonlocal_staple import nonlocal_staple
from seg25d.inference.predictor import FusionName
from seg25d.representations.fused_views import scores_of

DECIDED = 100.0
"""Score by which what a vote decided is ahead."""


def fuse_views(maps: Sequence[Tensor], image: Tensor, method: FusionName, *, regions: bool) -> Tensor:
    """Fuse what raters say.

    Args:
        maps: Per rater (M, d, h, w): probabilities of foreground classes, or of regions.
        image: (C, d, h, w); non-local STAPLE looks at its first channel.
        method: Any but `network`.
        regions: Whether the maps are regions, each of which is fused by itself.

    Returns:
        (K, d, h, w): of `mean` the logarithm of the mean probability, of the others what was decided.
    """
    if method == "mean":
        mean = torch.stack([each.float() for each in maps]).mean(0)
        return scores_of(mean[None], regions=regions)[0]
    vote = _vote(method, image[0].numpy())
    if regions:
        masks = [(each > 0.5).numpy().astype(np.uint8) for each in maps]
        decided = np.stack([vote(each) for each in zip(*masks, strict=True)])
        return DECIDED * (2.0 * torch.from_numpy(decided) - 1)
    fused = vote([_labels(each) for each in maps])
    classes = np.arange(len(maps[0]) + 1, dtype=fused.dtype)[:, None, None, None]
    return DECIDED * torch.from_numpy(fused[None] == classes).float()


def _vote(method: FusionName, image: NDArray[np.float32]) -> Callable[[Sequence[IntArray]], IntArray]:
    if method == "staple":
        from seg25d.ensembling.staple import staple  # noqa: PLC0415 - loads SimpleITK

        return staple
    return majority_vote if method == "majority" else lambda labels: nonlocal_staple(labels, image)


def _labels(maps: Tensor) -> IntArray:
    """The likeliest class (d, h, w), the background included."""
    probabilities = maps.float()
    every = torch.cat([1 - probabilities.sum(0, keepdim=True), probabilities])
    return every.argmax(0).to(torch.uint8).numpy()
