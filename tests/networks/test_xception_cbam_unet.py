"""The U-Net with Xception encoder: counts, sizes, and CBAM by its formula."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.xception_cbam_unet import (
    CBAM,
    DecoderResidual,
    EntryBlock,
    XceptionCBAMUNet,
    XceptionCBAMUNetSpec,
    XceptionEncoder,
)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("attention", "expected"), [("decoder", 38_415_360), ("skips", 38_579_510), ("none", 38_370_009)]
)
def test_counts(attention: str, expected: int) -> None:
    with torch.device("meta"):
        network = XceptionCBAMUNetSpec(attention=attention).build(3, 1)
    assert count(network) == expected
    assert count(network.encoder) == 15_310_632
    gates = sum(isinstance(layer, CBAM) for layer in network.modules())
    assert gates == {"decoder": 6, "skips": 4, "none": 0}[attention]


def test_other_channels_change_the_first_convolution_only() -> None:
    with torch.device("meta"):
        counts = [count(XceptionEncoder(channels)) for channels in (1, 2, 7)]
    assert [number - 15_310_632 for number in counts] == [-576, -288, 4 * 288]


def test_sizes_and_widths_of_the_encoder() -> None:
    with torch.device("meta"):
        features = XceptionEncoder(1)(torch.empty(2, 1, 64, 96))
    assert [tuple(one.shape[1:]) for one in features] == [(128, 32, 48), (256, 16, 24), (728, 8, 12), (1024, 4, 6)]


def sigmoid(values: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-values))


def test_cbam_by_its_formula() -> None:
    torch.manual_seed(0)
    cbam = CBAM(32).double().eval()
    nn.init.constant_(cbam.norm.weight, 2.0)
    nn.init.constant_(cbam.norm.bias, -0.5)
    images = torch.randn(2, 32, 4, 5, dtype=torch.double)
    first, second = cbam.perceptron[0], cbam.perceptron[2]
    assert first.weight.shape == (2, 32)
    expected = torch.empty_like(images)
    for number, image in enumerate(images):
        logits = torch.zeros(32, dtype=torch.double)
        for summary in (image.flatten(1).mean(1), image.flatten(1).max(1).values):
            logits += second.weight @ (first.weight @ summary + first.bias).clamp(min=0) + second.bias
        gated = image * sigmoid(logits)[:, None, None]
        pixels = torch.stack((gated.max(0).values, gated.mean(0)))[None]
        convolved = functional.conv2d(pixels, cbam.conv.weight, padding=3)[0, 0] / (1 + 1e-5) ** 0.5
        expected[number] = gated * sigmoid(2 * convolved - 0.5)
    torch.testing.assert_close(cbam(images), expected)


def test_entry_blocks_give_features_before_pooling() -> None:
    block = EntryBlock(4, 6, activate=True).eval()
    features = torch.randn(1, 4, 6, 8)
    before = features.clone()
    skip, result = block(features)
    assert torch.equal(features, before), "the shortcut sees what is not rectified"
    assert skip.shape == (1, 6, 6, 8)
    pooled = functional.max_pool2d(functional.pad(skip, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    shortcut = block.shortcut[0](features) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(result, pooled + shortcut)


def test_decoder_residual_with_silent_convolutions_is_its_norm() -> None:
    block = DecoderResidual(3)
    nn.init.zeros_(block.convs[-1].weight)
    features = torch.randn(2, 3, 4, 4)
    mean = features.mean((0, 2, 3), keepdim=True)
    deviation = torch.sqrt(features.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5)
    torch.testing.assert_close(block(features), (features - mean) / deviation)


def test_attention_on_skips_does_not_gate_the_way_down() -> None:
    # On the meta device, so only the order of calls can be seen: gates follow the encoder and leave its list alone.
    with torch.device("meta"):
        network = XceptionCBAMUNetSpec(attention="skips").build(1, 1).eval()
        middle: list[Tensor] = []
        encoded: list[list[Tensor]] = []
        network.middle.register_forward_hook(lambda module, inputs, output: middle.append(inputs[0]))
        network.encoder.register_forward_hook(lambda module, inputs, output: encoded.append(output))
        assert network(torch.empty(1, 1, 32, 64)).shape == (1, 1, 32, 64)
    assert middle[0] is encoded[0][-1]


def test_dropout_is_a_setting() -> None:
    with torch.device("meta"):
        networks = [XceptionCBAMUNetSpec(**settings).build(1, 1) for settings in ({}, {"dropout": 0.3})]
    rates = [[layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] for network in networks]
    assert rates == [[0.1] * 5, [0.3] * 5]
    assert all(isinstance(network, XceptionCBAMUNet) for network in networks)
