"""The counts of validation windows: the same numbers in parts as at once, in memory that many classes leave alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from seg25d.core.device import choose_execution
from seg25d.core.parts import PART_BYTES
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.validation import _counts, validate

NUM_CLASSES = 61
WINDOW = (24, 128, 128)
"""Scores of 61 classes take three parts."""
CLASSES = Labels(names={"background": 0, **{f"class {number}": number for number in range(1, NUM_CLASSES)}})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor in float32 has."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [each.numel() for each in tree_iter(result) if isinstance(each, Tensor) and each.dtype == torch.float32]
        self.numbers = max([self.numbers, *made])
        return result


class Known(nn.Module):
    """Says the same of every window."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images: Tensor) -> Tensor:
        return self.scores[: len(images)]


def test_no_map_of_all_classes_is_as_large_as_the_window() -> None:
    """A GPU whose memory training fills has no room for four of them in float32 after an epoch."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, NUM_CLASSES, (1, *WINDOW), dtype=torch.uint8, generator=generator)
    scores = torch.zeros(1, NUM_CLASSES, *WINDOW, dtype=torch.bfloat16)
    guessed = torch.where(torch.rand(target.shape, generator=generator) < 0.5, target, 1).long()
    scores.scatter_(1, guessed[:, None], 5)
    batches, execution = [(torch.zeros(1, 1, *WINDOW), target)], choose_execution("cpu", "float32")
    with Largest() as largest:
        _, dice = validate(Known(scores), batches, DiceCrossEntropy(CLASSES), CLASSES, execution)
    assert 0 < largest.numbers <= PART_BYTES // 4
    right, predicted, true = (
        each.flatten().bincount(minlength=NUM_CLASSES)[1:] for each in (target[guessed == target], guessed, target)
    )
    assert list(dice.values()) == (2 * right / (predicted + true).double()).tolist()


@pytest.mark.parametrize(
    ("labels", "threshold"),
    [(CLASSES, None), (Labels(names={"background": 0, "organ": 1}), 0.3), (REGIONS, None), (REGIONS, 0.3)],
)
def test_parts_count_what_the_whole_does(
    labels: Labels, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, labels.num_outputs, 5, 6, 7, generator=generator).bfloat16()
    target = torch.randint(0, min(3, labels.num_outputs), (2, 5, 6, 7), dtype=torch.uint8, generator=generator)
    target[:, 0] = IGNORE_INDEX
    whole = _counts(scores, target, labels, threshold)
    assert whole[1].sum() > 0
    parts: list[int] = []

    def one_by_one(sums: Any, scores: Tensor, target: Tensor) -> list[Tensor]:
        each = [sums(scores[:, :, [place]], target[:, [place]]) for place in range(scores.shape[2])]
        parts.append(len(each))
        return [torch.stack(values).sum(0) for values in zip(*each, strict=True)]

    monkeypatch.setattr("seg25d.training.validation.sums_in_parts", one_by_one)
    assert torch.equal(_counts(scores, target, labels, threshold), whole)
    assert parts == [5]
