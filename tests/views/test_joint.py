"""Views and fusion as one model."""

import pytest
import torch
from torch import Tensor, nn

from seg25d.data.labels import Labels
from seg25d.networks.fusion_net import FusionNetSpec
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.slices import Slices
from seg25d.views.joint import JointFusion, PaddedView

CLASSES = Labels(names={"background": 0, "a": 1, "b": 2})


class View(nn.Module):
    """One convolution of slices; in training mode two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        scores = self.conv(images)
        return [(scores, 0.6), (scores[..., ::2, ::2], 0.4)] if self.training else scores


def make_joint() -> JointFusion:
    torch.manual_seed(0)
    views = [Slices(axis=axis, context=0).lift(View()) for axis in range(3)]
    fused = FusedViews(maps_per_view=2)
    network = FusionNetSpec(width=4, norm="instance", zero_scores=True).build(fused.network_channels(1), 3)
    return JointFusion(views, fused.lift(network), CLASSES)


def test_it_begins_as_the_mean_of_its_views() -> None:
    model = make_joint().eval()
    volume = torch.randn(2, 1, 8, 8, 16)
    mean = torch.stack([view(volume).softmax(1) for view in model.views]).mean(0)
    torch.testing.assert_close(model(volume).softmax(1), mean, rtol=1e-3, atol=1e-3)


def test_views_take_windows_that_their_network_cannot_divide() -> None:
    class Picky(View):
        def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
            assert images.shape[2] % 16 == 0
            assert images.shape[3] % 32 == 0
            return super().forward(images)

    view = Slices(axis=1, context=0).lift(Picky())
    volume = torch.randn(1, 1, 8, 8, 24)
    for training in (False, True):
        assert PaddedView(view, (16, 1, 32)).train(training)(volume).shape == (1, 3, 8, 8, 24)
    whole = torch.randn(1, 1, 16, 8, 32)
    assert torch.equal(PaddedView(view, (16, 1, 32)).eval()(whole), view(whole))


def test_gradients_reach_the_networks_of_the_views() -> None:
    model = make_joint().train()
    ((scores, weight),) = model(torch.randn(1, 1, 8, 8, 8))
    assert weight == pytest.approx(1)
    scores.square().mean().backward()
    for view in model.views:
        assert all(parameter.grad.abs().sum() > 0 for parameter in view.parameters())
