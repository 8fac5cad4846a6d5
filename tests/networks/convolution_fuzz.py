"""Random layers in bfloat16 against float32: python convolution_fuzz.py SEED DIMS THREADS COUNT [VOLUME]

Each shape is printed before it computes, BAD with its errors behind a wrong one, DONE at the end: without DONE the last
line says at which shape the process crashed or hung. DIMS is 2, 3, or both as `3,3,2`: as often as they stand there.
VOLUME limits voxels times channels of a shape, 2e7 unless told otherwise.

What is rounded to bfloat16 is rounded before, for both: then the results differ by their own rounding alone, and freed
memory is filled with NaN before each shape, so that what reads memory that nobody wrote is seen.
"""

import math
import random
import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seg25d.networks.blocks import BATCH_NORM, CONV, MAX_POOL, TRANSPOSED_CONV, InstanceNorm, PReLU
from seg25d.networks.se_unet import _enlarge
from seg25d.networks.swin_unetr import LayerNorm

TOLERANCE = 0.03
"""Norm of the error by the norm of what is right. Numbers are rounded to 2^-9; what is wrong is so by 0.1 or more."""
LARGEST = {2: 700, 3: 170}
"""Voxels along an axis, by the number of axes."""
CHANNELS = (1, 2, 3, 7, 8, 16, 32, 64)


class Case(NamedTuple):
    """A layer and the shape of what goes in."""

    layer: nn.Module
    shape: tuple[int, ...]
    channels_last: bool


class Resize(nn.Module):
    """Linear interpolation to another size, in the type of the input."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def extra_repr(self) -> str:
        return str(self.size)

    def forward(self, images: Tensor) -> Tensor:
        return _enlarge(images, torch.Size(self.size))


class ChannelsNorm(LayerNorm):
    """Layer norm over channels, as transformers have it."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.movedim(1, -1)).movedim(-1, 1)


def poison_freed_memory() -> None:
    """Fill what the next tensors will get with NaN."""
    for exponent in range(6, 21):
        rubbish = [torch.full((1 << exponent,), torch.nan) for _ in range(4)]
        del rubbish


def draw(rng: random.Random, dims: int, volume: float) -> Case:
    """A random layer with random weights, and the shape of its images."""
    kind = rng.choice(["plain"] * 10 + ["transposed"] * 5 + ["instance", "batch", "layer", "prelu", "resize", "pool"])
    channels, width = rng.choice(CHANNELS), rng.choice((2, *CHANNELS))
    batch = rng.choice((1, 2, 3))
    step = tuple(rng.choice((1, 1, 1, 2)) for _ in range(dims))
    while True:
        # As often 1 to 7 as 8 to 170.
        size = tuple(round(math.exp(rng.uniform(0, math.log(LARGEST[dims])))) for _ in range(dims))
        grown = math.prod(step) if kind == "transposed" else 1
        if batch * math.prod(size) * max(channels, width) * grown < volume:
            break
    if kind in ("plain", "transposed"):
        layer = _convolution(rng, dims, channels, width, step if kind == "plain" else None)
    elif kind == "resize":
        layer = Resize(tuple(rng.randint(max(1, each // 2), 2 * each) for each in size))
    elif kind == "pool":
        layer = MAX_POOL[dims](tuple(min(pair) for pair in zip(step, size, strict=True)))
    else:
        size = (max(size[0], 4), *size[1:-1], max(size[-1], 4))
        norms = {"instance": InstanceNorm, "batch": BATCH_NORM[dims], "layer": ChannelsNorm, "prelu": PReLU}
        channels = max(channels, 7)
        layer = norms[kind](channels)
    return Case(layer, (batch, channels, *size), rng.random() < 0.5)


def _convolution(rng: random.Random, dims: int, channels: int, width: int, stride: tuple[int, ...] | None) -> nn.Module:
    """A plain convolution of a stride; a transposed one without."""
    groups = rng.choice((1, 1, 1, math.gcd(channels, width)))
    if stride is None:
        step = tuple(rng.choice((1, 2, 2)) for _ in range(dims))
        if rng.random() < 0.7:
            return TRANSPOSED_CONV[dims](channels, width, step, step, groups=groups)
        return TRANSPOSED_CONV[dims](channels, width, 3, step, 1, tuple(each - 1 for each in step), groups)
    kernel = tuple(rng.choice((1, 3, 3, 3, 5, 2, 7)) for _ in range(dims))
    return CONV[dims](
        channels, width, kernel, stride, tuple(each // 2 for each in kernel), 1, groups, rng.random() < 0.8
    )


def _rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def errors(case: Case) -> dict[str, float]:
    """Forward and all gradients in bfloat16 against float32, as norms of the error by those of what is right."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    layer, images = case.layer, _rounded(torch.randn(case.shape))
    for parameter in layer.parameters():
        parameter.data = _rounded(parameter.data if parameter.dim() > 1 else torch.randn_like(parameter))
    if case.channels_last:
        images = images.contiguous(memory_format=layouts[images.dim()])
    layer.zero_grad(set_to_none=True)
    exact, fast = images.clone().requires_grad_(), images.bfloat16().requires_grad_()
    wanted = layer(exact)
    # Sums of what is above zero show additions that stop growing.
    gradient = _rounded(torch.randn(wanted.shape) + 0.5)
    wanted.backward(gradient)
    rights = {"result": wanted.detach(), "images": exact.grad}
    rights |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad(set_to_none=True)
    poison_freed_memory()
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(fast)
    result.backward(gradient.to(result.dtype))
    found = {"result": result.detach(), "images": fast.grad}
    found |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {name: float((found[name].float() - right).norm() / (right.norm() + 1e-6)) for name, right in rights.items()}


def main(seed: int, dims: tuple[int, ...], threads: int, count: int, volume: float = 2e7) -> int:
    """How many of `count` random shapes are wrong; says which."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng, bad = random.Random(seed), 0
    for index in range(count):
        case = draw(rng, rng.choice(dims), volume)
        layout = "channels last" if case.channels_last else "contiguous"
        print(seed, index, case.layer, case.shape, layout, flush=True)
        found = errors(case)
        if not max(found.values()) <= TOLERANCE:
            bad += 1
            print("BAD", found, flush=True)
    print("DONE", flush=True)
    return bad


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(
        min(1, main(int(words[0]), tuple(map(int, words[1].split(","))), *map(int, words[2:4]), *map(float, words[4:])))
    )
