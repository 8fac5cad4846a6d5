"""Internal indices from scores, on the device of the scores.

Letters: K scores.
"""

import torch
from torch import Tensor

from seg25d.data.labels import Labels, logit


def indices_from_scores(scores: Tensor, labels: Labels, threshold: float | None = None) -> Tensor:
    """Choose the internal index of every voxel, as `Labels.from_scores` does.

    Args:
        scores: Logits (K, ...) in float32.
        labels: Meaning of the scores.
        threshold: See `Labels.from_scores`.

    Returns:
        uint8 (...).
    """
    if scores.device.type == "cpu":
        # In one thread three times as fast as torch's maximum class by class, and many times as fast as its argmax.
        return torch.from_numpy(labels.from_scores(scores.numpy(), threshold))
    return _on_device(scores, labels, threshold)


def _on_device(scores: Tensor, labels: Labels, threshold: float | None) -> Tensor:
    if not labels.has_regions:
        if threshold is not None:
            return (scores[1] - scores[0] >= logit(threshold)).to(torch.uint8)
        # The first one of equal scores (docs.pytorch.org, torch.max).
        return scores.argmax(0).to(torch.uint8)
    assert labels.regions_class_order is not None, "regions have an order"
    indices = torch.zeros(scores.shape[1:], dtype=torch.uint8, device=scores.device)
    for score, value in zip(scores, labels.regions_class_order, strict=True):
        inside = score > 0 if threshold is None else score >= logit(threshold)
        indices.masked_fill_(inside, labels.values.index(value))
    return indices
