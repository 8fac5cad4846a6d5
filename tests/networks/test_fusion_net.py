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


def test_weights_of_1_give_every_view_the_same_say() -> None:
    """Votes count, not who casts them: the more views find an object at a place, the higher the scores there."""
    network = FusionNetSpec(width=4, norm="none", initial_weights="ones").build(3, 1).double().eval()
    assert {float(each) for weight in network.parameters() for each in weight.detach().flatten()} <= {0.0, 1.0}
    found = torch.zeros(1, 1, 16, 16, 16, dtype=torch.float64)
    found[..., 4:12, 4:12, 4:12] = 1

    def scores(*votes: int) -> torch.Tensor:
        return network(torch.cat([found * vote for vote in votes], 1))

    torch.testing.assert_close(scores(1, 0, 1), scores(0, 1, 1))
    one, two, three = (scores(*votes)[0, 0, 8, 8, 8] for votes in ((1, 0, 0), (1, 1, 0), (1, 1, 1)))
    assert one < two < three
