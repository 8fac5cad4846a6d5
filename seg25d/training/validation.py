"""Loss and Dice on windows of the validation cases, after each epoch.

This is a quick estimate for monitoring; the fold's real score is computed on whole cases after training.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.core.parts import sums_in_parts
from seg25d.data.labels import IGNORE_INDEX, Labels, logit
from seg25d.training.losses import one_hot, region_maps
from seg25d.training.processes import share
from seg25d.training.sampling import Batch


def validate(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_function: nn.Module,
    labels: Labels,
    execution: Execution,
    threshold: float | None = None,
) -> tuple[float, dict[str, float | None]]:
    """Score the model on validation windows.

    Args:
        model: Lifted, in eval mode on return.
        batches: Of this process; all processes have the same number.
        loss_function: From outputs and target to a loss.
        labels: Meaning of the scores.
        execution: Device and precision.
        threshold: See `Labels.from_scores`.

    Returns:
        Mean loss over batches, and Dice per foreground label over all windows together (null where a label is in
        neither truth nor prediction); the same on every process.
    """
    model.eval()
    first = 0 if labels.has_regions else 1
    counts = torch.zeros(3, labels.num_outputs - first, dtype=torch.float64)
    loss_sum, num_batches = 0.0, 0
    with torch.inference_mode():
        for images, labels_here in batches:
            target = labels_here.to(execution.device)
            if len(images):
                with execution.autocast():
                    scores = model(images.to(execution.device))
                counts += _counts(scores, target, labels, threshold)[:, first:]
            else:
                scores = torch.zeros(0, labels.num_outputs, *target.shape[1:], device=execution.device)
            loss_sum += float(loss_function([(scores, 1.0)], target))
            num_batches += 1
    total = torch.tensor(share(counts.flatten().tolist(), execution.device, combine="sum")).reshape(counts.shape)
    dice = [
        None if predicted + true == 0 else float(2 * overlap / (predicted + true))
        for overlap, predicted, true in total.T.tolist()
    ]
    # Learning rate and end of a run may depend on the loss, so it must be exactly equal in all processes.
    loss = share([loss_sum / max(1, num_batches)], execution.device, combine="first")[0]
    return loss, dict(zip(labels.foreground, dice, strict=True))


def _counts(scores: Tensor, target: Tensor, labels: Labels, threshold: float | None) -> Tensor:
    """Count the voxels that are right, predicted, true: (3, K); in parts, as many classes make large maps."""
    counts = sums_in_parts(partial(_sums, labels=labels, threshold=threshold), scores, target)
    return torch.stack(counts).cpu().double()


def _sums(scores: Tensor, target: Tensor, labels: Labels, threshold: float | None) -> Sequence[Tensor]:
    """The counts of some of the voxels, each (K,)."""
    scores, valid = scores.float(), (target != IGNORE_INDEX)[:, None]
    if labels.has_regions:
        truth = region_maps(target, labels.output_members)
        predicted = (scores > 0 if threshold is None else scores >= logit(threshold)).float()
    else:
        truth = one_hot(target, labels.num_outputs)
        chosen = scores.argmax(1) if threshold is None else scores[:, 1] - scores[:, 0] >= logit(threshold)
        predicted = one_hot(chosen.to(target.dtype), labels.num_outputs)
    predicted = predicted * valid
    axes = (0, 2, 3, 4)
    # Not every device supports numbers of 64 bits.
    return (predicted * truth).sum(axes), predicted.sum(axes), truth.sum(axes)
