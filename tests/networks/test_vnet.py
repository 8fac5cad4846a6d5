"""The V-Net: counts of the figure and of the prototxt, residual blocks by hand, checkpointing."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.vnet import ResidualConvs, VNetSpec, repeat_channels

PROTOTXT = {"encoder_blocks": (1, 1, 2, 3, 3), "decoder_blocks": (3, 2, 1, 1)}


def spec(dims: int, **settings: Any) -> VNetSpec:
    stages = len(settings.get("widths", range(5)))
    return VNetSpec.model_validate(
        {"strides": ((1,) * dims, *((2,) * dims,) * (stages - 1)), "kernels": ((5,) * dims,) * stages, **settings}
    )


def small(**settings: Any) -> VNetSpec:
    return spec(2, widths=(4, 6, 8), encoder_blocks=(1, 2, 3), decoder_blocks=(2, 1), **settings)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("settings", "in_convolutions", "in_slopes"), [({}, 65_179_800, 3_458), (PROTOTXT, 61_979_512, 3_170)]
)
def test_counts_of_figure_and_prototxt(settings: dict[str, Any], in_convolutions: int, in_slopes: int) -> None:
    with torch.device("meta"):
        network = spec(3, **settings).build(1, 2)
    slopes = sum(count(layer) for layer in network.modules() if isinstance(layer, nn.PReLU))
    assert (count(network) - slopes, slopes) == (in_convolutions, in_slopes)


def test_numbers_of_convolutions_per_stage() -> None:
    with torch.device("meta"):
        network = spec(2, encoder_blocks=(1, 2, 3, 4, 5), decoder_blocks=(9, 8, 7, 6)).build(1, 1)

    def widths(part: nn.Module) -> list[int]:
        return [layer.out_channels for layer in part.modules() if getattr(layer, "kernel_size", ()) == (5, 5)]

    assert [widths(stage) for stage in network.encoder] == [[16], [32] * 2, [64] * 3, [128] * 4, [256] * 5]
    assert [widths(stage) for stage in network.decoder] == [[32] * 6, [64] * 7, [128] * 8, [256] * 9]


def test_residual_convolutions_by_hand() -> None:
    torch.manual_seed(0)
    part = ResidualConvs(2, 5, (3, 1), 2, "none")
    images = torch.randn(1, 2, 4, 3)
    first, slope, second = part.layers[0], part.layers[2].weight, part.layers[3]
    assert slope.tolist() == [0.25] * 5
    hidden = first(images)
    hidden = torch.where(hidden > 0, hidden, hidden * 0.25)
    total = second(hidden) + images[:, [0, 1, 0, 1, 0]]
    torch.testing.assert_close(part(images), torch.where(total > 0, total, total * 0.25))


def test_channels_are_repeated_until_there_are_enough() -> None:
    images = torch.arange(3.0).reshape(1, 3, 1)
    assert repeat_channels(images, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeat_channels(images, 2).flatten().tolist() == [0, 1]
    assert repeat_channels(images, 3) is images


def test_decoder_joins_the_enlarged_features_with_the_skip() -> None:
    torch.manual_seed(0)
    stage = small().build(1, 1).decoder[0]
    features, skip = torch.randn(1, 12, 2, 3), torch.randn(1, 4, 4, 6)
    for layer in stage.convs.layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    up = functional.conv_transpose2d(features, stage.up[0].weight, stage.up[0].bias, 2)
    joined = torch.cat((functional.leaky_relu(up, 0.25), skip), 1)
    torch.testing.assert_close(stage(features, skip), functional.leaky_relu(joined, 0.25))


def gradients(checkpointing: bool, images: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    torch.manual_seed(0)
    network = small(norm="instance", checkpointing=checkpointing).build(1, 2).train()
    loss = network(images)[0][0].square().mean()
    loss.backward()
    return loss, [parameter.grad for parameter in network.parameters()]


def test_checkpointing_changes_neither_loss_nor_gradients() -> None:
    images = torch.randn(2, 1, 8, 12)
    (loss, plain), (same, checkpointed) = gradients(False, images), gradients(True, images)
    assert torch.equal(loss, same)
    assert all(torch.equal(first, second) for first, second in zip(plain, checkpointed, strict=True))


def test_checkpointing_and_batch_norm_do_not_go_together() -> None:
    with pytest.raises(ValidationError, match="instance norm"):
        small(norm="batch", checkpointing=True)
    assert small(norm="batch").build(1, 1).eval()(torch.randn(1, 1, 4, 4)).shape == (1, 1, 4, 4)
