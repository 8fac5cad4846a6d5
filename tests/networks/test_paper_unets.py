"""The plain U-Nets of the papers have the published numbers of parameters."""

from collections.abc import Callable

import pytest
import torch

from seg25d.networks.paper_unets import half_unet, super_image_unet
from seg25d.networks.specs.unet import UNetSpec


@pytest.mark.parametrize(
    ("make", "dims", "in_channels", "expected"),
    [
        (super_image_unet, 2, 2, 1_205_425),
        (super_image_unet, 3, 2, 3_611_665),
        (half_unet, 2, 1, 8_629_921),
        (half_unet, 3, 1, 1_618_489),
    ],
)
def test_counts_of_the_papers(make: Callable[[int], UNetSpec], dims: int, in_channels: int, expected: int) -> None:
    with torch.device("meta"):
        network = make(dims).build(in_channels, 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_super_image_unet_has_norms_and_half_unet_has_none() -> None:
    assert (super_image_unet(2).norm, half_unet(2).norm) == ("instance", "none")
    assert super_image_unet(3).divisor == (8, 8, 8)
    assert half_unet(2).divisor == (16, 16)
