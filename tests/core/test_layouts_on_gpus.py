"""Layouts on GPUs, followed on tensors without data of a GPU that is not there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from seg25d.core.device import Execution
from seg25d.networks.blocks import InstanceNorm
from seg25d.networks.se_unet import SENorm

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
SHAPES = [(2, 16, 6, 8), (2, 16, 4, 6, 8)]


class Copies(TorchDispatchMode):
    """Counts what is copied into another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.clone.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_gpu() -> Iterator[Callable[..., torch.Tensor]]:
    """Makes tensors in a channels-last layout on a GPU; no gradients, for which torch wants a real one."""

    def make(shape: tuple[int, ...]) -> torch.Tensor:
        strides = torch.empty(shape, device="meta").contiguous(memory_format=CHANNELS_LAST[len(shape)]).stride()
        return torch.empty_strided(shape, strides, device="cuda", dtype=torch.bfloat16)

    with FakeTensorMode(), torch.no_grad():
        yield make


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_of_images_copy_and_forget_channels_last(
    shape: tuple[int, ...], on_gpu: Callable[..., torch.Tensor]
) -> None:
    """What the choice of layouts rests on; when this fails with a newer torch, choose again with gpu_check.py."""
    images, scale = on_gpu(shape), torch.ones(16, device="cuda", dtype=torch.bfloat16)
    for norm in (
        lambda: functional.group_norm(images, 16, scale, scale),
        lambda: functional.instance_norm(images, None, None, scale, scale),
    ):
        with Copies() as copies:
            assert norm().is_contiguous()
        assert copies.count == 1
    with Copies() as copies:
        normed = functional.batch_norm(images, None, None, scale, scale, training=True)
        assert functional.leaky_relu(normed).is_contiguous(memory_format=CHANNELS_LAST[len(shape)])
    assert copies.count == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_instance_norm_asks_for_the_layout_that_the_kernel_is_fast_in(
    shape: tuple[int, ...], on_gpu: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, seen = on_gpu(shape), list[bool]()
    group_norm = functional.group_norm

    def noted(images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(images.is_contiguous())
        return group_norm(images, *arguments)

    monkeypatch.setattr(functional, "group_norm", noted)
    # The method itself asks for a real GPU.
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda tensor: tensor.clone(memory_format=torch.contiguous_format))
    norm = InstanceNorm(16)
    norm._parameters = {name: torch.ones(16, device="cuda") for name in ("weight", "bias")}
    result = norm(images)
    assert (result.dtype, seen) == (torch.bfloat16, [True])


@pytest.mark.parametrize(
    ("norm", "in_3d"),
    [
        (nn.Identity(), True),
        (nn.BatchNorm3d(8), True),
        (InstanceNorm(8), False),
        (nn.InstanceNorm3d(8), False),
        (SENorm(8, 2, 3), False),
    ],
)
def test_gpus_get_channels_last_where_norms_keep_it(
    norm: nn.Module, in_3d: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.ModuleList([nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3), norm])
    monkeypatch.setattr(model, "to", lambda _device: model)
    placed = Execution(torch.device("cuda:0"), torch.bfloat16).place(model)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert placed[1].weight.is_contiguous(memory_format=torch.channels_last_3d) == in_3d
    assert placed[1].weight.is_contiguous() != in_3d
