"""Random convolutions, norms, pooling and interpolation on a device against float32 on the CPU, for gpu_check.py."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_variants import LAYOUTS, tensor_cores_for_float32
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.blocks import InstanceNorm

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest difference, as a share of the largest value: some roundings of 2^-8 (bfloat16) and 2^-11 (float16)."""
Layer = tuple[str, nn.Module | Callable[[Tensor], Tensor]]


def fuzz(device: torch.device, seconds: float, seed: int, types: list[torch.dtype]) -> dict[str, Any]:
    """Compare layers until the time is over.

    Returns:
        How many were compared, the largest difference by type and kind, and every case beyond its tolerance.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    ends, count = time.monotonic() + seconds, 0
    largest: dict[str, float] = {}
    failures: list[str] = []
    while time.monotonic() < ends:
        dims = int(rng.integers(2, 4))
        channels = int(rng.choice([1, 3, 8, 16, 24]))
        sizes = [int(size) for size in rng.integers(2, 20 if dims == 3 else 48, dims)]
        images = torch.randn(int(rng.integers(1, 4)), channels, *sizes)
        name, layer = random_layer(rng, dims, channels)
        for dtype in types:
            for last in (False, True):
                said = f"{name} of {tuple(images.shape)} in {dtype}, {'channels-last' if last else 'contiguous'}"
                try:
                    difference = compare(layer, images, device, dtype, channels_last=last)
                except (RuntimeError, ValueError) as error:
                    failures.append(f"{said}: {str(error).splitlines()[0]}")
                    continue
                count += 1
                key = f"{str(dtype).removeprefix('torch.')} {name.split()[0]}"
                largest[key] = max(largest.get(key, 0.0), difference)
                if not difference <= TOLERANCES[dtype]:  # NaN too
                    failures.append(f"{said}: {difference:.3g}")
    return {"compared": count, "largest_difference": largest, "failures": failures}


def random_layer(rng: np.random.Generator, dims: int, channels: int) -> Layer:
    """One of those that the networks have, with its description."""
    kind = rng.choice(["conv", "transposed", "norm", "pool", "interpolation"])
    step = [int(each) for each in rng.integers(1, 3, dims)]
    out = int(rng.choice([1, 2, 8, 16, 32]))
    if kind == "conv":
        kernel = [int(each) for each in rng.choice([1, 3, 5], dims)]
        made = (nn.Conv2d, nn.Conv3d)[dims - 2](channels, out, kernel, step, [each // 2 for each in kernel])
        return f"conv {kernel} by {step} to {out}", made
    if kind == "transposed":
        made = (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2](channels, out, step, step)
        return f"transposed by {step} to {out}", made
    if kind == "norm":
        return "norm", InstanceNorm(channels)
    if kind == "pool":
        # A part of any size, as sizes are.
        return f"pool by {step}", (nn.MaxPool2d, nn.MaxPool3d)[dims - 2](step, step, ceil_mode=True)
    mode = ("bilinear", "trilinear")[dims - 2]
    return "interpolation", lambda images: functional.interpolate(images, scale_factor=2, mode=mode)


def compare(layer: Any, images: Tensor, device: torch.device, dtype: torch.dtype, *, channels_last: bool) -> float:
    """The largest difference of results and gradients, each as a share of its largest value.

    Which of two equal values a pool takes, and gives the gradient to, is up to it.
    """
    # What both see is rounded, so that only sums and results differ.
    images = images.to(dtype).float()
    rounded: dict[str, Tensor] = {}
    if isinstance(layer, nn.Module):
        for parameter in layer.parameters():
            parameter.data = parameter.data.to(dtype).float()
        rounded = {name: parameter.data.clone() for name, parameter in layer.named_parameters()}
        layer.zero_grad(set_to_none=True)
    wanted = _run(layer, images, (torch.float32, dtype), torch.device("cpu"))
    for values in rounded.values():
        if channels_last and values.dim() in LAYOUTS:
            values.data = values.contiguous(memory_format=LAYOUTS[values.dim()])
    found = _run(layer, images, (dtype, dtype), device, rounded)
    first = 1 if isinstance(layer, nn.MaxPool2d | nn.MaxPool3d) else len(wanted)
    return max(_difference(here, there) for here, there in zip(found[:first], wanted[:first], strict=True))


def _run(
    layer: Any,
    images: Tensor,
    types: tuple[torch.dtype, torch.dtype],
    device: torch.device,
    weights: dict[str, Tensor] | None = None,
) -> list[Tensor]:
    """Result, gradient of the images, gradients of the weights; the second type is that of what both sides see."""
    dtype, seen = types
    here = images.to(device, dtype).requires_grad_()
    if isinstance(layer, nn.Module):
        own = {
            name: values.detach().to(device, dtype).requires_grad_()
            for name, values in (weights or dict(layer.named_parameters())).items()
        }
        result = torch.func.functional_call(layer, own, (here,))
    else:
        own, result = {}, layer(here)
    signs = torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(seen).to(device, dtype)
    with tensor_cores_for_float32(False):
        gradients = torch.autograd.grad(result, [here, *own.values()], signs)
    return [result.detach(), *gradients]


def _difference(found: Tensor, wanted: Tensor) -> float:
    highest = float(wanted.abs().max())
    return float((found.float().cpu() - wanted).abs().max()) / max(highest, 1e-3)
