"""Fused views: their channels, their first guess, and which axes are alike."""

import pytest
import torch
from torch import Tensor, nn

from seg25d.representations.base import VolumeGeometry
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.lifted.fused_views import scores_of


class Zero(nn.Module):
    """Adds nothing."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, volume: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        scores = volume.new_zeros(len(volume), self.num_outputs, *volume.shape[2:])
        return [(scores, 0.75), (scores[..., ::2, ::2, ::2], 0.25)] if self.training else scores


def test_channels_are_those_of_the_image_and_of_the_views() -> None:
    fused = FusedViews(maps_per_view=2)
    assert (fused.input_channels(3), fused.network_channels(3)) == (9, 9)
    without = FusedViews(maps_per_view=2, image=False)
    assert (without.input_channels(3), without.network_channels(3)) == (9, 6)


@pytest.mark.parametrize(("image", "first"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("from_mean", [False, True])
def test_the_network_sees_the_image_only_where_it_should(image: bool, first: int, from_mean: bool) -> None:
    seen = []

    class Network(Zero):
        def forward(self, volume: Tensor) -> Tensor | list[tuple[Tensor, float]]:
            seen.append(volume)
            return super().forward(volume)

    volume = torch.rand(1, 4, 4, 4, 4)
    FusedViews(maps_per_view=1, image=image, from_mean=from_mean).lift(Network(2)).eval()(volume)
    assert torch.equal(seen[0], volume[:, first:])


@pytest.mark.parametrize("regions", [False, True])
def test_the_first_guess_is_the_mean_of_the_views(regions: bool) -> None:
    maps = torch.tensor([[0.5, 0.25], [0.7, 0.2], [0.6, 0.3]]).reshape(1, 6, 1, 1, 1).expand(1, 6, 2, 2, 2)
    model = FusedViews(maps_per_view=2, regions=regions).lift(Zero(2 if regions else 3))
    volume = torch.cat([torch.randn(1, 1, 2, 2, 2), maps], 1)
    scores = model.eval()(volume)[0, :, 0, 0, 0]
    if regions:
        torch.testing.assert_close(scores.sigmoid(), torch.tensor([0.6, 0.25]))
    else:
        torch.testing.assert_close(scores.softmax(0), torch.tensor([0.15, 0.6, 0.25]))
    # Coarser scores, of networks with deep supervision, get a coarser guess.
    (full, _), (half, _) = model.train()(volume)
    torch.testing.assert_close(half[0, :, 0, 0, 0], full[0].mean((1, 2, 3)))


def test_scores_of_probabilities_stay_finite() -> None:
    extremes = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1)
    assert scores_of(extremes, regions=False).isfinite().all()
    assert scores_of(extremes, regions=True).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "window"),
    [
        ((100, 200, 200), (1, 1, 1), (64, 64, 64)),
        ((36, 50, 35), (1, 1, 1), (56, 56, 56)),
        ((30, 400, 400), (5, 0.8, 0.8), (32, 64, 64)),
    ],
)
def test_windows_are_cubes_of_64_or_as_large_as_the_volume(shape, spacing_mm, window) -> None:
    geometry = VolumeGeometry(shape=shape, spacing_mm=spacing_mm, num_outputs=3)
    candidates = list(FusedViews.candidates(geometry))
    assert candidates[0] == (FusedViews(maps_per_view=2), window)
    assert candidates[-1][1] == (16, 16, 16)
