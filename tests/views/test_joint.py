"""Views and fusion as one model."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from seg25d.core.device import choose_execution
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.slices import Slices
from seg25d.training import timing
from seg25d.training.recipes import find_recipe
from seg25d.training.timing import Training, measure
from seg25d.views.joint import JointFusion, PaddedView, build_joint

CLASSES = Labels(names={"background": 0, "a": 1, "b": 2})
RSTN_SPEC = RSTNSpec(network=UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2))


class View(nn.Module):
    """One convolution of slices; in training mode two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        scores = self.conv(images)
        return [(scores, 0.6), (scores[..., ::2, ::2], 0.4)] if self.training else scores


def make_joint(make_view: Callable[[], nn.Module] = View) -> JointFusion:
    torch.manual_seed(0)
    views = [Slices(axis=axis, context=0).lift(make_view()) for axis in range(3)]
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


@pytest.mark.parametrize("make_view", [View, lambda: RSTN_SPEC.build(1, 3)], ids=["a layer", "rstn"])
def test_gradients_reach_the_networks_of_the_views(make_view: Callable[[], nn.Module]) -> None:
    model = make_joint(make_view).train()
    ((scores, weight),) = model(torch.randn(1, 1, 8, 8, 8))
    assert weight == pytest.approx(1)
    scores.square().mean().backward()
    for view in model.views:
        assert all(parameter.grad.abs().sum() > 0 for parameter in view.parameters())


def test_an_update_of_all_of_it_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SECONDS", 0)
    sides = ((1, 1), (2, 2))
    unet = UNetSpec(widths=(2, 2), strides=sides, kernels=((3, 3),) * 2, encoder_blocks=1, decoder_blocks=1)
    description = DatasetDescription(channel_names=("CT",), labels=CLASSES, file_ending=".nii.gz", num_training=1)
    common = {
        "spacing_mm": (1.0, 1.0, 1.0),
        "normalization": (),
        "store": "store",
        "window": (8, 8, 8),
        "batch_size": 1,
        "mirror_axes": (),
        "estimated_memory_gb": 0.1,
        "num_parameters": 1,
        "reasons": {},
    }
    views = [
        ConfigurationPlan(representation=Slices(axis=axis, context=0), network=unet, **common) for axis in range(3)
    ]
    network = FusionNetSpec(width=4, norm="instance", zero_scores=True)
    fusion = ConfigurationPlan(representation=FusedViews(maps_per_view=2), network=network, **common)
    config, execution = find_recipe("default", fuses_views=True, joint=True), choose_execution("cpu", "float32")
    training = Training("mv__joint", fusion, config, description, execution)
    assert measure(training._replace(build=partial(build_joint, fusion, views, description))) > 0
    assert measure(training) > 0, "the fusion network alone, which sees the maps as well"
