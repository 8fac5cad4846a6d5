"""Convolutions in 2D and 3D, plain and transposed, that are right and fast on CPUs; elsewhere they are torch's.

Right: five rules keep clear of what oneDNN (3.12 in torch 2.13) gets wrong on CPUs, with numbers of 16 bits above all
and whatever their instruction sets (documentation/concepts/processors.md has the faults, and how each shows):

1. A kernel that lies nowhere inside the image, along some axis, computes in float32, and the zeros around the image
   are real ones. In 16 bits oneDNN's gradients of such weights depend on memory that was freed. In float32 it hangs or
   writes beyond its memory where such a kernel steps along the depth, and crashes where one sees zeros alone: there
   they are real ones, too. Such images are small, so this costs next to nothing.
2. The gradient of a 3D kernel is put together from those of its slices, which are kernels of 2D convolutions: the depth
   of the volume becomes part of the batch. oneDNN's 3D weight gradient, which overwrites foreign memory on CPUs with
   AMX, is never called.
3. Kernels of one pixel or voxel that step over others see images without these, in every type: oneDNN's weight
   gradient of such steps writes beyond its memory where few channels lie side by side (its issue 6035; here
   `jit_bf16_1x1:avx512_core_bf16` with 7 channels of 4 x 13 pixels and strides of 2 and 1).
4. A single channel counts as one plane after another, in every type: strides that call it channels side by side mean
   the same, but torch's forward pass then left results unwritten (seen with 3 x 1 x 7 x 3 pixels, kernel and stride
   (1, 2), in float32 and 16 bits).
5. What no network here has computes in float32: padding by a word or by other values than zero, output padding as
   large as the stride, groups that are not single channels (oneDNN multiplies what lies behind the image by zero: NaN,
   if it is that). Transposed kernels that step further than they reach, at which oneDNN crashes in every type, are
   refused.

Fast: where the processor has no instructions for numbers of 16 bits, their products are float32's: torch would imitate
each step. In float32, 3D convolutions go to oneDNN in the ways that `_OneDNNConv3d` says.

Letters: N volumes in a batch, C channels, D H W their sizes, h w the sizes of an image.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seg25d.core.device import computes_on_x86, computes_with_avx2
from seg25d.core.types import Sizes

HALF_TYPES = (torch.bfloat16, torch.float16)
_IMITATED = {
    *([torch.bfloat16] if torch._C._has_mkldnn and not torch.ops.mkldnn._is_mkldnn_bf16_supported() else []),
    *([torch.float16] if torch._C._has_mkldnn and not torch.ops.mkldnn._is_mkldnn_fp16_supported() else []),
}
"""Types for which oneDNN is there, but has no instructions on this processor."""


def computing_type(features: Tensor) -> torch.dtype:
    """The type that torch gives to what goes into a convolution: autocast's, if that is on and lowers its own."""
    device = features.device.type
    lowered = torch.is_autocast_enabled(device) and features.dtype != torch.float64
    return torch.get_autocast_dtype(device) if lowered else features.dtype


def computes_on_cpu(images: Tensor) -> bool:
    """Whether images are on the CPU and have data; those without, by which memory is planned, stand for a GPU's."""
    return images.device.type == "cpu" and type(images) is Tensor


class _Settings(NamedTuple):
    """Settings of a convolution, in the order of torch.convolution."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    transposed: bool
    output_padding: Sizes
    groups: int


class _CPUConvolution(nn.modules.conv._ConvNd):
    """Common part of plain and transposed convolutions on CPUs."""

    def _convolve(self, images: Tensor, output_padding: Sizes, by_torch: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, in_channels, *sizes) to (N, out_channels, *sizes).

        Args:
            images: On the CPU, with data.
            output_padding: Of a transposed convolution; else zeros.
            by_torch: torch's own way.
        """
        images = _single_channel_as_planes(images)
        dtype, padding = computing_type(images), self.padding
        # Types that do not fit together are torch's to refuse.
        half = dtype in HALF_TYPES and computing_type(self.weight) == dtype
        if isinstance(padding, str) or self.padding_mode != "zeros":
            return self._in_float32(images).to(dtype) if half else by_torch(images)
        if self.transposed and any(map(operator.gt, self.stride, self._extents())):
            raise ValueError(f"a transposed convolution must reach as far as it steps: {self}")
        settings = _Settings(self.stride, padding, self.dilation, self.transposed, output_padding, self.groups)
        steps_over_pixels = not self.transposed and set(self.kernel_size) == {1} and max(self.stride) > 1
        if steps_over_pixels:
            images, settings = _select_pixels(images, settings)
        if not half:
            if self._is_fatal(images, settings):
                return _with_real_zeros(images, self.weight, self.bias, settings)
            return (
                torch.convolution(images, self.weight, self.bias, *settings) if steps_over_pixels else by_torch(images)
            )
        with torch.autocast("cpu", enabled=False):
            if self._needs_float32(images, settings):
                bias = None if self.bias is None else self.bias.float()
                return _with_real_zeros(images.float(), self.weight.float(), bias, settings).to(dtype)
            low, weight = images.to(dtype), self.weight.to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            if self.transposed or images.dim() == 5:
                return _HalfConvolution.apply(low, weight, bias, settings)  # type: ignore[no-any-return, no-untyped-call]
            return _convolution(low, weight, bias, settings)

    def _in_float32(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            exact = {name: parameter.float() for name, parameter in self.named_parameters()}
            return torch.func.functional_call(self, exact, images.float())  # type: ignore[no-any-return]

    def _needs_float32(self, images: Tensor, settings: _Settings) -> bool:
        # With more output padding the result would give a plain convolution more than went in.
        irreversible = any(more >= step for more, step in zip(settings.output_padding, self.stride, strict=True))
        in_few_groups = 1 < self.groups < max(self.in_channels, self.out_channels)
        unusual = irreversible or in_few_groups
        return unusual or self._sees_only_zeros(settings) or any(self._never_fits_inside(images, settings))

    def _is_fatal(self, images: Tensor, settings: _Settings) -> bool:
        """Whether oneDNN fails in float32, too."""
        steps_along_depth = images.dim() == 5 and settings.stride[0] > 1
        return self._sees_only_zeros(settings) or (steps_along_depth and self._never_fits_inside(images, settings)[0])

    def _extents(self) -> Sizes:
        return tuple(step * (size - 1) + 1 for size, step in zip(self.kernel_size, self.dilation, strict=True))

    def _sees_only_zeros(self, settings: _Settings) -> bool:
        """Whether there is so much padding that the kernel, at the corners, meets zeros alone."""
        return any(before >= extent for before, extent in zip(settings.padding, self._extents(), strict=True))

    def _never_fits_inside(self, images: Tensor, settings: _Settings) -> list[bool]:
        """Whether the kernel is at no place wholly inside the image, per axis; a transposed one: its result."""
        found = []
        axes = zip(images.shape[2:], self._extents(), *settings[:2], settings.output_padding, strict=True)
        for size, extent, step, before, further in axes:
            seen = (size - 1) * step - 2 * before + extent + further if self.transposed else size
            found.append(seen < extent + -before % step)
        return found


def _convolution(images: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    """A convolution in 16 bits, with the products of float32 where the processor has no instructions for such."""
    if images.dtype not in _IMITATED:
        return torch.convolution(images, weight, bias, *settings)
    exact = torch.convolution(images.float(), weight.float(), None if bias is None else bias.float(), *settings)
    return exact.to(images.dtype)


def _with_real_zeros(images: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    """A convolution without padding of images that have it; a transposed one whose result is cut to size."""
    padding, dims = settings.padding, len(settings.padding)
    without = settings._replace(padding=(0,) * dims)
    if not settings.transposed:
        return torch.convolution(_with_zeros_around(images, padding), weight, bias, *without)
    result = torch.convolution(images, weight, bias, *without)
    inner = (slice(before, size - before) for before, size in zip(padding, result.shape[2:], strict=True))
    return result[:, :, *inner]


def _select_pixels(images: Tensor, settings: _Settings) -> tuple[Tensor, _Settings]:
    """Select the pixels that a kernel of one pixel meets, and settings with which it meets all of them."""
    every = tuple(slice(None, None, step) for step in settings.stride)
    met = _with_zeros_around(images, settings.padding)[(slice(None), slice(None), *every)]
    return met, settings._replace(stride=(1,) * len(every), padding=(0,) * len(every))


def _with_zeros_around(images: Tensor, padding: Sizes) -> Tensor:
    return functional.pad(images, [before for before in reversed(padding) for _ in range(2)])


class Conv2d(_CPUConvolution, nn.Conv2d):
    """A 2D convolution that is right on CPUs."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, ...)."""
        return self._convolve(images, (0, 0), super().forward) if computes_on_cpu(images) else super().forward(images)


class ConvTranspose2d(_CPUConvolution, nn.ConvTranspose2d):
    """A transposed 2D convolution that is right on CPUs."""

    def forward(self, images: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, ...)."""
        assert output_size is None, "sizes follow from stride and output_padding"
        if not computes_on_cpu(images):
            return super().forward(images)
        return self._convolve(images, self.output_padding, super().forward)


class ConvTranspose3d(_CPUConvolution, nn.ConvTranspose3d):
    """A transposed 3D convolution that is right on CPUs."""

    def forward(self, volumes: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, D, H, W) to (N, out_channels, ...)."""
        assert output_size is None, "sizes follow from stride and output_padding"
        if not computes_on_cpu(volumes):
            return super().forward(volumes)
        return self._convolve(volumes, self.output_padding, super().forward)


class Conv3d(_CPUConvolution, nn.Conv3d):
    """A 3D convolution that is right and fast on CPUs."""

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, in_channels, D, H, W) to (N, out_channels, ...)."""
        if not computes_on_cpu(volumes):
            return super().forward(volumes)
        return self._convolve(volumes, (0, 0, 0), self._convolve_by_torch)

    def _convolve_by_torch(self, volumes: Tensor) -> Tensor:
        """Scores by torch, or by oneDNN where torch would take slow kernels."""
        if not (self._is_plain() and _is_plain_float32(volumes, self.weight) and self._is_slow(volumes)):
            return super().forward(volumes)
        return _OneDNNConv3d.apply(volumes, self.weight, self.bias, self.stride, self.padding)  # type: ignore[no-any-return, no-untyped-call]

    def _is_plain(self) -> bool:
        filled_with_zeros = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return filled_with_zeros and self.groups == 1 and set(self.dilation) == {1}

    def _is_slow(self, volumes: Tensor) -> bool:
        left_alone = _is_left_alone(volumes) and max(self.kernel_size[1:]) <= 3 and max(self.kernel_size) > 1
        return left_alone or (computes_with_avx2() and any(self.padding))


class _HalfConvolution(torch.autograd.Function):
    """A convolution in bfloat16 or float16, of 3D or transposed, whose gradients come from plain convolutions.

    That of the weight is a matter of 2D convolutions, that of what goes into a transposed one a plain convolution.
    """

    @staticmethod
    def forward(context: Any, volumes: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
        context.save_for_backward(volumes, weight)
        context.settings = settings
        return _convolution(volumes, weight, bias, settings)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        volumes, weight = context.saved_tensors
        half = volumes.dtype
        if half in _IMITATED:
            gradient, volumes, weight = gradient.float(), volumes.float(), weight.float()
        settings: _Settings = context.settings
        wants_volumes, wants_weight, wants_bias, _ = context.needs_input_grad
        of_volumes = of_weight = of_bias = None
        if wants_volumes and settings.transposed:
            plain = settings._replace(transposed=False, output_padding=(0,) * len(settings.padding))
            of_volumes = torch.convolution(_single_channel_as_planes(gradient), weight, None, *plain)
        elif wants_volumes:
            of_volumes, _, _ = torch.ops.aten.convolution_backward(
                gradient, volumes, weight, None, *settings, (True, False, False)
            )
        if wants_weight:
            # A transposed convolution is the way back of a plain one from its result to its input.
            start, end = (gradient, volumes) if settings.transposed else (volumes, gradient)
            of_weight = _weight_gradient(start, end, weight, settings)
        if wants_bias:
            of_bias = gradient.sum((0, *range(2, gradient.dim())))
        return *(None if each is None else each.to(half) for each in (of_volumes, of_weight, of_bias)), None


def _weight_gradient(volumes: Tensor, gradient: Tensor, weight: Tensor, settings: _Settings) -> Tensor:
    """The gradient of a convolution's weight; of a 3D one's slice by slice of the kernel.

    A slice of the kernel meets, for each slice of the result, one slice of the volume: this is a 2D convolution of
    slices, and its weight gradient the one that is looked for.

    Args:
        volumes: (N, C, D, H, W) or (N, C, h, w), the input.
        gradient: (N, C', D', H', W') or (N, C', h', w'), of the result.
        weight: (C', C / groups, *kernel), for its shape and type.
        settings: Of the convolution from `volumes` to the result; what they say of transposition does not count.

    Returns:
        (C', C / groups, *kernel).
    """
    if volumes.dim() == 4:
        plain = settings._replace(transposed=False, output_padding=(0, 0))
        of_weight: Tensor = torch.ops.aten.convolution_backward(
            gradient, _single_channel_as_planes(volumes), weight, None, *plain, (False, True, False)
        )[1]
        return of_weight
    volumes, gradient = _channels_last(volumes), _channels_last(gradient)
    (step, *steps), (padding, *paddings), (dilation, *dilations) = settings[:3]
    if weight.shape[3:] == (1, 1) and not any(paddings):
        volumes, steps = volumes[:, :, :: steps[0], :: steps[1]], [1, 1]
    of_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    for index in range(weight.shape[2]):
        # Slice z of the result meets slice z * step + offset of the volume, where there is one.
        offset = index * dilation - padding
        first = max(0, -(offset // step))
        last = min(gradient.shape[1] - 1, (volumes.shape[1] - 1 - offset) // step)
        if first > last:
            continue
        met = volumes[:, first * step + offset : last * step + offset + 1 : step]
        _, of_slice, _ = torch.ops.aten.convolution_backward(
            _as_images(gradient[:, first : last + 1]),
            _as_images(met),
            weight[:, :, index],
            *(None, steps, paddings, dilations, False, (0, 0), settings.groups, (False, True, False)),
        )
        of_weight[:, :, index] = of_slice
    return of_weight


def _single_channel_as_planes(images: Tensor) -> Tensor:
    """(N, 1, *sizes) with the strides of the usual layout; more channels as they are."""
    return images.contiguous()[:, 0].unsqueeze(1) if images.shape[1] == 1 else images


def _channels_last(volumes: Tensor) -> Tensor:
    """(N, C, D, H, W) to (N, D, H, W, C) with the channels of a voxel side by side: once, not for every slice."""
    return volumes.permute(0, 2, 3, 4, 1).contiguous()


def _as_images(volumes: Tensor) -> Tensor:
    """(N, D, H, W, C) to (N * D, C, H, W)."""
    return _single_channel_as_planes(volumes.flatten(0, 1).permute(0, 3, 1, 2))


def _is_plain_float32(volumes: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can be called for them, and torch would call nothing faster."""
    exact = volumes.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    compiling = torch.compiler.is_compiling()
    return exact and not compiling and bool(torch.backends.mkldnn.enabled) and computes_on_x86()


def _is_left_alone(volumes: Tensor) -> bool:
    """Whether torch leaves volumes in float32 to a kernel of its own (aten/src/ATen/native/Convolution.cpp)."""
    return volumes.shape[0] == 1 and volumes.shape[:4].numel() <= 20480


class _OneDNNConv3d(torch.autograd.Function):
    """A 3D convolution by oneDNN, whose weight gradient is that of an input which was filled up with zeros before.

    torch leaves one small volume to a kernel of its own that takes ten times as long: 98 against 11 ms for 1 x 32 x 20
    x 28 x 20 to 32 channels, 239 against 59 ms for the gradients (one core with AVX2).

    On CPUs with AVX2 oneDNN has a fast kernel for weight gradients only where nothing is to be filled up (milliseconds
    for 2 x 16 x 40 x 56 x 40 to 16 channels with kernels of 3, two cores, channels last: 35 against 39; 8 to 8: 6
    against 16; 16 to 3: 19 against 32).
    """

    @staticmethod
    def forward(
        context: Any, volumes: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes
    ) -> Tensor:
        context.save_for_backward(volumes, weight)
        context.stride, context.padding = stride, padding
        return torch.mkldnn_convolution(volumes, weight, bias, padding, stride, (1, 1, 1), 1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        volumes, weight = context.saved_tensors
        wants_volumes, wants_weight, wants_bias, _, _ = context.needs_input_grad
        of_volumes = of_weight = of_bias = None
        if wants_volumes:
            of_volumes, _, _ = _gradients(
                gradient, volumes, weight, context.stride, context.padding, (True, False, False)
            )
        if wants_weight or wants_bias:
            both_sides = [size for size in reversed(context.padding) for _ in range(2)]
            filled_up = functional.pad(volumes, both_sides) if any(both_sides) else volumes
            _, of_weight, of_bias = _gradients(
                gradient, filled_up, weight, context.stride, (0, 0, 0), (False, True, wants_bias)
            )
        return of_volumes, of_weight, of_bias, None, None


def _gradients(
    gradient: Tensor, volumes: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients of volumes, weight and bias, where wanted, by oneDNN."""
    if _is_left_alone(volumes):
        # torch has no other way to say so.
        gradient, volumes = gradient.to_mkldnn(), volumes.to_mkldnn()
    bias_sizes = weight.shape[:1]
    found = torch.ops.aten.convolution_backward(
        *(gradient, volumes, weight, bias_sizes, stride, padding, (1, 1, 1), False, (0, 0, 0), 1), wanted
    )
    return [None if each is None else each.to_dense() for each in found]


CONV: dict[int, type[Conv2d] | type[Conv3d]] = {2: Conv2d, 3: Conv3d}
TRANSPOSED_CONV: dict[int, type[ConvTranspose2d] | type[ConvTranspose3d]] = {2: ConvTranspose2d, 3: ConvTranspose3d}
"""Transposed convolutions by the number of spatial axes."""


def replace_convolutions(network: nn.Module) -> None:
    """Make all of a network's convolutions ours, which have the same weights, where another library built it."""
    ours = {kind.__bases__[1]: kind for kind in (*CONV.values(), *TRANSPOSED_CONV.values())}
    for layer in network.modules():
        layer.__class__ = ours.get(type(layer), type(layer))
