"""The layers that the networks share, in 2D and 3D.

Letters: N images or volumes in a batch, C channels, `dims` 2 or 3 spatial axes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seg25d.core.types import Sizes
from seg25d.networks.convolutions import (
    CONV,
    HALF_TYPES,
    TRANSPOSED_CONV,
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    ConvTranspose3d,
    computes_on_cpu,
    computing_type,
)
from seg25d.networks.specs.topology import ActivationName, NormName

ROW_LENGTH = 1024
"""Maximum number of values in a row of voxels whose channels are adjacent in memory."""
CONVOLUTIONS = (Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d)


class PReLU(nn.PReLU):
    """A ReLU with a learnt slope per channel for negative values, and a faster gradient on CPUs.

    PyTorch's own is not vectorised there: 24 ms against 5 ms for 2 x 16 x 40 x 56 x 40 values forward and backward in
    bfloat16, 19 against 6 in float32 (one core with AVX512-BF16, torch 2.13); it was a fifth of a V-Net's training.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, *spatial) to the same shape; in autocast's type where that is on, as torch's own."""
        if features.device.type != "cpu" or torch.compiler.is_exporting():
            return functional.prelu(features, self.weight.to(features.dtype))
        seen, slope = (each.to(computing_type(each)) for each in (features, self.weight))
        with torch.autocast("cpu", enabled=False):
            if _is_channels_last(seen):
                return _channels_last_prelu(seen, slope)
            return _CPUPReLU.apply(seen, slope)  # type: ignore[no-any-return, no-untyped-call]


def _channels_last_prelu(features: Tensor, slope: Tensor) -> Tensor:
    """Apply a PReLU to (N, C, *spatial) with the channels of a voxel adjacent in memory; the shape stays.

    Several adjacent voxels form one row, with as many slopes: a loop over a row is then long enough for vectors. In
    bfloat16 4.9 ms in place of 29 ms, forward and backward, for 2 x 16 x 40 x 56 x 40 values (one core, AVX512-BF16).
    """
    order = (0, *range(2, features.dim()), 1)
    values = features.permute(order)
    channels = features.shape[1]
    together = math.gcd(features.numel() // channels, max(1, ROW_LENGTH // channels))
    rows: Tensor = _CPUPReLU.apply(values.reshape(-1, together * channels), slope.repeat(together))  # type: ignore[no-untyped-call]
    return rows.view(values.shape).permute(0, -1, *range(1, features.dim() - 1))


class _CPUPReLU(torch.autograd.Function):
    """PReLU whose gradient uses vectorised operations; saves only its input."""

    @staticmethod
    def forward(context: Any, features: Tensor, slope: Tensor) -> Tensor:
        context.save_for_backward(features, slope)
        return torch.prelu(features, slope)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        features, slope = context.saved_tensors
        per_channel = slope.reshape(-1, *(1,) * (features.dim() - 2))
        of_slope = features.clamp(max=0).mul_(gradient)
        of_slope = of_slope.sum(0) if features.dim() == 2 else of_slope.flatten(2).sum((0, 2))
        of_positive = torch.ops.aten.threshold_backward(gradient, features, 0)
        return of_positive.lerp_(gradient, per_channel.expand_as(gradient)), of_slope


def _is_channels_last(images: Tensor) -> bool:
    """Whether the channels of a pixel or voxel are adjacent in memory, instead of the pixels of a channel."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return (
        images.dim() in layouts
        and not images.is_contiguous()
        and images.is_contiguous(memory_format=layouts[images.dim()])
    )


BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class InstanceNorm(nn.GroupNorm):
    """Instance norm with learnt scale and shift, as a group norm with one channel per group.

    The mathematics and the parameters are those of `nn.InstanceNorm2d/3d`, but PyTorch's CPU kernel for it reads every
    layout without a copy (two cores, 160 x 32 x 56 x 40, two conv blocks forward and backward: 0.32 s against 0.42 s
    channels-last, 0.38 s against 0.48 s contiguous, float32).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, ...) to the same shape, in the type of the input.

        CUDA's autocast would compute in float32, which doubles the memory of a training step (128^3 windows, batch 2:
        9.1 against 4.4 GB, traced); the kernel's own sums are float32 anyway. On CPUs weights stay in float32, which
        only CPUs take: rounded ones had gradients that were wrong by a sixth.

        CUDA's kernel takes the usual layout only, up to torch 2.13. Later ones also read channels-last, block by block
        of threads for each group, which is slow where a group is one channel (github.com/pytorch/pytorch/pull/194616).
        """
        if torch.compiler.is_exporting():  # ONNX has the whole norm as one operator
            return torch.instance_norm(images, self.weight, self.bias, None, None, True, 0.0, self.eps, False)
        with torch.autocast(images.device.type, enabled=False):
            weight: Tensor = self.weight
            bias: Tensor = self.bias
            on_cpu = computes_on_cpu(images)
            if not on_cpu and images.dtype in HALF_TYPES and weight.dtype == torch.float32:
                weight, bias = weight.to(images.dtype), bias.to(images.dtype)
            if images.device.type == "cuda":
                return functional.group_norm(images.contiguous(), self.num_groups, weight, bias, self.eps)
            if on_cpu and torch.is_grad_enabled() and _is_channels_last(images):
                return _ChannelsLastNorm.apply(images, weight, bias, self.eps)  # type: ignore[no-any-return, no-untyped-call]
            return functional.group_norm(images, self.num_groups, weight, bias, self.eps)


class _ChannelsLastNorm(torch.autograd.Function):
    """Instance norm whose gradient is that of a batch norm of each image, which is vectorised in channels-last layouts.

    Milliseconds forward and backward for 2 x 16 x 40 x 56 x 40 values on two cores with AVX2: 7 against 27.
    """

    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        num_images, channels = images.shape[:2]
        num_pixels = images.shape[2:].numel()
        result, mean, inverse_deviation = torch.native_group_norm(
            images, weight, bias, num_images, channels, num_pixels, channels, epsilon
        )
        context.save_for_backward(images, weight, mean, inverse_deviation)
        context.epsilon = epsilon
        return result

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        images, weight, mean, inverse_deviation = context.saved_tensors
        parts = zip(torch.split(gradient, 1), torch.split(images, 1), mean, inverse_deviation, strict=True)
        of_images, of_weights, of_biases = zip(
            *(
                torch.ops.aten.native_batch_norm_backward(
                    *(of_result, image, weight, None, None, *statistics, True, context.epsilon), [True, True, True]
                )
                for of_result, image, *statistics in parts
            ),
            strict=True,
        )
        # Autocast refuses to concatenate images of its other type.
        with torch.autocast(gradient.device.type, enabled=False):
            return torch.cat(of_images), sum(of_weights), sum(of_biases), None


def make_norm(name: NormName, channels: int, dims: int) -> nn.Module:
    """A normalisation with learnt scale and shift, or none."""
    if name == "instance":
        return InstanceNorm(channels)
    if name == "batch":
        return BATCH_NORM[dims](channels)
    return nn.Identity()


def make_activation(name: ActivationName) -> nn.Module:
    """A non-linearity that works in place; the slope of the leaky one is nnU-Net's, 0.01."""
    return nn.LeakyReLU(0.01, inplace=True) if name == "leaky_relu" else nn.ReLU(inplace=True)


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation; padded so that stride 1 keeps the size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Odd kernel size per axis; its length says whether the block is 2D or 3D.
        stride: Stride per axis.
        norm: Name of the normalisation.
        activation: Name of the non-linearity, or None for none.
        bias: Whether the convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sizes,
        stride: Sizes | None = None,
        norm: NormName = "instance",
        activation: ActivationName | None = "leaky_relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        dims = len(kernel)
        padding = tuple(size // 2 for size in kernel)
        strides = stride or (1,) * dims
        self.conv = CONV[dims](in_channels, out_channels, kernel, strides, padding, bias=bias)  # type: ignore[arg-type]
        self.norm = make_norm(norm, out_channels, dims)
        self.activation = make_activation(activation) if activation else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, ...) to (N, out_channels, ...)."""
        return self.activation(self.norm(self.conv(images)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, added before the last activation (He et al. 2016, as in nnU-Net's ResEnc).

    The shortcut is the input; where the size or the number of channels changes it is max-pooled and projected.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sizes,
        stride: Sizes | None = None,
        norm: NormName = "instance",
        activation: ActivationName = "leaky_relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        dims = len(kernel)
        self.first = ConvBlock(in_channels, out_channels, kernel, stride, norm, activation, bias)
        self.second = ConvBlock(out_channels, out_channels, kernel, None, norm, None, bias)
        shortcut: list[nn.Module] = []
        if stride and max(stride) > 1:
            shortcut.append(MAX_POOL[dims](stride, stride))
        if in_channels != out_channels:
            shortcut.append(ConvBlock(in_channels, out_channels, (1,) * dims, None, norm, None, False))
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = make_activation(activation)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, ...) to (N, out_channels, ...)."""
        return self.activation(self.second(self.first(images)) + self.shortcut(images))  # type: ignore[no-any-return]


def initialise(module: nn.Module, slope: float = 0.01) -> None:
    """He initialisation of all convolutions for a leaky ReLU of this slope, biases zero (as nnU-Net does)."""
    for layer in module.modules():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.kaiming_normal_(layer.weight, a=slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_glorot(module: nn.Module) -> None:
    """Glorot's uniform initialisation of all convolutions, biases zero (as Keras does unless told otherwise)."""
    for layer in module.modules():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def transposed_conv_3(in_channels: int, out_channels: int, stride: Sizes) -> nn.Module:
    """A transposed convolution of size 3 that multiplies the size by `stride`, which may be 1 along an axis."""
    padding = tuple(step - 1 for step in stride)
    return TRANSPOSED_CONV[len(stride)](in_channels, out_channels, 3, stride, 1, padding)  # type: ignore[arg-type]
