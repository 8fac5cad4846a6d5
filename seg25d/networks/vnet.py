"""The V-Net (Milletari et al. 2016), which Shivdeo et al. 2021 train on stacks of slices.

The order of layers is that of the authors' faustomilletari/VNet, Prototxt/train_noPooling_ResNet_cinque.prototxt.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seg25d.core.types import Sizes
from seg25d.networks.blocks import PReLU, initialise, make_norm
from seg25d.networks.convolutions import CONV, TRANSPOSED_CONV
from seg25d.networks.mixing import SliceLayout, make_mixers
from seg25d.networks.specs.topology import NormName
from seg25d.networks.specs.vnet import VNetSpec

PRELU_SLOPE = 0.25
"""Initial slope of PReLUs (PyTorch and Caffe)."""


class ResidualConvs(nn.Module):
    """Several convolutions, whose input is added before the last PReLU.

    Args:
        in_channels: Channels of the input; it is repeated to `width` channels where they differ.
        width: Channels of the output.
        kernel: Odd kernel size per axis.
        num_convs: Number of convolutions.
        norm: Name of the normalisation.
    """

    def __init__(self, in_channels: int, width: int, kernel: Sizes, num_convs: int, norm: NormName) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        for index in range(num_convs):
            layers += [_conv(in_channels if index == 0 else width, width, kernel), make_norm(norm, width, len(kernel))]
            layers.append(PReLU(width))
        self.layers = nn.Sequential(*layers[:-1])
        self.activation = layers[-1]

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, ...) to (N, width, ...)."""
        return self.activation(self.layers(features) + repeat_channels(features, self.width))  # type: ignore[no-any-return]


class VNet(nn.Module):
    """Residual encoder and decoder, strided and transposed convolutions in between.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel or voxel.
    """

    def __init__(self, spec: VNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.spec = spec
        widths, kernel = spec.widths, spec.kernels[0]
        self.encoder = nn.ModuleList(_encoder_stage(spec, stage, in_channels) for stage in range(len(widths)))
        self.decoder = nn.ModuleList(DecoderStage(spec, stage) for stage in range(len(widths) - 1))
        self.score_layer = spec.named_score_layer(num_outputs)
        self.head = nn.Sequential(
            _conv(spec.head_width, num_outputs, kernel),
            PReLU(num_outputs),
            _conv(num_outputs, num_outputs, (1,) * spec.dims),
        )
        initialise(self, PRELU_SLOPE)
        # Last, so that all other weights begin as without mixing.
        self.mixes_slices = spec.mixing is not None
        stages = list(enumerate(widths))
        self.mix_down = make_mixers(spec.mixing, stages[:-1], len(stages))
        stages = [(stage + 1, _width_below(spec, stage)) for stage, _ in stages[:-1]]
        self.mix_up = make_mixers(spec.mixing, stages, len(widths))

    def forward(self, images: Tensor, layout: SliceLayout | None = None) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, ...) with sizes divisible by `spec.divisor`.
            layout: Where slices are among them, for networks that mix these.

        Returns:
            (N, num_outputs, ...) in eval mode; in training mode a list with these scores and the weight 1.
        """
        skips = []
        features = images
        for stage, encoder_stage in enumerate(self.encoder):
            if stage > 0:
                features = self.mix_down[stage - 1](features, layout)
            features = self._run(encoder_stage, features)
            skips.append(features)
        for stage in range(len(self.decoder) - 1, -1, -1):
            features = self.mix_up[stage](features, layout)
            features = self._run(self.decoder[stage], features, skips[stage])
        scores = self._run(self.head, features)
        return [(scores, 1.0)] if self.training else scores

    def _run(self, part: nn.Module, *inputs: Tensor) -> Tensor:
        if self.spec.checkpointing and torch.is_grad_enabled():
            # Nothing in here is random.
            result: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
            return result
        return part(*inputs)  # type: ignore[no-any-return]


class DecoderStage(nn.Module):
    """Transposed convolution, skip connection, and convolutions on both together."""

    def __init__(self, spec: VNetSpec, stage: int) -> None:
        super().__init__()
        width, stride = spec.widths[stage], spec.strides[stage + 1]
        up = TRANSPOSED_CONV[spec.dims](_width_below(spec, stage), width, stride, stride)  # type: ignore[arg-type]
        self.up = nn.Sequential(up, make_norm(spec.norm, width, spec.dims), PReLU(width))
        num_convs = spec.decoder_blocks[-1 - stage]
        self.convs = ResidualConvs(2 * width, 2 * width, spec.kernels[stage], num_convs, spec.norm)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """(N, channels, ...) and the encoder's (N, width, larger ...) to (N, 2 width, larger ...)."""
        return self.convs(torch.cat((self.up(features), skip), 1))  # type: ignore[no-any-return]


def repeat_channels(features: Tensor, width: int) -> Tensor:
    """Repeat the channels in order, starting again from the first, until there are `width`: (N, width, ...)."""
    channels = features.shape[1]
    if channels == width:
        return features
    return torch.cat([features] * -(-width // channels), 1)[:, :width]


def _encoder_stage(spec: VNetSpec, stage: int, in_channels: int) -> nn.Module:
    width, stride = spec.widths[stage], spec.strides[stage]
    before = in_channels if stage == 0 else width
    convs = ResidualConvs(before, width, spec.kernels[stage], spec.encoder_blocks[stage], spec.norm)
    if stage == 0:
        return convs
    down = CONV[spec.dims](spec.widths[stage - 1], width, stride, stride)  # type: ignore[arg-type]
    return nn.Sequential(down, make_norm(spec.norm, width, spec.dims), PReLU(width), convs)


def _width_below(spec: VNetSpec, stage: int) -> int:
    """Count the channels that a stage of the decoder gets from the next coarser one."""
    return spec.widths[stage + 1] * (1 if stage == len(spec.widths) - 2 else 2)


def _conv(in_channels: int, out_channels: int, kernel: Sequence[int]) -> nn.Module:
    padding = tuple(size // 2 for size in kernel)
    return CONV[len(kernel)](in_channels, out_channels, tuple(kernel), 1, padding)  # type: ignore[arg-type]
