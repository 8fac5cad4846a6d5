"""Convolutions are right and go the ways that they should."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from seg25d.core.device import computes_on_x86
from seg25d.networks import convolutions
from seg25d.networks.blocks import InstanceNorm, PReLU
from seg25d.networks.convolutions import CONV, Conv3d
from seg25d.planning.memory import trace_training_step

ON_X86 = pytest.mark.skipif(not computes_on_x86(), reason="torch does not compute with AVX here")
CONVOLUTIONS = [
    ({"kernel_size": 3, "padding": 1}, True, True),
    ({"kernel_size": 3, "padding": 1, "stride": 2, "bias": False}, True, True),
    ({"kernel_size": (1, 3, 5), "padding": (0, 1, 2)}, False, True),
    ({"kernel_size": 2, "stride": 2}, True, False),
    ({"kernel_size": 1}, False, False),
    ({"kernel_size": 3, "padding": 1, "groups": 4}, False, False),
    ({"kernel_size": 3, "padding": 2, "dilation": 2}, False, False),
    ({"kernel_size": 3, "padding": "same"}, False, False),
]
"""Settings; whether they go to oneDNN for one small volume, and for several on AVX2."""


@ON_X86
@pytest.mark.parametrize("avx2", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("num_volumes", [1, 2])
@pytest.mark.parametrize(("settings", "if_alone", "on_avx2"), CONVOLUTIONS, ids=str)
def test_our_3d_convolution_and_its_gradients_are_torchs(
    settings: dict[str, Any],
    if_alone: bool,
    on_avx2: bool,
    num_volumes: int,
    layout: torch.memory_format,
    avx2: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: avx2)
    torch.manual_seed(0)
    ours, torchs = Conv3d(4, 8, **settings), nn.Conv3d(4, 8, **settings)
    torchs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.contiguous(memory_format=layout)
    volumes = torch.randn(num_volumes, 4, 5, 8, 9).contiguous(memory_format=layout)
    above = torch.randn_like(torchs(volumes))
    results = []
    for layer in (ours, torchs):
        seen = volumes.clone().requires_grad_()
        result = layer(seen)
        result.backward(above)
        results.append((result, seen.grad, *(weight.grad for weight in layer.parameters())))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    expected = (if_alone and num_volumes == 1) or (on_avx2 and avx2)
    assert (type(results[0][0].grad_fn).__name__ == "_OneDNNConv3dBackward") == expected


@ON_X86
@pytest.mark.parametrize("num_volumes", [1, 2])
def test_images_and_frozen_weights_need_no_gradient(num_volumes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: True)
    conv, volumes = Conv3d(2, 3, 3, padding=1), torch.randn(num_volumes, 2, 4, 4, 4)
    conv(volumes).sum().backward()
    assert conv.weight.grad is not None
    assert conv.bias.grad is not None
    conv.requires_grad_(False)
    seen = volumes.clone().requires_grad_()
    conv(seen).sum().backward()
    assert seen.grad is not None
    conv.bias.requires_grad_(True)
    conv.bias.grad = None
    conv(volumes).sum().backward()
    assert conv.bias.grad.tolist() == [64.0 * num_volumes] * 3


@pytest.mark.parametrize("num_volumes", [1, 2])
def test_without_onednn_and_in_the_compiler_convolutions_are_torchs(
    num_volumes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: True)
    conv, volumes = Conv3d(2, 3, 3, padding=1), torch.randn(num_volumes, 2, 4, 4, 4)
    with torch.backends.mkldnn.flags(enabled=False):
        assert type(conv(volumes).grad_fn).__name__ == "ConvolutionBackward0"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert type(conv(volumes).grad_fn).__name__ == "ConvolutionBackward0"


def test_memory_is_traced_alike_whatever_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data cannot go to oneDNN, and plans are not to depend on the machine that makes them."""

    def build() -> nn.Module:
        return nn.Sequential(Conv3d(1, 8, 3, padding=1), InstanceNorm(8), PReLU(8), Conv3d(8, 2, 3, padding=1))

    traced = []
    for avx2 in (True, False):
        monkeypatch.setattr(convolutions, "computes_with_avx2", lambda avx2=avx2: avx2)
        # Two slices are fewer than the kernel: there convolutions compute in float32, as oneDNN is called in.
        traced.append([trace_training_step(build, (number, 1, 2, 8, 8), 2) for number in (1, 2)])
    assert traced[0] == traced[1]


@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 8, 8)), (3, (2, 2, 2)), (5, (4, 4, 3)), (3, (4, 8, 8))])
def test_weight_gradients_of_small_volumes_in_bfloat16_are_right(kernel: int, size: tuple[int, int, int]) -> None:
    """Those of torch's own layer are not, on CPUs with AVX512-BF16: they depend on uninitialised memory."""
    torch.manual_seed(0)
    conv = Conv3d(16, 16, kernel, padding=kernel // 2)
    volumes, gradient = torch.randn(1, 16, *size), torch.randn(1, 16, *size)
    exact = copy.deepcopy(conv).double()
    exact(volumes.double()).backward(gradient.double())
    for _ in range(3):
        # What is freed here is what the next tensors find.
        rubbish = [torch.full((number,), torch.nan) for number in (1 << 12, 1 << 14, 1 << 16) for _ in range(20)]
        del rubbish
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = conv(volumes)
        scores.backward(gradient.to(scores))
        wanted = exact.weight.grad
        torch.testing.assert_close(conv.weight.grad.double(), wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_kernels_of_one_voxel_stride_by_taking_what_they_meet(dims: int, precision: torch.dtype) -> None:
    """oneDNN's own way writes outside of its memory with few channels side by side (its issue 6035)."""
    torch.manual_seed(0)
    stride = (2, 1, 3)[:dims]
    layer = CONV[dims](4, 8, 1, stride)
    torchs = (nn.Conv2d, nn.Conv3d)[dims - 2](4, 8, 1, stride)
    torchs.load_state_dict(layer.state_dict())
    images = torch.randn(2, 4, *(7, 6, 8)[:dims])
    results = []
    for each in (layer, torchs.double()):
        each.zero_grad()
        seen = images.to(each.weight.dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16 and each is layer):
            result = each(seen)
        result.float().square().sum().backward()
        results.append([part.float() for part in (result, seen.grad, *(weight.grad for weight in each.parameters()))])
    tolerance = 3e-2 if precision == torch.bfloat16 else 1e-4
    torch.testing.assert_close(*results, rtol=tolerance, atol=10 * tolerance)
    assert layer.stride == stride
    strides = []
    hook = layer.register_forward_hook(lambda each, *_: strides.append(each.stride))
    layer(images)
    hook.remove()
    assert strides == [(1,) * dims, stride]
