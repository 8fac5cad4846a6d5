"""The Volumetric Fusion Net."""

import pytest
import torch
from torch import nn

from seg25d.networks.fusion_net import FusionNet, FusionNetSpec


@pytest.mark.parametrize(("width", "millions"), [(8, 0.161), (16, 0.643), (24, 1.445), (64, 10.26)])
def test_numbers_of_parameters_follow_the_width(width: int, millions: float) -> None:
    network = FusionNetSpec(width=width).build(4, 1)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, rel=1e-2)


def test_number_of_parameters_of_one_class_and_one_image_channel() -> None:
    network = FusionNetSpec().build(4, 1)
    assert sum(weight.numel() for weight in network.parameters()) == 2_566_529


@pytest.mark.slow
def test_a_voxel_sees_44_or_52_voxels() -> None:
    """The usual formula gives 50, as the paper says; the true extent depends on the place modulo 8."""
    torch.manual_seed(0)
    network = FusionNet(FusionNetSpec(width=2, norm="none"), 1, 1).double().eval()
    for layer in network.modules():
        # All weights positive and pooling a mean: everything that can reach a voxel does.
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.uniform_(layer.weight, 0.1, 0.2)
    network.pool = nn.AvgPool3d(2)
    extents = []
    for place in range(32, 40):
        volume = torch.rand(1, 1, 72, 72, 72, dtype=torch.float64, requires_grad=True)
        network(volume)[0, 0, place, place, place].backward()
        seen = volume.grad[0, 0] != 0
        along = {int(seen.movedim(axis, 0).flatten(1).any(1).sum()) for axis in range(3)}
        assert len(along) == 1
        extents += along
    assert sorted(extents) == [44] * 2 + [52] * 6


def test_first_scores_can_be_zero() -> None:
    network = FusionNetSpec(width=4, zero_scores=True).build(3, 2).eval()
    assert not network(torch.rand(1, 3, 8, 8, 8)).any()
