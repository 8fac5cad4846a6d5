"""The layers that networks share."""

import pytest
import torch
from torch import nn

from seg25d.networks.blocks import ConvBlock, InstanceNorm, ResidualBlock, product


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


def test_product_of_strides() -> None:
    assert product(((1, 1, 1), (1, 2, 2), (2, 2, 2))) == (2, 4, 4)
