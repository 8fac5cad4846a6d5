"""Random layers in a type of 16 bits (or float32) against exact ones: results and all gradients.

What is compared is the relative distance of two tensors, |a - b| / |b| by Euclidean norms.
"""

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.networks.blocks import InstanceNorm, PReLU, make_norm
from seg25d.networks.convolutions import CONV, TRANSPOSED_CONV, Conv2d, ConvTranspose3d
from seg25d.networks.se_unet import enlarge
from seg25d.networks.swin_unetr import LayerNorm

LIMITS = {torch.float32: 2e-3, torch.bfloat16: 0.03, torch.float16: 0.01}
"""Relative distances above these are wrong. bfloat16 rounds to one part in 256, float16 and GPUs' TF32 to one
in 2048; right layers stay below a third of the limit, and wrong ones are off by 1 and more, or NaN."""
MOST_NUMBERS = 4_000_000
"""Maximum number of values in a tensor of a trial, which then takes milliseconds."""
LARGEST = {2: 700, 3: 170}
"""Voxels along an axis, by the number of axes."""
CHANNELS = (1, 2, 3, 7, 8, 16, 32, 64)
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
POOLS: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
RUBBISH = tuple(1 << power for power in range(6, 21))
"""Sizes of tensors of NaN that are freed before each trial: a layer that reads freed memory shows it."""


class Trial(NamedTuple):
    """A layer and what it is to compute on."""

    words: str
    """Name of the trial in messages."""
    layer: nn.Module
    """float32, on the CPU."""
    images: Tensor
    """(N, C, *sizes) float32, on the CPU."""
    behind: bool
    """Whether the images come in the tested type, as behind a convolution, or in float32."""


class _Enlarged(nn.Module):
    """Linear interpolation to other sizes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = torch.Size(sizes)

    def forward(self, images: Tensor) -> Tensor:
        return enlarge(images, self.sizes)


class _ChannelsNorm(LayerNorm):
    """Layer norm over channels, as transformers have it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.movedim(1, -1)).movedim(-1, 1)


def random_convolutions(dims: int, rng: random.Random, *, transposed: bool) -> Iterator[Trial]:
    """Endless: kernels of 1 to 7, also larger than the image, strides of 1 and 2, any sizes, all or single channels."""
    while True:
        channels, width = rng.choice(CHANNELS), rng.choice(CHANNELS)
        stride = tuple(rng.choice((1, 1, 1, 2)) for _ in range(dims))
        kernel = tuple(rng.choice((1, 2, 3, 3, 3, 5, 7)) for _ in range(dims))
        if transposed and rng.random() < 0.5:
            kernel = stride  # as networks have it
        if transposed:
            kernel = tuple(map(max, kernel, stride))
        padding = tuple(rng.randint(0, size // 2) for size in kernel)
        sizes = _random_sizes(rng, dims, max(channels, width) * (math.prod(stride) if transposed else 1))
        ends = zip(sizes, kernel, stride, padding, strict=True)
        if any(_result_size(*each, transposed) < 1 for each in ends):
            continue
        groups = rng.choice((1, 1, 1, math.gcd(channels, width)))
        settings = {"stride": stride, "padding": padding, "groups": groups, "bias": rng.random() < 0.8}
        kind = (TRANSPOSED_CONV if transposed else CONV)[dims]
        layer = kind(channels, width, kernel, **settings)  # type: ignore[arg-type]
        yield _trial(str(layer), layer, rng, (channels, *sizes))


def random_other_layers(rng: random.Random) -> Iterator[Trial]:
    """Endless: norms, PReLU, linear interpolation, pooling, in 2D and 3D."""
    makers: dict[str, Callable[[int, Sequence[int]], nn.Module]] = {
        "instance norm": lambda channels, _: InstanceNorm(channels),
        "batch norm": lambda channels, sizes: make_norm("batch", channels, len(sizes)),
        "layer norm": lambda channels, _: _ChannelsNorm(channels),
        "PReLU": lambda channels, _: PReLU(channels),
        "interpolation": lambda _, sizes: _Enlarged([rng.randint(max(1, size // 2), 2 * size) for size in sizes]),
        "max pooling": lambda _, sizes: POOLS[len(sizes)](tuple(min(2, size) for size in sizes)),
    }
    while True:
        dims, channels = rng.choice((2, 3)), rng.choice(CHANNELS[3:])
        sizes = _random_sizes(rng, dims, channels * 2**dims)
        if math.prod(sizes) < 64:
            continue  # too few numbers for statistics that mean anything
        name = rng.choice(sorted(makers))
        yield _trial(name, makers[name](channels, sizes), rng, (channels, *sizes))


def known_troubles() -> Iterator[Trial]:
    """Layers that oneDNN 3.12 got wrong, or crashed or hung at, where they were not kept from it.

    Source: documentation/concepts/processors.md. Planned networks have such kernels and sizes.
    """
    rng = random.Random(0)
    for channels, kernel, sizes in (
        (8, (1, 3, 3), (6, 160, 160)),
        (8, (3, 3, 3), (6, 96, 96)),
        (32, (1, 3, 3), (2, 64, 64)),
        (32, (3, 3, 3), (3, 64, 64)),
        (32, (1, 1, 1), (1, 64, 64)),
        (16, (3, 3, 3), (2, 8, 8)),
    ):
        padding = tuple(size // 2 for size in kernel)
        layer = CONV[3](channels, channels, kernel, 1, padding)  # type: ignore[arg-type]
        yield _trial(f"convolution {channels} -> {channels}, kernel {kernel}", layer, rng, (channels, *sizes))
    for sizes in ((1, 128, 128), (3, 32, 40)):
        transposed = ConvTranspose3d(16, 8, (1, 2, 2), (1, 2, 2))
        yield _trial("transposed convolution 16 -> 8, kernel and stride (1, 2, 2)", transposed, rng, (16, *sizes))
    narrow = Conv2d(32, 16, (5, 3), (1, 2), (2, 1))
    yield _trial("convolution 32 -> 16, kernel (5, 3), stride (1, 2)", narrow, rng, (32, 7, 1))


def relative_error(trial: Trial, execution: Execution) -> float:
    """The largest relative distance of result, the images' gradient and all weights' gradients from exact ones.

    In a type of 16 bits float32 is exact enough; float32 itself is compared with float64.

    Returns:
        Infinite where there is a NaN.
    """
    generator = torch.Generator().manual_seed(0)
    exact_type = torch.float64 if execution.dtype == torch.float32 else torch.float32
    # What goes in is rounded before, for both: results then differ by their own rounding alone.
    rounded = copy.deepcopy(trial.layer)
    for weight in rounded.parameters():
        weight.data = weight.data.to(execution.dtype).float()
    images = trial.images.to(execution.dtype)
    exact = copy.deepcopy(rounded).to(exact_type)
    # Sums of what is above zero on average show additions that stop growing.
    above = torch.randn(exact(images.to(exact_type)).shape, generator=generator).add(0.5).to(execution.dtype)
    wanted = _results(exact, images.to(exact_type), above.to(exact_type))
    layer = execution.place(rounded)
    for count in RUBBISH:
        rubbish = [torch.full((count,), torch.nan, device=execution.device) for _ in range(4)]
        del rubbish
    with execution.autocast():
        seen = images.to(execution.device, images.dtype if trial.behind else torch.float32)
        found = _results(layer, seen, above.to(execution.device))
    # Gradients of weights are sums over all voxels; one that happens to be near zero is not to count for its rounding.
    floors = (0.0, 0.0, 0.1 * float(above.norm()))
    return max(_distance(*ends) for ends in zip(found, wanted, floors, strict=False))


def _results(layer: nn.Module, images: Tensor, above: Tensor) -> list[Tensor]:
    """The result, the gradient of the images, and those of all weights in one row, if there are any."""
    seen = images.clone().requires_grad_()
    layer.zero_grad()
    result = layer(seen)
    with torch.autocast(images.device.type, enabled=False):
        result.backward(above.to(result.dtype))
    assert seen.grad is not None
    of_weights = [weight.grad.flatten() for weight in layer.parameters() if weight.grad is not None]
    return [result.detach(), seen.grad, *([torch.cat(of_weights)] if of_weights else [])]


def _distance(found: Tensor, wanted: Tensor, floor: float) -> float:
    found, wanted = found.double().cpu(), wanted.double().cpu()
    distance = float((found - wanted).norm() / (wanted.norm() + floor + 1e-12))
    return math.inf if math.isnan(distance) else distance


def _random_sizes(rng: random.Random, dims: int, numbers_per_voxel: int) -> tuple[int, ...]:
    """Sizes of one to many voxels per axis, small ones as often as large ones."""
    while True:
        sizes = tuple(round(math.exp(rng.uniform(0, math.log(LARGEST[dims])))) for _ in range(dims))
        if math.prod(sizes) * numbers_per_voxel <= MOST_NUMBERS:
            return sizes


def _result_size(size: int, kernel: int, stride: int, padding: int, transposed: bool) -> int:
    return (size - 1) * stride - 2 * padding + kernel if transposed else (size + 2 * padding - kernel) // stride + 1


def _trial(words: str, layer: nn.Module, rng: random.Random, shape: tuple[int, ...]) -> Trial:
    fitting = max(1, MOST_NUMBERS // math.prod(shape))
    shape = (min(fitting, rng.choice((1, 2, 3))), *shape)
    torch.manual_seed(rng.getrandbits(32))
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.5)
    images = torch.randn(shape)
    behind, channels_last = rng.random() < 0.5, rng.random() < 0.5
    if channels_last:
        images = images.contiguous(memory_format=LAYOUTS[images.dim()])
    layout = "channels last, " if channels_last else ""
    return Trial(f"{words} on {layout}{' x '.join(map(str, shape))}", layer, images, behind)
