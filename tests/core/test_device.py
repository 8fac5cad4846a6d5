"""Where models compute, and in which layout."""

import torch
from torch import nn

from seg25d.core.device import Execution


def test_layouts_are_chosen_layer_by_layer() -> None:
    """Views and fusion as one model have layers in 2D and in 3D."""
    model = nn.ModuleList([nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3)])
    before = [layer.weight.detach().clone() for layer in model]
    placed = Execution(torch.device("cpu"), torch.float32).place(model)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert placed[1].weight.is_contiguous()
    assert all(torch.equal(layer.weight, old) for layer, old in zip(placed, before, strict=True))


def test_bfloat16_on_a_cpu_keeps_the_layout() -> None:
    model = nn.Conv2d(4, 8, 3)
    assert Execution(torch.device("cpu"), torch.bfloat16).place(model).weight.is_contiguous()
