"""Internal indices from scores, on the device of the scores and with all cores.

Letters: K scores.
"""

import torch
from torch import Tensor

from seg25d.data.labels import Labels, logit


def indices_from_scores(scores: Tensor, labels: Labels, threshold: float | None = None) -> Tensor:
    """Choose the internal index of every voxel, the same as `Labels.from_scores` does with numpy in one thread.

    Args:
        scores: Logits (K, ...) in float32.
        labels: Meaning of the scores.
        threshold: See `Labels.from_scores`.

    Returns:
        uint8 (...).
    """
    indices = torch.zeros(scores.shape[1:], dtype=torch.uint8, device=scores.device)
    if labels.has_regions:
        assert labels.regions_class_order is not None, "regions have an order"
        for score, value in zip(scores, labels.regions_class_order, strict=True):
            inside = score > 0 if threshold is None else score >= logit(threshold)
            indices.masked_fill_(inside, labels.values.index(value))
        return indices
    if threshold is not None:
        return indices.copy_(scores[1] - scores[0] >= logit(threshold))
    # Class by class: torch's argmax over the first axis takes many times as long on CPUs.
    best = scores[0].clone()
    better = torch.empty_like(best, dtype=torch.bool)
    for number, score in enumerate(scores[1:], 1):
        torch.gt(score, best, out=better)
        indices.masked_fill_(better, number)
        torch.maximum(best, score, out=best)
    return indices
