"""The layers that networks share."""

import pytest
import torch
from torch import nn

from seg25d.networks.blocks import ConvBlock, InstanceNorm, PReLU, ResidualBlock
from seg25d.networks.specs.topology import product


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_torchs(dims: int) -> None:
    images = torch.randn(2, 3, *(4, 5, 6)[:dims])
    ours, torchs = InstanceNorm(3), (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2](3, affine=True)
    for norm in (ours, torchs):
        nn.init.constant_(norm.weight, 2.0)
        nn.init.constant_(norm.bias, -0.5)
    torch.testing.assert_close(ours(images), torchs(images))


def test_instance_norm_stays_in_half_precision() -> None:
    images = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert InstanceNorm(2)(images).dtype == torch.bfloat16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_has_torchs_gradients_in_every_layout(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    volumes = (5 + torch.randn(2, 3, 4, 5, 6)).contiguous(memory_format=layout)
    above = torch.randn_like(volumes)
    results = []
    for norm in (InstanceNorm(3), nn.InstanceNorm3d(3, affine=True)):
        norm.weight.data, norm.bias.data = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.0, 1.0, -3.0])
        seen = volumes.clone().requires_grad_()
        normed = norm(seen)
        normed.backward(above)
        results.append((normed, seen.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert results[0][0].is_contiguous(memory_format=layout)
    ours = layout == torch.channels_last_3d
    assert (type(results[0][0].grad_fn).__name__ == "_ChannelsLastNormBackward") == ours


@pytest.mark.parametrize("block", [ConvBlock, ResidualBlock])
@pytest.mark.parametrize("stride", [None, (1, 2)])
def test_blocks_keep_or_divide_the_size(block: type[nn.Module], stride: tuple[int, int] | None) -> None:
    result = block(2, 5, (3, 3), stride)(torch.rand(1, 2, 4, 6))
    assert result.shape == (1, 5, 4, 3 if stride else 6)


def test_a_residual_block_with_zero_weights_is_its_shortcut() -> None:
    block = ResidualBlock(2, 2, (3, 3))
    nn.init.zeros_(block.second.norm.weight)
    images = torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(block(images), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_our_prelu_and_its_gradients_are_torchs(dims: int, channels_last: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, *(4, 5, 6)[:dims], dtype=dtype)
    images[0, 0].flatten()[:2] = torch.tensor([0.0, -0.0])
    layout = (torch.channels_last, torch.channels_last_3d)[dims - 2] if channels_last else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    above = torch.randn_like(images)
    results = []
    for layer in (PReLU(3), nn.PReLU(3)):
        layer.weight.data = torch.tensor([0.25, 0.0, -2.0])
        seen = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            activated = layer(seen)
        activated.backward(above)
        results.append((activated, seen.grad, layer.weight.grad))
    assert results[0][0].dtype == dtype
    assert results[0][0].stride() == images.stride()
    torch.testing.assert_close(*results, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2)


def test_prelu_needs_no_gradient_of_its_input() -> None:
    layer = PReLU(2)
    layer(-torch.ones(1, 2, 3, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [-9.0, -9.0]


def test_product_of_strides() -> None:
    assert product(((1, 1, 1), (1, 2, 2), (2, 2, 2))) == (2, 4, 4)
