"""The SE-norm U-Net: residual blocks whose norm takes scale and shift from the image itself.

Iantsen et al. 2021 (iantsen/hecktor, src/layers.py and src/models.py), which Sobirov et al. 2022 train on volumes and
on super images.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.limits import Width
from seg25d.networks.blocks import MAX_POOL, Topology, check_stages, transposed_conv_3
from seg25d.networks.convolutions import CONV, Sizes

FIRST_KERNEL = 7
"""Kernel size of the first convolution (iantsen/hecktor, src/models.py)."""
EPSILON = 1e-5
"""Added to variances; the default of torch.nn.InstanceNorm3d, which the reference uses."""


class SEUNetSpec(Topology):
    """All settings of an SE-norm U-Net; `strides` are those of max pooling, `kernels` 3, or 1 to leave an axis alone.

    The published network has five stages with strides of 2. Parameters with 2 channels in and 1 out: 8,508,001 in 2D,
    21,751,681 in 3D, 28,092,001 in 2D with `encoder_kernel` 7; the 8.51, 21.75 and 28.09 M of Sobirov et al., Table 1.
    """

    score_layer: ClassVar[str] = "head"
    """The convolution of single pixels or voxels whose output is the scores: prediction makes them in parts."""
    name: Literal["se_unet"] = "se_unet"
    width: Width = 24
    """Channels of the first stage; they double from stage to stage."""
    reduction: Width = 2
    """Factor by which the squeezed description of an image has fewer channels."""
    encoder_kernel: Literal[3, 7] = 3
    """Kernel size that replaces a 3 in `kernels` in the encoder below the first stage. 7: the "kernel 7" of Sobirov et
    al., placed in the simplest way that gives the published count."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        check_stages(self.strides, self.kernels)
        if any(size not in (1, 3) for kernel in self.kernels for size in kernel):
            raise ValueError("kernels must be 1 or 3; larger ones are chosen with encoder_kernel")
        if self.width % self.reduction:
            raise ValueError(f"width must be divisible by reduction, got {self.width} and {self.reduction}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.strides)))

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return "-".join(map(str, self.widths)) + (" k7" if self.encoder_kernel == 7 else "")

    def build(self, in_channels: int, num_outputs: int) -> "SEUNet":
        """Make the network with fresh weights from torch's global generator, with PyTorch's initialisation."""
        return SEUNet(self, in_channels, num_outputs)


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
            normed: Tensor = torch.instance_norm(images, None, None, None, None, True, 0.0, EPSILON, False)
            result: Tensor = normed * scale + shift
            return result
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

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, ...) with sizes divisible by `spec.divisor`.

        Returns:
            (N, num_outputs, ...) in eval mode; in training mode a list with these scores and the weight 1.
        """
        skips = []
        features = images
        for encoder_stage in self.encoder:
            features = encoder_stage(features)
            skips.append(features)
        vision: Tensor | None = None
        for stage in range(len(self.ups) - 1, -1, -1):
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
