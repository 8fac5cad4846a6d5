"""Sums in parts against sums of the whole: values, gradients, memory."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from seg25d.core.parts import PART_BYTES, sums_in_parts
from seg25d.planning.memory import StorageTracker


def entropies(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of three shapes, one of which has no gradient."""
    logs = scores.float().log_softmax(1)
    return logs.gather(1, target.long()[:, None]).sum(), logs.exp().sum((0, 2, 3, 4)), (target > 0).sum()


@pytest.mark.parametrize("shape", [(2, 3, 10, 4, 5), (1, 4, 1, 7, 6), (2, 2, 3, 3, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", [48, 200, 4096])
def test_parts_add_up_to_the_whole(shape: tuple[int, ...], dtype: torch.dtype, part: int) -> None:
    torch.manual_seed(1)
    scores = torch.randn(shape).to(dtype).requires_grad_()
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), dtype=torch.uint8)
    results = []
    for part_bytes in (1 << 30, part):
        first, second, number = sums_in_parts(entropies, scores, target, part_bytes)
        (first.square() + second.square().sum() + number).backward()
        assert scores.grad is not None
        results.append((first.detach(), second.detach(), number, scores.grad))
        scores.grad = None
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5 if whole.dtype == torch.float32 else 1e-2, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_the_gradient_has_the_layout_of_the_scores(memory_format: torch.memory_format) -> None:
    scores = torch.randn(1, 3, 8, 4, 4).to(memory_format=memory_format).requires_grad_()
    first, *_ = sums_in_parts(entropies, scores, torch.ones(1, 8, 4, 4, dtype=torch.uint8), 200)
    (gradient,) = torch.autograd.grad(first, scores)
    assert gradient.stride() == scores.stride()


def test_memory_beside_the_scores_does_not_grow_with_them() -> None:
    extra = []
    for depth in (32, 128):
        with FakeTensorMode(), StorageTracker() as tracker:
            scores = torch.empty(1, 61, depth, 128, 128, dtype=torch.bfloat16, requires_grad=True)
            target = torch.empty(1, depth, 128, 128, dtype=torch.uint8)
            tracker.start()
            sums_in_parts(entropies, scores, target)[0].backward()
            extra.append(sum(tracker.peak().values()) - 2 * 2 * scores.numel() - target.numel())  # and its gradient
    assert max(extra) < 8 * PART_BYTES
