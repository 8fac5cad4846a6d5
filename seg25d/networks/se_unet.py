"""The SE-norm U-Net: residual blocks whose norm takes scale and shift from the image itself.

Iantsen et al. 2021 (iantsen/hecktor, src/layers.py and src/models.py), which Sobirov et al. 2022 train on volumes and
on super images.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.types import Sizes
from seg25d.networks.blocks import MAX_POOL, transposed_conv_3
from seg25d.networks.convolutions import CONV
from seg25d.networks.mixing import SliceLayout, make_mixers
from seg25d.networks.specs.se_unet import SEUNetSpec

FIRST_KERNEL = 7
"""Kernel size of the first convolution (iantsen/hecktor, src/models.py)."""
EPSILON = 1e-5
"""Added to variances; the default of torch.nn.InstanceNorm3d, which the reference uses."""


class SENorm(nn.Module):
    """Instance norm whose scale and shift are computed from the means of the channels.

    y = sigmoid(W2 relu(W1 m)) * x^ + tanh(W2' relu(W1' m)), where m are the means of the channels of x, and x^ is x
    with mean 0 and variance 1 per image and channel (Iantsen et al. 2021).

    Args:
        channels: Of the input.
        reduction: Factor by which there are fewer channels between W1 and W2.
        dims: 2 or 3.
    """

    undoes_layout = True
    """Images become channels of one image, which is not a view of a channels-last layout, see `Execution.place`."""

    def __init__(self, channels: int, reduction: int, dims: int) -> None:
        super().__init__()
        self.scale = _excitation(channels, reduction, dims, nn.Sigmoid())
        self.shift = _excitation(channels, reduction, dims, nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, ...) to the same shape, in the type of the input."""
        means = images.mean(tuple(range(2, images.ndim)), keepdim=True)
        scale, shift = self.scale(means), self.shift(means)
        if torch.compiler.is_exporting():  # the number of groups of a graph in ONNX is fixed, that of images is not
            exact: Tensor = torch.instance_norm(images, None, None, None, None, True, 0.0, EPSILON, False)
            return exact * scale + shift
        scale, shift = scale.flatten(), shift.flatten()
        # All images as channels of one: each has its own scale and shift, and x^ need not be kept for the backward
        # pass. Autocast would compute in float32 and double the memory; the kernel's own sums are float32 anyway.
        flat = images.reshape(1, -1, *images.shape[2:])
        with torch.autocast(images.device.type, enabled=False):
            normed = torch.group_norm(flat, flat.shape[1], scale.to(flat.dtype), shift.to(flat.dtype), EPSILON)
        return normed.reshape(images.shape)


class SEBlock(nn.Module):
    """Convolution with bias, ReLU, SE norm; the size stays.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Odd kernel size per axis; its length says whether the block is 2D or 3D.
        reduction: Of the SE norm.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sizes, reduction: int) -> None:
        super().__init__()
        dims = len(kernel)
        padding = tuple(size // 2 for size in kernel)
        self.conv = CONV[dims](in_channels, out_channels, kernel, 1, padding)  # type: ignore[arg-type]
        self.norm = SENorm(out_channels, reduction, dims)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, ...) to (N, out_channels, ...)."""
        return self.norm(functional.relu(self.conv(images), inplace=True))  # type: ignore[no-any-return]


class SEResidualBlock(nn.Module):
    """A block and a shortcut, which is a block of size 1 where the number of channels changes."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sizes, reduction: int) -> None:
        super().__init__()
        self.block = SEBlock(in_channels, out_channels, kernel, reduction)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else SEBlock(in_channels, out_channels, (1,) * len(kernel), reduction)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, ...) to (N, out_channels, ...)."""
        return self.block(images) + self.shortcut(images)  # type: ignore[no-any-return]


class SEUNet(nn.Module):
    """Encoder of residual blocks, decoder with skip connections, and "vision" paths.

    A vision path carries the output of a coarse decoder stage to the finest one: to `width` channels, then up to full
    size with linear interpolation; it is added between the finest stage's two blocks.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel or voxel.
    """

    score_layer: ClassVar[str] = SEUNetSpec.score_layer

    def __init__(self, spec: SEUNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.spec = spec
        widths, kernels, reduction = spec.widths, spec.kernels, spec.reduction
        inputs = (in_channels, *widths[:-1])
        below = range(len(widths) - 1)
        ones = (1,) * spec.dims
        self.encoder = nn.ModuleList(_encoder_stage(spec, stage, inputs[stage]) for stage in range(len(widths)))
        self.ups = nn.ModuleList(
            transposed_conv_3(widths[stage + 1], widths[stage], spec.strides[stage + 1]) for stage in below
        )
        self.first = nn.ModuleList(
            SEBlock(2 * widths[stage], widths[stage], kernels[stage], reduction) for stage in below
        )
        self.second = nn.ModuleList(SEBlock(widths[stage], widths[stage], kernels[stage], reduction) for stage in below)
        self.visions = nn.ModuleList(SEBlock(widths[stage], spec.width, ones, reduction) for stage in below[1:])
        self.head = CONV[spec.dims](spec.width, num_outputs, 1)
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
            (N, num_outputs, ...) in eval mode; in training mode a list with these scores and the weight 1.
        """
        skips = []
        features = images
        for stage, encoder_stage in enumerate(self.encoder):
            if stage > 0:
                features = self.mix_down[stage - 1](features, layout)
            features = encoder_stage(features)
            skips.append(features)
        vision: Tensor | None = None
        for stage in range(len(self.ups) - 1, -1, -1):
            features = self.mix_up[stage](features, layout)
            features = self.first[stage](torch.cat((self.ups[stage](features), skips[stage]), 1))
            if stage == 0 and vision is not None:
                features = features + vision
            features = self.second[stage](features)
            if stage > 0:
                enlarged = enlarge(self.visions[stage - 1](features), images.shape[2:])
                vision = enlarged if vision is None else vision + enlarged
        scores: Tensor = self.head(features)
        return [(scores, 1.0)] if self.training else scores


def _excitation(channels: int, reduction: int, dims: int, gate: nn.Module) -> nn.Module:
    squeezed = channels // reduction
    layer = CONV[dims]
    return nn.Sequential(layer(channels, squeezed, 1), nn.ReLU(inplace=True), layer(squeezed, channels, 1), gate)


def _encoder_stage(spec: SEUNetSpec, stage: int, in_channels: int) -> nn.Module:
    width, kernel, stride = spec.widths[stage], spec.kernels[stage], spec.strides[stage]
    layers: list[nn.Module] = []
    if max(stride) > 1:
        layers.append(MAX_POOL[spec.dims](stride, stride))
    sizes = [_widen(kernel, FIRST_KERNEL), kernel] if stage == 0 else [_widen(kernel, spec.encoder_kernel)] * 3
    for index, size in enumerate(sizes):
        layers.append(SEResidualBlock(in_channels if index == 0 else width, width, size, spec.reduction))
    return nn.Sequential(*layers)


def _widen(kernel: Sizes, size: int) -> Sizes:
    """The kernel with `size` in place of 3."""
    return tuple(size if now == 3 else now for now in kernel)


def enlarge(features: Tensor, size: torch.Size) -> Tensor:
    """Linear interpolation (align_corners False) in the type of the input, which autocast on CPUs would change."""
    mode = "bilinear" if features.ndim == 4 else "trilinear"
    with torch.autocast(features.device.type, enabled=False):
        return functional.interpolate(features, size=tuple(size), mode=mode, align_corners=False)
