"""The U-Net with a ResNet encoder (He et al. 2016) that can start with ImageNet weights, and a slim decoder.

The encoder has the layers and the names of torchvision's ResNet without its classifier, so that state dicts which users
have on disk fit (torchvision_weights.py loads them). Encoder and decoder together are segmentation_models_pytorch's
`Unet("resnet34")` with its default settings, the pretrained network of Sobirov et al. 2022 (methods 1.2): features are
enlarged without parameters, joined with those of the encoder, and convolved twice; the last 3 x 3 gives the scores
(qubvel-org/segmentation_models.pytorch, decoders/unet/decoder.py and base/heads.py).
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.records import Record
from seg25d.networks.blocks import ConvBlock, initialise, make_norm
from seg25d.networks.convolutions import Conv2d, Sizes

Depth = Literal[18, 34, 50]
ResNetNorm = Literal["batch", "instance"]

NUM_BLOCKS: dict[Depth, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks of the four layers (He et al. 2016, Table 1)."""
STEM_WIDTH = 64
"""Channels at 1/2 of the size."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the convolutions of size 3 in the four layers, at 1/4, 1/8, 1/16 and 1/32 of the size."""
DECODER_WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the decoder from 1/16 of the size up to full size."""


class ResNetUNetSpec(Record):
    """All settings of a U-Net with ResNet encoder.

    Parameters with 3 channels in and 1 out: 14,328,209 for depth 18, 24,436,369 for 34 and 32,521,105 for 50, as many
    as segmentation_models_pytorch's; per channel less or more 3,136. The encoder has 11,176,512, 21,284,672 and
    23,508,032 of them, torchvision's without its classifier.

    Pretrained statistics need batch norm, as in the original. A batch of two small images is enough if they are equally
    bright, which normalisation of each case ensures; where brightness differs, statistics over all images do not suit
    any one of them, and instance norm is better (documentation/concepts/choices.md). It also predicts sensibly after
    fewer updates, and several processes can train it (training/processes.py). Both
    compute in half precision where convolutions do; sums and statistics are float32. A single image of 32 x 32 is
    one pixel at the bottom, which has no variance: batch norm cannot train on it, and instance norm cannot predict it
    either.
    """

    name: Literal["resnet_unet"] = "resnet_unet"
    depth: Depth = 34
    """Number of layers of the ResNet: 18 and 34 have blocks of two convolutions, 50 of three."""
    norm: ResNetNorm = "batch"
    """In encoder and decoder. `instance`: pretrained scales and shifts are used, pretrained statistics are not."""

    @property
    def dims(self) -> int:
        """2 spatial axes."""
        return 2

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return f"ResNet-{self.depth}" + ("" if self.norm == "batch" else f" {self.norm} norm")

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis."""
        return (32, 32)

    def build(self, in_channels: int, num_outputs: int) -> "ResNetUNet":
        """Make the network with fresh weights from torch's global generator."""
        return ResNetUNet(self, in_channels, num_outputs)


class BasicBlock(nn.Module):
    """Two convolutions of size 3 and a shortcut, added before the last activation; the parts have torchvision's names.

    Args:
        in_channels: Channels of the input.
        width: Channels of the convolutions.
        stride: Of the first convolution and the shortcut.
        norm: Name of the normalisation.
    """

    expansion = 1
    """How many times `width` the output has channels."""

    def __init__(self, in_channels: int, width: int, stride: int, norm: ResNetNorm) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = make_norm(norm, width, 2)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = make_norm(norm, width, 2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride, norm)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, h, w) to (N, width, h / stride, w / stride)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.bn2(self.conv2(features))
        return self.relu(features + self.downsample(images))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Convolutions of size 1, 3 and 1 and a shortcut; the one of size 3 has the stride, as torchvision has it.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first two convolutions.
        stride: Of the second convolution and the shortcut.
        norm: Name of the normalisation.
    """

    expansion = 4
    """How many times `width` the output has channels."""

    def __init__(self, in_channels: int, width: int, stride: int, norm: ResNetNorm) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = make_norm(norm, width, 2)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = make_norm(norm, width, 2)
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3 = make_norm(norm, out_channels, 2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, h, w) to (N, 4 width, h / stride, w / stride)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.relu(self.bn2(self.conv2(features)))
        features = self.bn3(self.conv3(features))
        return self.relu(features + self.downsample(images))  # type: ignore[no-any-return]


class ResNetEncoder(nn.Module):
    """torchvision's ResNet without average pooling and classifier; the names of all weights are torchvision's.

    Args:
        depth: Of the ResNet.
        in_channels: Channels of the input.
        norm: Name of the normalisation.
    """

    def __init__(self, depth: Depth, in_channels: int, norm: ResNetNorm) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.widths = (STEM_WIDTH, *(block.expansion * width for width in WIDTHS))
        """Channels of the features that `forward` returns."""
        self.conv1 = _conv(in_channels, STEM_WIDTH, 7, 2)
        self.bn1 = make_norm(norm, STEM_WIDTH, 2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                block(before, width, stride, norm),
                *(block(block.expansion * width, width, 1, norm) for _ in range(num_blocks - 1)),
            )
            for before, width, stride, num_blocks in zip(
                self.widths, WIDTHS, (1, 2, 2, 2), NUM_BLOCKS[depth], strict=False
            )
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, in_channels, h, w) to features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, with `widths` channels."""
        stem = self.relu(self.bn1(self.conv1(images)))
        features = [stem, self.layer1(self.maxpool(stem))]
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


class ResNetUNet(nn.Module):
    """Encoder, decoder with four skip connections, and a head of one 3 x 3 convolution.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel.
    """

    def __init__(self, spec: ResNetUNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = ResNetEncoder(spec.depth, in_channels, spec.norm)
        *skips, coarsest = self.encoder.widths
        joined = (*reversed(skips), 0)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                ConvBlock(below + skip, width, (3, 3), None, spec.norm, "relu", bias=False),
                ConvBlock(width, width, (3, 3), None, spec.norm, "relu", bias=False),
            )
            for (below, width), skip in zip(pairwise((coarsest, *DECODER_WIDTHS)), joined, strict=True)
        )
        self.head = Conv2d(DECODER_WIDTHS[-1], num_outputs, 3, padding=1)
        initialise(self, slope=0.0)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, h, w) with sizes divisible by 32.

        Returns:
            (N, num_outputs, h, w) in eval mode; in training mode a list with these scores and the weight 1.
        """
        *skips, features = self.encoder(images)
        for stage in self.decoder:
            height, width = features.shape[2:]
            features = functional.interpolate(features, size=(2 * height, 2 * width), mode="nearest")
            features = stage(torch.cat((features, skips.pop()), 1) if skips else features)
        scores: Tensor = self.head(features)
        return [(scores, 1.0)] if self.training else scores


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: ResNetNorm) -> nn.Sequential:
    """Make a shortcut: empty, or a convolution of size 1 where the number of channels or the size changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), make_norm(norm, out_channels, 2))
