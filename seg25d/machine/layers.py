"""Random layers in a type of 16 bits (or float32) against exact ones: results and all gradients.

What is compared is the relative distance of two tensors, |a - b| / |b| by Euclidean norms.
"""

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.device import Execution
from seg25d.networks.blocks import InstanceNorm, PReLU, make_norm
from seg25d.networks.convolutions import CONV, TRANSPOSED_CONV, Conv2d, ConvTranspose3d

LIMITS = {torch.float32: 2e-3, torch.bfloat16: 0.03, torch.float16: 0.01}
"""Relative distances above these are wrong. bfloat16 rounds to one part in 256, float16 and GPUs' TF32 to one
in 2048; right layers stay below a third of the limit, and wrong ones are off by 1 and more, or NaN."""
MOST_NUMBERS = 4_000_000
"""Of the widest tensor of a trial: milliseconds each."""
CHANNELS = (1, 2, 3, 7, 8, 16, 32, 64)
RUBBISH = tuple(1 << power for power in (8, 12, 14, 16, 18))
"""Sizes of tensors of NaN that are freed before each trial: a layer that reads freed memory shows it."""


class Trial(NamedTuple):
    """A layer and what it is to compute on."""

    words: str
    """What it is, for messages."""
    layer: nn.Module
    """float32, on the CPU."""
    images: Tensor
    """(N, C, *sizes) float32, on the CPU."""
    behind: bool
    """Whether they come in the type that is tested, as they do behind a convolution, or in float32."""


class _Interpolation(nn.Module):
    """To other sizes, linearly."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = list(sizes)

    def forward(self, images: Tensor) -> Tensor:
        mode = "bilinear" if len(self.sizes) == 2 else "trilinear"
        return functional.interpolate(images, size=self.sizes, mode=mode, align_corners=False)


def random_convolutions(dims: int, rng: random.Random, *, transposed: bool) -> Iterator[Trial]:
    """Endless: kernels of 1 to 5, also larger than the image, strides of 1 and 2, any sizes."""
    while True:
        channels, width = rng.choice(CHANNELS), rng.choice(CHANNELS)
        kernel = tuple(rng.choice((1, 2, 3, 3, 3, 4, 5)) for _ in range(dims))
        stride = tuple(rng.choice((1, 1, 1, 2)) for _ in range(dims))
        sizes = _random_sizes(rng, dims, max(channels, width) * (2**dims if transposed else 1))
        padding = tuple(rng.randint(0, size // 2) for size in kernel)
        ends = zip(sizes, kernel, stride, padding, strict=True)
        if any(_result_size(*each, transposed) < 1 for each in ends):
            continue
        kind = (TRANSPOSED_CONV if transposed else CONV)[dims]
        layer = kind(channels, width, kernel, stride, padding)  # type: ignore[arg-type]
        name = "transposed convolution" if transposed else "convolution"
        words = f"{name} {channels} -> {width}, kernel {kernel}, stride {stride}, padding {padding}"
        yield _trial(words, layer, rng, (channels, *sizes))


def random_other_layers(rng: random.Random) -> Iterator[Trial]:
    """Endless: norms, PReLU, linear interpolation, pooling, in 2D and 3D."""
    pools = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
    makers: dict[str, Callable[[int, tuple[int, ...]], nn.Module]] = {
        "instance norm": lambda channels, _: InstanceNorm(channels),
        "batch norm": lambda channels, sizes: make_norm("batch", channels, len(sizes)),
        "PReLU": lambda channels, _: PReLU(channels),
        "interpolation": lambda _, sizes: _Interpolation(
            tuple(max(1, rng.choice((size // 2, 2 * size))) for size in sizes)
        ),
        "max pooling": lambda _, sizes: pools[len(sizes)](tuple(min(2, size) for size in sizes)),
    }
    while True:
        dims, channels = rng.choice((2, 3)), rng.choice(CHANNELS)
        sizes = _random_sizes(rng, dims, channels * 2**dims)
        if torch.Size(sizes).numel() < 64:
            continue  # too few numbers for statistics that mean anything
        name = rng.choice(sorted(makers))
        yield _trial(name, makers[name](channels, sizes), rng, (channels, *sizes))


def known_troubles() -> Iterator[Trial]:
    """Layers that oneDNN 3.12 got wrong, or crashed or hung at, where they were not kept from it.

    Source: documentation/processors.md. Planned networks have such kernels and sizes.
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
    exact = copy.deepcopy(trial.layer).to(exact_type)
    images = trial.images.to(execution.dtype)
    above = torch.randn(exact(images.to(exact_type)).shape, generator=generator)
    wanted = _results(exact, images.to(exact_type), above.to(exact_type))
    layer = execution.place(trial.layer)
    rubbish = [torch.full((count,), torch.nan, device=execution.device) for count in RUBBISH for _ in range(4)]
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
        sizes = tuple(rng.randint(1, rng.choice((4, 20, 170))) for _ in range(dims))
        if torch.Size(sizes).numel() * numbers_per_voxel <= MOST_NUMBERS:
            return sizes


def _result_size(size: int, kernel: int, stride: int, padding: int, transposed: bool) -> int:
    return (size - 1) * stride - 2 * padding + kernel if transposed else (size + 2 * padding - kernel) // stride + 1


def _trial(words: str, layer: nn.Module, rng: random.Random, shape: tuple[int, ...]) -> Trial:
    channels, *sizes = shape
    fitting = max(1, MOST_NUMBERS // torch.Size(shape).numel())
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    images = torch.randn(min(fitting, rng.choice((1, 2, 3))), *shape, generator=generator)
    behind = rng.random() < 0.5
    return Trial(f"{words} on {len(images)} x {channels} x {' x '.join(map(str, sizes))}", layer, images, behind)
