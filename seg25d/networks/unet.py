"""The U-Net, in 2D and 3D: the default network, and the plain U-Nets of the papers by its settings.

Ronneberger et al. 2015 in the form of nnU-Net's PlainConvUNet (strided convolutions, instance norm, leaky ReLU, deep
supervision), with the variants of Sobirov et al. 2022 (max pooling, no conv bias, transposed convolutions of size 3)
and Angermann & Haltmeier 2022 (no norm) as settings.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from seg25d.networks.blocks import (
    MAX_POOL,
    ConvBlock,
    ResidualBlock,
    initialise,
    initialise_glorot,
    transposed_conv_3,
)
from seg25d.networks.convolutions import CONV, TRANSPOSED_CONV
from seg25d.networks.mixing import SliceLayout, make_mixers
from seg25d.networks.specs.unet import UNetSpec


class UNet(nn.Module):
    """Encoder, decoder with skip connections, and a head of 1 x 1 convolutions per supervised scale.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel or voxel.
    """

    score_layer: ClassVar[str] = UNetSpec.score_layer

    def __init__(self, spec: UNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths
        inputs = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(_encoder_stage(spec, stage, inputs[stage]) for stage in range(len(widths)))
        below = range(len(widths) - 1)
        self.ups = nn.ModuleList(_upsampling(spec, stage) for stage in below)
        self.decoder = nn.ModuleList(_decoder_stage(spec, stage) for stage in below)
        self.heads = nn.ModuleList(
            CONV[spec.dims](widths[stage], num_outputs, 1) for stage in range(spec.num_supervised)
        )
        initialise(self) if spec.initialisation == "he" else initialise_glorot(self)
        # Last, so that all other weights begin as without mixing.
        self.mixes_slices = spec.mixing is not None
        stages = list(enumerate(widths))
        self.mix_down = make_mixers(spec.mixing, stages[:-1], len(stages))
        self.mix_up = make_mixers(spec.mixing, stages[1:], len(stages))

    def forward(self, images: Tensor, layout: SliceLayout | None = None) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, ...) with sizes divisible by `spec.divisor`.
            layout: Where slices are among them, for networks that mix these.

        Returns:
            (N, num_outputs, ...) in eval mode; in training mode a list of (scores, weight), the finest scale first,
            each further one with half the weight; weights sum to 1.
        """
        skips = []
        features = images
        for stage, encoder_stage in enumerate(self.encoder):
            if stage > 0:
                features = self.mix_down[stage - 1](features, layout)
            features = encoder_stage(features)
            skips.append(features)
        outputs = []
        skips.pop()
        for stage in range(len(self.decoder) - 1, -1, -1):
            # Nothing is kept for longer than it is needed: in prediction, no gradient needs it either.
            features = self.mix_up[stage](features, layout)
            features = torch.cat((self.ups[stage](features), skips.pop()), 1)
            for block in self.decoder[stage].children():
                features = block(features)
            if stage == 0 or (self.training and stage < len(self.heads)):
                outputs.append(self.heads[stage](features))
        if not self.decoder:
            outputs.append(self.heads[0](features))
        if not self.training:
            return outputs[-1]  # type: ignore[no-any-return]
        total = sum(0.5**stage for stage in range(len(outputs)))
        return [(scores, 0.5**stage / total) for stage, scores in enumerate(reversed(outputs))]


def _encoder_stage(spec: UNetSpec, stage: int, in_channels: int) -> nn.Module:
    width, kernel, stride = spec.widths[stage], spec.kernels[stage], spec.strides[stage]
    layers: list[nn.Module] = []
    if spec.downsampling == "max_pool" and max(stride) > 1:
        layers.append(MAX_POOL[spec.dims](stride, stride))
        stride = (1,) * spec.dims
    block = ResidualBlock if spec.residual else ConvBlock
    for index in range(spec.encoder_blocks):
        layers.append(
            block(
                in_channels if index == 0 else width,
                width,
                kernel,
                stride if index == 0 else None,
                spec.norm,
                spec.activation,
                spec.conv_bias,
            )
        )
    return nn.Sequential(*layers)


def _upsampling(spec: UNetSpec, stage: int) -> nn.Module:
    stride = spec.strides[stage + 1]
    channels = (spec.widths[stage + 1], spec.widths[stage])
    if spec.upsampling == "transposed_3":
        return transposed_conv_3(*channels, stride)
    return TRANSPOSED_CONV[spec.dims](*channels, stride, stride, bias=spec.conv_bias)  # type: ignore[arg-type]


def _decoder_stage(spec: UNetSpec, stage: int) -> nn.Module:
    width, kernel = spec.widths[stage], spec.kernels[stage]
    return nn.Sequential(
        *(
            ConvBlock(
                2 * width if index == 0 else width, width, kernel, None, spec.norm, spec.activation, spec.conv_bias
            )
            for index in range(spec.decoder_blocks)
        )
    )
