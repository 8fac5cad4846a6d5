"""What holds for every network, whatever its name."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from seg25d.inference.scoring import left_out
from seg25d.networks.base import NETWORKS, Network, NetworkSpec
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.representations.base import Representation, representations

ANISOTROPIC = {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 1)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
SQUARE = {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3}
RSTN_UNET = {"widths": (4, 4, 4), **SQUARE}

# A small instance of every network, and a size that it takes. Not too narrow: all ReLUs of a layer could be silent.
EXAMPLES: dict[str, tuple[Network, tuple[int, ...]]] = {
    "unet": (UNetSpec(widths=(4, 8, 8), num_supervised=2, **ANISOTROPIC), (6, 8, 10)),
    "se_unet 2D": (SEUNetSpec(width=16, **SQUARE), (8, 12)),
    "se_unet 3D": (SEUNetSpec(width=16, **ANISOTROPIC), (6, 8, 10)),
    "se_unet of one stage": (SEUNetSpec(width=8, strides=((1, 1),), kernels=((3, 3),)), (5, 7)),
    "vnet 2D": (VNetSpec(widths=(4, 6, 8), encoder_blocks=(1, 2, 1), decoder_blocks=(2, 1), **SQUARE), (8, 12)),
    "vnet 3D": (
        VNetSpec(widths=(4, 6, 8), encoder_blocks=(1, 2, 1), decoder_blocks=(2, 1), norm="instance", **ANISOTROPIC),
        (6, 8, 10),
    ),
    "vnet of one stage": (
        VNetSpec(widths=(4,), encoder_blocks=(1,), decoder_blocks=(), strides=((1, 1),), kernels=((5, 5),)),
        (5, 7),
    ),
    "swin_unetr 3D": (SwinUNETRSpec(dims=3, feature_size=12), (32, 32, 32)),
    "swin_unetr": (SwinUNETRSpec(dims=2, feature_size=12), (40, 30)),
    "fusion_net": (FusionNetSpec(width=8), (16, 8, 16)),
    "xception_cbam_unet": (XceptionCBAMUNetSpec(dropout=0), (32, 64)),
    "resnet_unet": (ResNetUNetSpec(depth=18), (64, 96)),
    "resnet_unet of bottlenecks": (ResNetUNetSpec(depth=50), (96, 96)),
    "resnet_unet with instance norm": (ResNetUNetSpec(depth=18, norm="instance"), (64, 64)),
    "rstn": (RSTNSpec(network=UNetSpec(widths=(4, 8, 8), **SQUARE)), (8, 12)),
    "rstn of regions": (RSTNSpec(network=UNetSpec(widths=(4, 8, 8), **SQUARE), regions=True), (16, 12)),
}
IN_CHANNELS, NUM_OUTPUTS = 2, 3


@pytest.fixture(scope="module", params=EXAMPLES.values(), ids=EXAMPLES)
def built(request: pytest.FixtureRequest) -> tuple[Network, nn.Module, Tensor]:
    spec, sizes = request.param
    torch.manual_seed(0)
    network, images = spec.build(IN_CHANNELS, NUM_OUTPUTS), torch.randn(2, IN_CHANNELS, *sizes)
    settle_batch_norms(network, images)
    return spec, network, images


def settle_batch_norms(network: nn.Module, images: Tensor) -> None:
    """Take over the statistics of a batch: with those of a fresh network all scores would be about the same."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1
    if norms:
        with torch.no_grad():
            network.train()(images)


def test_every_network_has_an_example() -> None:
    assert {spec.name for spec, _ in EXAMPLES.values()} == set(NETWORKS)


TORCHS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Convolutions that are wrong or slow on some processors; none of the package has one axis."""


def test_no_convolution_is_torchs(built: tuple[Any, nn.Module, Tensor]) -> None:
    _, network, _ = built
    assert [layer for layer in network.modules() if type(layer) in TORCHS] == []


@pytest.mark.parametrize(
    "representation", [each for kind in representations().values() for each in kind.examples()], ids=str
)
def test_no_convolution_of_a_representation_is_torchs(representation: Representation) -> None:
    model = representation.lift(nn.Identity())
    assert [layer for layer in model.modules() if type(layer) in TORCHS] == []


def test_eval_gives_scores_and_a_batch_is_its_images_one_by_one(built: tuple[Any, nn.Module, Tensor]) -> None:
    _, network, images = built
    with torch.no_grad():
        scores = network.eval()(images)
        single = network(images[1:])
    assert scores.shape == (2, NUM_OUTPUTS, *images.shape[2:])
    torch.testing.assert_close(scores[1:], single, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[0], scores[1], atol=1e-2)


def test_a_score_layer_makes_the_scores_of_each_pixel_alone(built: tuple[Any, nn.Module, Tensor]) -> None:
    """Where a network names one, prediction leaves it out and applies it to a few planes at a time."""
    _, network, images = built
    name = getattr(network.eval(), "score_layer", None)
    if name is None:
        pytest.skip("its scores come about otherwise")
    with torch.no_grad():
        scores = network(images)
        with left_out(network, name) as layer:
            features = network(images)
        torch.testing.assert_close(layer(features), scores)
        torch.testing.assert_close(layer(features[:, :, 1:3]), scores[:, :, 1:3])


def test_training_gives_a_list_and_gradients_reach_every_parameter(built: tuple[Any, nn.Module, Tensor]) -> None:
    _, network, images = built
    outputs = network.train()(images)
    assert sum(weight for _, weight in outputs) == pytest.approx(1)
    assert outputs[0][0].shape == (2, NUM_OUTPUTS, *images.shape[2:])
    sum((weight * scores.square().mean() for scores, weight in outputs), torch.zeros(())).backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_specs_say_what_sizes_they_take(built: tuple[Any, nn.Module, Tensor]) -> None:
    spec, _, images = built
    assert len(spec.divisor) == spec.dims == images.ndim - 2
    assert all(size % step == 0 for size, step in zip(images.shape[2:], spec.divisor, strict=True))
    assert spec.summary


@pytest.mark.parametrize("spec", [spec for spec, _ in EXAMPLES.values()], ids=EXAMPLES)
def test_specs_survive_json(spec: Network) -> None:
    adapter: TypeAdapter[Network] = TypeAdapter(NetworkSpec)
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    assert hash(adapter.validate_json(spec.model_dump_json())) == hash(spec)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "resnet"}, "there is no network with the name 'resnet'; known: unet, se_unet"),
        ({"name": "swin_unetr", "dims": 2, "width": 3}, "width"),
        ({"name": "swin_unetr", "dims": 4}, "dims"),
        ({"name": "swin_unetr", "dims": 2, "feature_size": 20}, "multiple of 12"),
        ({"name": "xception_cbam_unet", "attention": "everywhere"}, "'decoder', 'skips' or 'none'"),
        ({"name": "xception_cbam_unet", "dropout": 1}, "less than 1"),
        ({"name": "resnet_unet", "depth": 101}, "18, 34 or 50"),
        ({"name": "resnet_unet", "norm": "none"}, "'batch' or 'instance'"),
        ({"name": "rstn", "network": RSTN_UNET | {"num_supervised": 2}}, "with num_supervised 1, got 2 and 2"),
        ({"name": "rstn", "network": {"widths": (4, 4, 4), **ANISOTROPIC}}, "of 2 dimensions with .*, got 3 and 1"),
        ({"name": "rstn", "network": RSTN_UNET, "saliency_kernels": (3, 4)}, "must be odd, from 1 to 31, got .3, 4."),
        ({"name": "rstn", "network": RSTN_UNET, "coarse_weight": 1}, "less than 1"),
        ({"name": "se_unet", **SQUARE, "reduction": 5}, "width must be divisible by reduction"),
        ({"name": "se_unet", **SQUARE, "encoder_kernel": 5}, "3 or 7"),
        ({"name": "se_unet", "strides": ((1, 1),), "kernels": ((5, 5),)}, "kernels must be 1 or 3"),
        ({"name": "se_unet", "strides": (), "kernels": ()}, "one entry per stage"),
        ({"name": "se_unet", "strides": ((1, 1), (0, 2)), "kernels": ((3, 3),) * 2}, "at least 1"),
        ({"name": "vnet", **SQUARE}, "one entry per stage"),
        (
            {"name": "vnet", "strides": ((1, 1),), "kernels": ((5, 5),), "widths": (4,), "encoder_blocks": (0,)},
            "greater than or equal to 1",
        ),
        (
            {"name": "vnet", "strides": ((1, 1),), "kernels": ((5, 5),), "widths": (4,), "encoder_blocks": (1,)},
            "decoder_blocks must have 0 entries",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(NetworkSpec).validate_python(value)
