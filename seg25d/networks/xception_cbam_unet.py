"""The U-Net with an Xception encoder and attention (CBAM), the 2D network of Shivdeo et al. 2021.

The paper only names the parts. The network here has the published number of parameters. It consists of the encoder of
Keras' Xception (Chollet 2017) cut at block13_sepconv2_bn, the residual decoder that was widespread on Kaggle at the
time (methods 2.4), and the CBAM of Woo et al. 2018 (Jongchan/attention-module, MODELS/cbam.py). Differences from Keras:
all convolutions are padded, which changes sizes but no count, and batch norms have PyTorch's momentum and epsilon.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from seg25d.networks.blocks import transposed_conv_3
from seg25d.networks.convolutions import Conv2d
from seg25d.networks.mixing import UNMIXED, SliceLayout, Step, make_mixers
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec

SLOPE = 0.1
"""Negative slope of the decoder's leaky ReLUs (methods 2.4)."""
REDUCTION = 16
"""Factor by which CBAM's hidden layer has fewer channels (Woo et al. 2018)."""
STEM_WIDTH = 64
"""Channels behind the first two convolutions, at 1/2 of the size (Chollet 2017, figure 5)."""
SKIP_WIDTHS = (128, 256, 728, 1024)
"""Channels of the encoder's outputs at 1/2, 1/4, 1/8 and 1/16 of the size."""
MIDDLE_WIDTH = 512
"""Channels at 1/32 of the size."""
DECODER_WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the decoder from 1/16 of the size up to full size."""
NUM_MIDDLE_BLOCKS = 8
"""Xception's blocks 5 to 12."""


class CBAM(nn.Module):
    """Gates for channels, then for pixels.

    Channels are multiplied by sigmoid(M(means) + M(maxima)) with a perceptron M, pixels then by sigmoid(BN(conv 7 x 7))
    of the maximum and the mean over channels.

    Args:
        channels: Of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.conv = Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        logits = self.perceptron(images.mean((2, 3))) + self.perceptron(images.amax((2, 3)))
        images = images * logits.sigmoid()[:, :, None, None]
        summary = torch.cat((images.amax(1, keepdim=True), images.mean(1, keepdim=True)), 1)
        return images * self.norm(self.conv(summary)).sigmoid()  # type: ignore[no-any-return]


class XceptionEncoder(nn.Module):
    """Xception up to block 13's last convolution, without that block's pooling and shortcut.

    Args:
        in_channels: Channels of the input.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv2d(in_channels, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            Conv2d(32, STEM_WIDTH, 3, 1, 1, bias=False),
            nn.BatchNorm2d(STEM_WIDTH),
            nn.ReLU(inplace=True),
        )
        widths = (STEM_WIDTH, *SKIP_WIDTHS)
        self.entry = nn.ModuleList(EntryBlock(widths[index], widths[index + 1], index > 0) for index in range(3))
        self.middle = nn.Sequential(*(MiddleBlock(widths[3]) for _ in range(NUM_MIDDLE_BLOCKS)))
        self.exit = nn.Sequential(
            nn.ReLU(),
            _separable(widths[3], widths[3]),
            nn.ReLU(inplace=True),
            _separable(widths[3], widths[4]),
            nn.LeakyReLU(SLOPE, inplace=True),
        )

    def forward(self, images: Tensor, mix: Sequence[Step] = UNMIXED) -> list[Tensor]:
        """(N, in_channels, h, w) to features (N, 128, h/2, w/2), (N, 256, h/4, w/4), (N, 728, ...), (N, 1024, ...).

        Args:
            images: (N, in_channels, h, w).
            mix: What happens to the input of each block of the entry, and of those in the middle.
        """
        features = self.stem(images)
        skips = []
        for step, block in zip(mix[:-1], self.entry, strict=True):
            skip, features = block(step(features))
            skips.append(skip)
        return [*skips, self.exit(self.middle(mix[-1](features)))]


class EntryBlock(nn.Module):
    """Xception's blocks 2 to 4: two separable convolutions, max pooling and a strided shortcut."""

    def __init__(self, in_channels: int, out_channels: int, activate: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.ReLU() if activate else nn.Identity(),
            _separable(in_channels, out_channels),
            nn.ReLU(inplace=True),
            _separable(out_channels, out_channels),
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.shortcut = nn.Sequential(Conv2d(in_channels, out_channels, 1, 2, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in_channels, h, w) to (N, out_channels, h, w) before the pooling, and (N, out_channels, h/2, w/2)."""
        skip = self.convs(features)
        return skip, self.pool(skip) + self.shortcut(features)


class MiddleBlock(nn.Module):
    """Xception's blocks 5 to 12: three separable convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [(nn.ReLU(inplace=index > 0), _separable(channels, channels)) for index in range(3)]
        self.convs = nn.Sequential(*(layer for pair in layers for layer in pair))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        return self.convs(features) + features  # type: ignore[no-any-return]


class DecoderResidual(nn.Module):
    """A norm of the input, and two convolutions with norms, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.convs = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.BatchNorm2d(channels),
            Conv2d(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            Conv2d(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        return self.norm(features) + self.convs(features)  # type: ignore[no-any-return]


class XceptionCBAMUNet(nn.Module):
    """Encoder, decoder with four skip connections, and a head of 1 x 1 convolutions.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel.
    """

    score_layer: ClassVar[str] = XceptionCBAMUNetSpec.score_layer

    def __init__(self, spec: XceptionCBAMUNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        attend = spec.attention == "decoder"
        widths = (MIDDLE_WIDTH, *DECODER_WIDTHS)
        joined = (*reversed(SKIP_WIDTHS), 0)
        self.encoder = XceptionEncoder(in_channels)
        self.skips = nn.ModuleList(CBAM(width) if spec.attention == "skips" else nn.Identity() for width in SKIP_WIDTHS)
        self.middle = nn.Sequential(nn.MaxPool2d(2), _convs(SKIP_WIDTHS[-1], MIDDLE_WIDTH, attend))
        self.ups = nn.ModuleList(transposed_conv_3(coarse, fine, (2, 2)) for coarse, fine in pairwise(widths))
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.Dropout(spec.dropout), _convs(width + more, width, attend))
            for width, more in zip(DECODER_WIDTHS, joined, strict=True)
        )
        self.head = Conv2d(DECODER_WIDTHS[-1], num_outputs, 1)
        # Last, so that all other weights begin as without mixing.
        self.mixes_slices = spec.mixing is not None
        down = zip((1, 2, 3, 4), (STEM_WIDTH, *SKIP_WIDTHS), strict=False)
        self.mix_down = make_mixers(spec.mixing, down, 1 + len(DECODER_WIDTHS))
        up = zip((4, 5, 4, 3, 2, 1), (SKIP_WIDTHS[-1], *widths), strict=False)
        self.mix_up = make_mixers(spec.mixing, up, 1 + len(DECODER_WIDTHS))

    def forward(self, images: Tensor, layout: SliceLayout | None = None) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, h, w) with sizes divisible by 32.
            layout: Where slices are among them, for networks that mix these.

        Returns:
            (N, num_outputs, h, w) in eval mode; in training mode a list with these scores and the weight 1.
        """
        encoded = self.encoder(images, [partial(mixer, layout=layout) for mixer in self.mix_down])
        skips = [gate(features) for gate, features in zip(self.skips, encoded, strict=True)]
        middle, *mixers = self.mix_up
        features = self.middle(middle(encoded[-1], layout))
        for mixer, up, stage in zip(mixers, self.ups, self.decoder, strict=True):
            features = up(mixer(features, layout))
            features = stage(torch.cat((features, skips.pop()), 1) if skips else features)
        scores: Tensor = self.head(features)
        return [(scores, 1.0)] if self.training else scores


def _separable(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False),
        Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _convs(in_channels: int, width: int, attend: bool) -> nn.Module:
    """Make the convolutions of a decoder stage."""
    return nn.Sequential(
        Conv2d(in_channels, width, 3, 1, 1),
        DecoderResidual(width),
        DecoderResidual(width),
        nn.LeakyReLU(SLOPE, inplace=True),
        CBAM(width) if attend else nn.Identity(),
    )
