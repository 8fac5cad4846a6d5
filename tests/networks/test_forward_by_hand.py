"""Every network's forward pass worked out once more: from the papers' descriptions, with plain functions of torch.

Only names and shapes of weights are taken from the networks; nothing here calls their code. "1.3" and the like are
sections of methods.md, the project's digest of the papers. All is computed in float64 with random scales, shifts,
slopes and statistics, so that nothing is hidden behind a one or a zero.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.base import NETWORKS, Network
from seg25d.networks.paper_unets import half_unet, super_image_unet
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec

IN_CHANNELS, NUM_OUTPUTS = 2, 3
EPSILON = 1e-5
"""Added to variances (default of all norms of torch)."""


class Layers:
    """The weights of a network by name, and the operations that they stand for."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = network.state_dict()

    def within(self, part: str) -> Self:
        """The layers of one part."""
        layers = copy.copy(self)
        mine = [name for name in self.weights if name.startswith(f"{part}.")]
        layers.weights = {name.removeprefix(f"{part}."): self.weights[name] for name in mine}
        return layers

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def conv(self, name: str, images: Tensor, stride: int | Sequence[int] = 1, groups: int = 1) -> Tensor:
        """A convolution; odd kernels are padded so that they keep the size, even ones are not padded."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        padding = [(size - 1) // 2 for size in weight.shape[2:]]
        convolve = functional.conv2d if images.dim() == 4 else functional.conv3d
        return convolve(images, weight, bias, stride, padding, groups=groups)

    def up(self, name: str, images: Tensor, stride: int | Sequence[int], padding: int = 0, more: int = 0) -> Tensor:
        """A transposed convolution."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        convolve = functional.conv_transpose2d if images.dim() == 4 else functional.conv_transpose3d
        return convolve(images, weight, bias, stride, padding, more)

    def batch_norm(self, name: str, images: Tensor) -> Tensor:
        mean, variance = (self.weights[f"{name}.running_{each}"] for each in ("mean", "var"))
        return self.affine(name, (images - column(mean, images)) / torch.sqrt(column(variance, images) + EPSILON))

    def instance_norm(self, name: str, images: Tensor) -> Tensor:
        return self.affine(name, standardised(images))

    def affine(self, name: str, images: Tensor) -> Tensor:
        return images * column(self.weights[f"{name}.weight"], images) + column(self.weights[f"{name}.bias"], images)

    def prelu(self, name: str, images: Tensor) -> Tensor:
        return torch.where(images > 0, images, images * column(self.weights[f"{name}.weight"], images))

    def linear(self, name: str, tokens: Tensor) -> Tensor:
        return tokens @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def column(values: Tensor, images: Tensor) -> Tensor:
    """A value per channel, to be combined with (N, C, ...)."""
    return values.reshape(-1, *(1,) * (images.dim() - 2))


def standardised(images: Tensor) -> Tensor:
    """(N, C, ...) with mean 0 and variance 1 per image and channel."""
    axes = tuple(range(2, images.dim()))
    variance = images.var(axes, unbiased=False, keepdim=True)
    return (images - images.mean(axes, keepdim=True)) / torch.sqrt(variance + EPSILON)


def relu(images: Tensor) -> Tensor:
    return images.clamp(min=0)


def leaky(images: Tensor, slope: float) -> Tensor:
    return torch.where(images > 0, images, slope * images)


def max_pool(images: Tensor, size: int = 2, stride: int = 2, padding: int = 0) -> Tensor:
    pool = functional.max_pool2d if images.dim() == 4 else functional.max_pool3d
    return pool(images, size, stride, padding)


def planned_unet(w: Layers, images: Tensor, strides: Sequence[Sequence[int]]) -> list[Tensor]:
    """nnU-Net's PlainConvUNet; scores of all scales that have a head, the finest first."""
    features, skips, scores = images, [], []
    for stage, stride in enumerate(strides):
        for number in range(2):
            name = f"encoder.{stage}.{number}"
            features = w.conv(f"{name}.conv", features, stride if number == 0 else 1)
            features = leaky(w.instance_norm(f"{name}.norm", features), 0.01)
        skips.append(features)
    for stage in range(len(strides) - 2, -1, -1):
        features = torch.cat((w.up(f"ups.{stage}", features, strides[stage + 1]), skips[stage]), 1)
        for number in range(2):
            name = f"decoder.{stage}.{number}"
            features = leaky(w.instance_norm(f"{name}.norm", w.conv(f"{name}.conv", features)), 0.01)
        if w.has(f"heads.{stage}"):
            scores.insert(0, w.conv(f"heads.{stage}", features))
    return scores


def papers_unet(w: Layers, images: Tensor, levels: int, normed: bool) -> Tensor:
    """1.2 (four levels, instance norm) and 3.6 (five levels, no norm): max pooling, ReLU, transposed kernels of 3."""

    def two_convs(name: str, first: int, features: Tensor) -> Tensor:
        for number in (first, first + 1):
            features = w.conv(f"{name}.{number}.conv", features)
            features = relu(w.instance_norm(f"{name}.{number}.norm", features) if normed else features)
        return features

    features, skips = images, []
    for level in range(levels):
        features = two_convs(f"encoder.{level}", 1 if level else 0, max_pool(features) if level else features)
        skips.append(features)
    for level in range(levels - 2, -1, -1):
        features = torch.cat((w.up(f"ups.{level}", features, 2, 1, 1), skips[level]), 1)
        features = two_convs(f"decoder.{level}", 0, features)
    return w.conv("heads.0", features)


def se_unet(w: Layers, images: Tensor) -> Tensor:
    """1.3: residual blocks of convolution, ReLU and SE norm, five levels, vision paths."""

    def block(name: str, features: Tensor) -> Tensor:
        features = relu(w.conv(f"{name}.conv", features))
        means = features.mean(tuple(range(2, features.dim())), keepdim=True)
        gates = [
            w.conv(f"{name}.norm.{gate}.2", relu(w.conv(f"{name}.norm.{gate}.0", means))) for gate in ("scale", "shift")
        ]
        return torch.sigmoid(gates[0]) * standardised(features) + torch.tanh(gates[1])

    def residual(name: str, features: Tensor) -> Tensor:
        shortcut = f"{name}.shortcut"
        return block(f"{name}.block", features) + (block(shortcut, features) if w.has(f"{shortcut}.conv") else features)

    features, skips = images, []
    for level in range(5):
        if level:
            features = max_pool(features)
        for number in (1, 2, 3) if level else (0, 1):
            features = residual(f"encoder.{level}.{number}", features)
        skips.append(features)
    visions = []
    for level in (3, 2, 1, 0):
        features = block(f"first.{level}", torch.cat((w.up(f"ups.{level}", features, 2, 1, 1), skips[level]), 1))
        if level == 0:
            features = features + sum(visions)
        features = block(f"second.{level}", features)
        if level:
            seen = block(f"visions.{level - 1}", features)
            mode = "bilinear" if images.dim() == 4 else "trilinear"
            visions.append(functional.interpolate(seen, scale_factor=2**level, mode=mode, align_corners=False))
    return w.conv("head", features)


def vnet(w: Layers, images: Tensor, normed: bool) -> Tensor:
    """2.3: 1, 2, 3, 3, 3 convolutions on the way down and 3, 3, 2, 1 on the way up, each with a residual; PReLU."""

    def norm(name: str, features: Tensor) -> Tensor:
        return w.instance_norm(name, features) if normed else features

    def convs(name: str, number: int, features: Tensor) -> Tensor:
        result = features
        for index in range(number):
            result = norm(f"{name}.layers.{3 * index + 1}", w.conv(f"{name}.layers.{3 * index}", result))
            if index < number - 1:
                result = w.prelu(f"{name}.layers.{3 * index + 2}", result)
        # An image of few channels is added to all features in turn.
        times = math.ceil(result.shape[1] / features.shape[1])
        repeated = torch.cat([features] * times, 1)[:, : result.shape[1]]
        return w.prelu(f"{name}.activation", result + repeated)

    features = convs("encoder.0", 1, images)
    skips = [features]
    for stage, number in ((1, 2), (2, 3), (3, 3), (4, 3)):
        features = norm(f"encoder.{stage}.1", w.conv(f"encoder.{stage}.0", features, 2))
        features = convs(f"encoder.{stage}.3", number, w.prelu(f"encoder.{stage}.2", features))
        skips.append(features)
    for stage, number in ((3, 3), (2, 3), (1, 2), (0, 1)):
        name = f"decoder.{stage}"
        features = w.prelu(f"{name}.up.2", norm(f"{name}.up.1", w.up(f"{name}.up.0", features, 2)))
        features = convs(f"{name}.convs", number, torch.cat((features, skips[stage]), 1))
    return w.conv("head.2", w.prelu("head.1", w.conv("head.0", features)))


def fusion_net(w: Layers, images: Tensor, normed: str) -> Tensor:
    """4.2, variant A: three stages down and up, and what was there before each pooling is added on the way up."""
    norm = w.batch_norm if normed == "batch" else w.instance_norm
    features, highways = images, []
    for stage in range(3):
        for number in range(2):
            name = f"down.{stage}.{number}"
            features = relu(norm(f"{name}.norm", w.conv(f"{name}.conv", features)))
        highways.append(features)
        features = max_pool(features)
    for stage in range(3):
        features = relu(norm(f"up.{stage}.norm", w.up(f"up.{stage}.conv", features, 2, 1)))
        features = features + highways[2 - stage]
    return w.conv("head", features)


def cbam(w: Layers, name: str, features: Tensor) -> Tensor:
    """Gates for channels, then for pixels (Woo et al. 2018)."""
    logits = torch.zeros(())
    for seen in (features.mean((2, 3)), features.flatten(2).max(2).values):
        logits = logits + w.linear(f"{name}.perceptron.2", relu(w.linear(f"{name}.perceptron.0", seen)))
    features = features * torch.sigmoid(logits)[:, :, None, None]
    seen = torch.stack((features.max(1).values, features.mean(1)), 1)
    return features * torch.sigmoid(w.batch_norm(f"{name}.norm", w.conv(f"{name}.conv", seen)))


def xception_cbam_unet(w: Layers, images: Tensor, attention: str) -> Tensor:
    """2.4: Xception up to block 13, residual decoder, CBAM after each of its stages or on the skip connections."""

    def separable(name: str, features: Tensor) -> Tensor:
        features = w.conv(f"{name}.1", w.conv(f"{name}.0", features, groups=features.shape[1]))
        return w.batch_norm(f"{name}.2", features)

    def residual(name: str, features: Tensor) -> Tensor:
        result = w.conv(f"{name}.convs.2", w.batch_norm(f"{name}.convs.1", leaky(features, 0.1)))
        result = w.conv(f"{name}.convs.5", leaky(w.batch_norm(f"{name}.convs.3", result), 0.1))
        return w.batch_norm(f"{name}.norm", features) + w.batch_norm(f"{name}.convs.6", result)

    def decoder_stage(name: str, features: Tensor) -> Tensor:
        features = residual(f"{name}.2", residual(f"{name}.1", w.conv(f"{name}.0", features)))
        features = leaky(features, 0.1)
        return cbam(w, f"{name}.4", features) if attention == "decoder" else features

    features = relu(w.batch_norm("encoder.stem.1", w.conv("encoder.stem.0", images, 2)))
    features = relu(w.batch_norm("encoder.stem.4", w.conv("encoder.stem.3", features)))
    skips = []
    for block in range(3):
        name = f"encoder.entry.{block}"
        skip = separable(f"{name}.convs.1", relu(features) if block else features)
        skip = separable(f"{name}.convs.3", relu(skip))
        shortcut = w.batch_norm(f"{name}.shortcut.1", w.conv(f"{name}.shortcut.0", features, 2))
        features = max_pool(skip, 3, 2, 1) + shortcut
        skips.append(skip)
    for block in range(8):
        result = features
        for number in (1, 3, 5):
            result = separable(f"encoder.middle.{block}.convs.{number}", relu(result))
        features = features + result
    features = separable("encoder.exit.3", relu(separable("encoder.exit.1", relu(features))))
    skips.append(leaky(features, 0.1))
    features = decoder_stage("middle.1", max_pool(skips[3]))
    for stage in range(5):
        features = w.up(f"ups.{stage}", features, 2, 1, 1)
        if stage < 4:
            skip = skips[3 - stage]
            features = torch.cat((features, cbam(w, f"skips.{3 - stage}", skip) if attention == "skips" else skip), 1)
        features = decoder_stage(f"decoder.{stage}.1", features)
    return w.conv("head", features)


def resnet_unet(w: Layers, images: Tensor, kernels: Sequence[int]) -> Tensor:
    """1.2: ResNet of depth 34 (kernels 3, 3) or 50 (1, 3, 1; He et al. 2016, Table 1), and smp's decoder."""

    def block(name: str, features: Tensor, stride: int) -> Tensor:
        result = features
        for number, kernel in enumerate(kernels, 1):
            # The first kernel of 3 has the stride.
            step = stride if kernel == 3 and number == kernels.index(3) + 1 else 1
            result = w.batch_norm(f"{name}.bn{number}", w.conv(f"{name}.conv{number}", result, step))
            if number < len(kernels):
                result = relu(result)
        if w.has(f"{name}.downsample.0"):
            features = w.batch_norm(f"{name}.downsample.1", w.conv(f"{name}.downsample.0", features, stride))
        return relu(result + features)

    features = relu(w.batch_norm("encoder.bn1", w.conv("encoder.conv1", images, 2)))
    skips = [features]
    features = max_pool(features, 3, 2, 1)
    for layer, num_blocks in enumerate((3, 4, 6, 3), 1):
        for number in range(num_blocks):
            features = block(f"encoder.layer{layer}.{number}", features, 2 if layer > 1 and number == 0 else 1)
        skips.append(features)
    for stage in range(5):
        features = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if stage < 4:
            features = torch.cat((features, skips[3 - stage]), 1)
        for number in range(2):
            name = f"decoder.{stage}.{number}"
            features = relu(w.batch_norm(f"{name}.norm", w.conv(f"{name}.conv", features)))
    return w.conv("head", features)


def rstn(w: Layers, images: Tensor, strides: Sequence[Sequence[int]]) -> Tensor:
    """Yu et al. 2018, for images that are no larger than their margin of 20 pixels: a crop is then the whole image.

    Each by itself: coarse scores, then those of the image times the saliency of the scores before, ten times or until
    the Dice of two masks is 0.99 or there is none.
    """
    return torch.cat([rstn_of_one(w, image, strides) for image in images.split(1)])


def rstn_of_one(w: Layers, image: Tensor, strides: Sequence[Sequence[int]]) -> Tensor:
    def foreground(scores: Tensor) -> Tensor:
        return torch.exp(scores)[:, 1:] / torch.exp(scores).sum(1, keepdim=True)

    scores = planned_unet(w.within("coarse"), image, strides)[0]
    for _ in range(10):
        mask = foreground(scores).sum(1) >= 0.5
        if not mask.any():
            break
        saliency = w.conv("saliency.second", relu(w.conv("saliency.first", foreground(scores))))
        scores = planned_unet(w.within("fine"), image * saliency, strides)[0]
        found = foreground(scores).sum(1) >= 0.5
        if 2 * int((mask & found).sum()) >= 0.99 * int(mask.sum() + found.sum()):
            break
    return scores


def stages(dims: int, number: int, kernel: int) -> dict[str, object]:
    return {"strides": ((1,) * dims, *((2,) * dims,) * (number - 1)), "kernels": ((kernel,) * dims,) * number}


THIN = {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 1)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
WIDTHS = (2, 4, 6, 8, 10)
CASES: dict[str, tuple[Network, tuple[int, ...], Callable[[Layers, Tensor], Tensor]]] = {
    "unet": (
        UNetSpec.model_validate({"widths": (4, 6, 8), **THIN}),
        (4, 8, 6),
        lambda w, images: planned_unet(w, images, THIN["strides"])[0],
    ),
    "super_image_unet": (super_image_unet(2), (16, 24), lambda w, images: papers_unet(w, images, 4, True)),
    "super_image_unet 3D": (super_image_unet(3), (8, 16, 8), lambda w, images: papers_unet(w, images, 4, True)),
    "half_unet": (half_unet(2), (16, 32), lambda w, images: papers_unet(w, images, 5, False)),
    "half_unet 3D": (half_unet(3), (16, 16, 32), lambda w, images: papers_unet(w, images, 5, False)),
    "se_unet": (SEUNetSpec.model_validate({"width": 4, **stages(2, 5, 3)}), (32, 48), se_unet),
    "se_unet 3D": (SEUNetSpec.model_validate({"width": 2, **stages(3, 5, 3)}), (16, 16, 32), se_unet),
    "vnet": (
        VNetSpec.model_validate({"widths": WIDTHS, **stages(3, 5, 5)}),
        (16, 16, 32),
        lambda w, images: vnet(w, images, False),
    ),
    "vnet with norm": (
        VNetSpec.model_validate({"widths": WIDTHS, "norm": "instance", **stages(2, 5, 3)}),
        (32, 32),
        lambda w, images: vnet(w, images, True),
    ),
    "fusion_net": (FusionNetSpec(width=4), (16, 8, 16), lambda w, images: fusion_net(w, images, "batch")),
    "fusion_net with instance norm": (
        FusionNetSpec(width=4, norm="instance"),
        (16, 8, 16),
        lambda w, images: fusion_net(w, images, "instance"),
    ),
    "xception_cbam_unet": (
        XceptionCBAMUNetSpec(),
        (32, 64),
        lambda w, images: xception_cbam_unet(w, images, "decoder"),
    ),
    "xception_cbam_unet with gated skips": (
        XceptionCBAMUNetSpec(attention="skips"),
        (32, 32),
        lambda w, images: xception_cbam_unet(w, images, "skips"),
    ),
    "resnet_unet": (ResNetUNetSpec(), (64, 32), lambda w, images: resnet_unet(w, images, (3, 3))),
    "resnet_unet 50": (ResNetUNetSpec(depth=50), (32, 64), lambda w, images: resnet_unet(w, images, (1, 3, 1))),
    "rstn": (
        RSTNSpec(network=UNetSpec.model_validate({"widths": (4, 6, 8), **stages(2, 3, 3)})),
        (8, 12),
        lambda w, images: rstn(w, images, ((1, 1), (2, 2), (2, 2))),
    ),
}


def built(spec: Network) -> nn.Module:
    """A network in eval mode in which no scale is 1, no shift 0, and no statistic as it begins."""
    torch.manual_seed(0)
    network = spec.build(IN_CHANNELS, NUM_OUTPUTS).double().eval()
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if values.dim() == 1:
                reach = 0.4 if name.endswith(("weight", "running_var")) else 0.2
                values.add_(torch.empty_like(values).uniform_(-reach, reach))
    return network


def test_every_network_is_worked_out() -> None:
    # The Swin UNETR, which takes longer to explain, has test_swin_unetr_by_hand.py.
    assert {spec.name for spec, _, _ in CASES.values()} | {"swin_unetr"} == set(NETWORKS)


@pytest.mark.parametrize(("spec", "sizes", "by_hand"), CASES.values(), ids=CASES)
def test_scores_are_those_worked_out(
    spec: Network, sizes: tuple[int, ...], by_hand: Callable[[Layers, Tensor], Tensor]
) -> None:
    network = built(spec)
    images = torch.randn(2, IN_CHANNELS, *sizes, dtype=torch.double)
    with torch.no_grad():
        scores = network(images)
        torch.testing.assert_close(scores, by_hand(Layers(network), images), rtol=1e-8, atol=1e-8)
    # Scores that were all alike would hide what makes them.
    assert scores.std((0, *range(2, scores.dim()))).min() > 1e-3


def test_scores_of_all_supervised_scales_are_those_worked_out() -> None:
    network = built(UNetSpec.model_validate({"widths": (4, 6, 8), "num_supervised": 2, **THIN})).train()
    images = torch.randn(2, IN_CHANNELS, 4, 8, 6, dtype=torch.double)
    expected = planned_unet(Layers(network), images, THIN["strides"])
    for (scores, weight), wanted, share in zip(network(images), expected, (2 / 3, 1 / 3), strict=True):
        torch.testing.assert_close(scores, wanted, rtol=1e-8, atol=1e-8)
        assert weight == pytest.approx(share)
