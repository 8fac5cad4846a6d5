"""The U-Net with a ResNet encoder (He et al. 2016) that can start with ImageNet weights, and a slim decoder.

The encoder has the layers and the names of torchvision's ResNet without its classifier, so that state dicts which users
have on disk fit (torchvision_weights.py loads them). Encoder and decoder together are segmentation_models_pytorch's
`Unet("resnet34")` with its default settings, the pretrained network of Sobirov et al. 2022 (methods 1.2): features are
enlarged without parameters, joined with those of the encoder, and convolved twice; the last 3 x 3 gives the scores
(qubvel-org/segmentation_models.pytorch, decoders/unet/decoder.py and base/heads.py).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.blocks import ConvBlock, initialise, make_norm
from seg25d.networks.convolutions import Conv2d
from seg25d.networks.mixing import UNMIXED, SliceLayout, Step, make_mixers
from seg25d.networks.specs.resnet_unet import Depth, ResNetNorm, ResNetUNetSpec

NUM_BLOCKS: dict[Depth, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks of the four layers (He et al. 2016, Table 1)."""
STEM_WIDTH = 64
"""Channels at 1/2 of the size."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the convolutions of size 3 in the four layers, at 1/4, 1/8, 1/16 and 1/32 of the size."""
DECODER_WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the decoder from 1/16 of the size up to full size."""


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

    def forward(self, images: Tensor, mix: Sequence[Step] = UNMIXED) -> list[Tensor]:
        """(N, in_channels, h, w) to features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, with `widths` channels.

        Args:
            images: (N, in_channels, h, w).
            mix: What happens to the input of each layer.
        """
        stem = self.relu(self.bn1(self.conv1(images)))
        features = [stem, self.layer1(mix[0](self.maxpool(stem)))]
        for step, layer in zip(mix[1:], (self.layer2, self.layer3, self.layer4), strict=True):
            features.append(layer(step(features[-1])))
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
        # Last, so that all other weights begin as without mixing.
        self.mixes_slices = spec.mixing is not None
        down = zip((2, 2, 3, 4), self.encoder.widths, strict=False)  # behind the first pooling, then layer by layer
        self.mix_down = make_mixers(spec.mixing, down, 1 + len(DECODER_WIDTHS))
        up = zip((5, 4, 3, 2, 1), (coarsest, *DECODER_WIDTHS), strict=False)
        self.mix_up = make_mixers(spec.mixing, up, 1 + len(DECODER_WIDTHS))

    def forward(self, images: Tensor, layout: SliceLayout | None = None) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, h, w) with sizes divisible by 32.
            layout: Where slices are among them, for networks that mix these.

        Returns:
            (N, num_outputs, h, w) in eval mode; in training mode a list with these scores and the weight 1.
        """
        *skips, features = self.encoder(images, [partial(mixer, layout=layout) for mixer in self.mix_down])
        for mixer, stage in zip(self.mix_up, self.decoder, strict=True):
            features = mixer(features, layout)
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
