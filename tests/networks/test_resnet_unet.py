"""The U-Net with ResNet encoder: published counts, sizes, half precision; its weights: test_torchvision_weights.py."""

import pytest
import torch
from torch import Tensor, nn

from seg25d.networks.blocks import InstanceNorm
from seg25d.networks.resnet_unet import ResNetEncoder, ResNetUNetSpec


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# What people print of segmentation_models_pytorch's Unet(encoder, in_channels=3, classes=1), and torchvision's
# `num_params` (documentation of resnet18, resnet34, resnet50) without 1000 classes.
@pytest.mark.parametrize(
    ("depth", "expected", "encoder"),
    [
        (18, 14_328_209, 11_689_512 - 1000 * 513),
        (34, 24_436_369, 21_797_672 - 1000 * 513),
        (50, 32_521_105, 25_557_032 - 1000 * 2049),
    ],
)
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_published_counts(depth: int, norm: str, expected: int, encoder: int) -> None:
    with torch.device("meta"):
        network = ResNetUNetSpec(depth=depth, norm=norm).build(3, 1)
    assert (count(network), count(network.encoder)) == (expected, encoder)


def test_one_channel_is_the_published_count_too() -> None:
    with torch.device("meta"):
        assert count(ResNetUNetSpec().build(1, 1)) == 24_430_097


@pytest.mark.parametrize(("depth", "widths"), [(34, (64, 64, 128, 256, 512)), (50, (64, 256, 512, 1024, 2048))])
def test_sizes_and_widths_of_the_encoder(depth: int, widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(depth, 2, "batch")
        features = encoder(torch.empty(1, 2, 64, 96))
    assert encoder.widths == widths
    assert [one.shape[1] for one in features] == list(widths)
    assert [tuple(one.shape[2:]) for one in features] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]


def test_each_stage_of_the_decoder_joins_what_is_enlarged_with_the_skip_of_its_size() -> None:
    network = ResNetUNetSpec(depth=18).build(1, 1).eval()
    inputs: list[Tensor] = []
    encoded: list[Tensor] = []
    for stage in network.decoder:
        stage.register_forward_hook(lambda module, seen, output: inputs.append(seen[0]))
    network.encoder.register_forward_hook(lambda module, seen, output: encoded.extend(output))
    with torch.no_grad():
        network(torch.rand(1, 1, 64, 32))
    assert [tuple(each.shape[1:]) for each in inputs] == [
        *((512 + 256, 4, 2), (256 + 128, 8, 4), (128 + 64, 16, 8), (64 + 64, 32, 16), (32, 64, 32)),
    ]
    for joined, skip in zip(inputs[:-1], reversed(encoded[:-1]), strict=True):
        assert torch.equal(joined[:, -skip.shape[1] :], skip)
    enlarged = encoded[-1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(inputs[0][:, :512], enlarged)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_half_precision_stays_and_statistics_are_exact(norm: str) -> None:
    torch.manual_seed(0)
    network = ResNetUNetSpec(depth=18, norm=norm).build(1, 2).train()
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(torch.randn(2, 1, 64, 32))[0][0]
    assert scores.dtype == torch.bfloat16
    scores.float().square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert all(value.dtype == torch.float32 for value in network.buffers() if value.is_floating_point())
    assert any(isinstance(layer, InstanceNorm) for layer in network.modules()) == (norm == "instance")
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == (norm == "batch")


def test_a_batch_of_two_tiny_images_trains() -> None:
    """At 1/32 there is a pixel each, so that batch norm's variance is of two numbers."""
    torch.manual_seed(0)
    network = ResNetUNetSpec(depth=18).build(1, 2).train()
    scores = network(torch.randn(2, 1, 32, 32))[0][0]
    scores.square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert network.eval()(torch.randn(1, 1, 32, 32)).isfinite().all()


def test_names_in_tables() -> None:
    assert ResNetUNetSpec().summary == "ResNet-34"
    assert ResNetUNetSpec(depth=50, norm="instance").summary == "ResNet-50 instance norm"
