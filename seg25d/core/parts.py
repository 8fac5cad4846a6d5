"""Sums over the voxels of large maps, and their gradients, computed part by part in bounded memory.

A loss of scores (B, K, D, H, W) makes several tensors of that size: probabilities, truth, products, and what the
backward pass needs of each. Most losses are functions of a few sums over voxels, though. These are added up over parts
of the volume here, and the backward pass computes each part again, so that only one part of them exists at a time:
gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) without the whole gradients that slices would get.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

PART_BYTES = 32 << 20
"""Size of the scores of a part in float32."""

Sums: TypeAlias = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Function of scores (B, K, d, h, w) and labels (B, d, h, w) that returns sums over voxels, of any shapes."""


def sums_in_parts(
    sums: Sums, scores: Tensor, target: Tensor, part_bytes: int = PART_BYTES, *, most_parts: int | None = None
) -> list[Tensor]:
    """The sums of a function over all voxels, differentiable with respect to the scores.

    Args:
        sums: Sums over the voxels of a part; the shapes of the results do not depend on the part.
        scores: (B, K, D, H, W), any precision.
        target: (B, D, H, W).
        part_bytes: Size of the scores of a part in float32, about the most.
        most_parts: Parts that are computed, the first and largest ones, of tensors without data: of which the memory
            is that of all parts from the third one on, and nothing else is asked for; None: all.
    """
    num_parts = math.ceil(4 * scores.numel() / part_bytes)
    if num_parts <= 1:
        return list(sums(scores, target))
    axis = 2 if scores.shape[2] >= num_parts else 2 + max(range(3), key=lambda each: scores.shape[2 + each])
    return list(_SumsInParts.apply(sums, axis, num_parts, most_parts, target, scores))  # type: ignore[no-untyped-call]


class _SumsInParts(torch.autograd.Function):
    """Adds up the sums of parts; computes each part again to differentiate it."""

    @staticmethod
    def forward(
        ctx: Any, sums: Sums, axis: int, num_parts: int, most_parts: int | None, target: Tensor, scores: Tensor
    ) -> tuple[Tensor, ...]:
        """The sums over all parts, or the first ones."""
        ctx.sums, ctx.axis, ctx.num_parts, ctx.most_parts = sums, axis, num_parts, most_parts
        ctx.save_for_backward(target, scores)
        totals: tuple[Tensor, ...] = ()
        for part, labels in islice(_parts(scores, target, axis, num_parts), most_parts):
            each = sums(part, labels)
            totals = tuple(map(torch.add, totals, each)) if totals else tuple(each)
        return totals

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradient of the scores, in their precision."""
        target, scores = ctx.saved_tensors
        gradient = torch.empty_like(scores)
        parts = _parts(scores, target, ctx.axis, ctx.num_parts)
        places = _chunks(gradient, ctx.axis, ctx.num_parts)
        for (part, labels), place in islice(zip(parts, places, strict=True), ctx.most_parts):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                pairs = zip(ctx.sums(leaf, labels), gradients, strict=True)
                wanted = [(each, given) for each, given in pairs if each.requires_grad and given is not None]
                place.copy_(torch.autograd.grad([each for each, _ in wanted], leaf, [given for _, given in wanted])[0])
        return None, None, None, None, None, gradient


def _parts(scores: Tensor, target: Tensor, axis: int, num_parts: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(_chunks(scores, axis, num_parts), _chunks(target, axis - 1, num_parts), strict=True)


def _chunks(values: Tensor, axis: int, num_parts: int) -> Sequence[Tensor]:
    """Parts of about equal size along an axis, as views."""
    return values.tensor_split(min(num_parts, values.shape[axis]), axis)
