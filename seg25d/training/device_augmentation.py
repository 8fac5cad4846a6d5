"""The changes of `augmentation.py` that are made with numpy there, by torch's operations, on the device of the image.

They are the same changes: the same seed draws the same parameters, the results differ by rounding
(tests/training/test_device_augmentation.py). Only the values of noise are others, as each kind of device has a
generator of its own; the same seed on the same device gives the same bits. Nothing here waits for the device.
"""

import random
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seg25d.training.augmentation import (
    BLUR_VOXELS,
    FACTOR,
    GAMMA,
    LOG_GAMMA,
    NOISE,
    RESOLUTION,
    Augmentation,
)

CUTOFF = 4.0
"""Standard deviations after which a Gaussian is cut off (scipy.ndimage.gaussian_filter, which batchgenerators uses)."""


def change_thickness(image: Tensor, thickness: tuple[int, float]) -> Tensor:
    """Simulate thicker slices, as `apply_thickness`.

    On GPUs torch's own linear interpolation along one axis has a thread per place along it, which goes through all
    channels and rows (github.com/pytorch/pytorch/pull/180885).

    Args:
        image: (C, D, H, W).
        thickness: Axis (0 D, 1 H, 2 W), and the thickness in voxels.

    Returns:
        The same shape.
    """
    axis, factor = thickness
    size = image.shape[axis + 1]
    coarse = max(1, round(size / factor))
    # A place between two slices falls to that which float32 says, as in torch's `nearest-exact`.
    sampled = np.floor(((np.arange(coarse) + 0.5) * np.float64(np.float32(size / coarse))).astype(np.float32))
    return _through_coarse(image, axis + 1, sampled.astype(np.int64))


def change_intensity(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Make the drawn changes of intensity, as `apply_intensity`.

    Args:
        image: (C, D, H, W); not changed.
        augmentation: What was drawn.
    """
    image = image.clone()
    for name, channel, seed in augmentation.intensity:
        image[channel] = CHANGES[name](image[channel], seed)
    return image


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device, without waiting for the copy where that is safe.

    Only CUDA keeps a tensor on the CPU until its copy is done (docs.pytorch.org, pinmem_nonblock tutorial).
    """
    return values.to(device, non_blocking=device.type == "cuda")


def _through_coarse(volume: Tensor, axis: int, sampled: NDArray[np.int64]) -> Tensor:
    """Keep only some places along an axis, which divide it evenly, and interpolate linearly between them.

    Args:
        volume: Any shape.
        axis: The axis.
        sampled: The places that are kept.

    Returns:
        The same shape; at the ends the values of the first and last place that is kept.
    """
    size, coarse = volume.shape[axis], len(sampled)
    places = ((np.arange(size) + 0.5) * (coarse / size) - 0.5).clip(0, coarse - 1)
    before = np.floor(places).astype(np.int64)
    behind = np.minimum(before + 1, coarse - 1)
    weights = torch.from_numpy((places - before).astype(np.float32))
    shape = [size if each == axis else 1 for each in range(volume.ndim)]
    first, second = (_take(volume, axis, sampled[each]) for each in (before, behind))
    return torch.lerp(first, second, upload(weights, volume.device).view(shape))


def _take(volume: Tensor, axis: int, places: NDArray[np.int64]) -> Tensor:
    return volume.index_select(axis, upload(torch.from_numpy(places), volume.device))


def _noise(channel: Tensor, seed: int) -> Tensor:
    deviation = random.Random(seed).uniform(*NOISE)
    generator = torch.Generator(channel.device).manual_seed(seed)
    noise = torch.randn(channel.shape, generator=generator, device=channel.device)
    return torch.add(channel, noise, alpha=deviation)


def _blur(channel: Tensor, seed: int) -> Tensor:
    deviation = random.Random(seed).uniform(*BLUR_VOXELS)
    radius = int(CUTOFF * deviation + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis, size in enumerate(channel.shape):
        # Mirrored at the border, whose voxels are there twice. A convolution would be computed in TF32 on GPUs.
        places = np.arange(-radius, size + radius) % (2 * size)
        padded = _take(channel, axis, np.minimum(places, 2 * size - 1 - places))
        channel = padded.narrow(axis, 0, size) * float(weights[0])
        for shift, weight in enumerate(weights[1:].tolist(), 1):
            channel.add_(padded.narrow(axis, shift, size), alpha=weight)
    return channel


def _brightness(channel: Tensor, seed: int) -> Tensor:
    draws = np.random.RandomState(seed)
    draws.uniform()  # batchgenerators draws a factor for all channels first
    return channel * draws.uniform(*FACTOR)


def _contrast(channel: Tensor, seed: int) -> Tensor:
    draws = np.random.RandomState(seed)
    draws.uniform()  # whether this channel is changed: always
    factor, mean = _around_one(draws, *FACTOR), channel.mean()
    return ((channel - mean) * factor + mean).clamp(channel.min(), channel.max())


def _low_resolution(channel: Tensor, seed: int) -> Tensor:
    draws = np.random.RandomState(seed)
    draws.uniform()  # whether this channel is changed: always
    share = draws.uniform(*RESOLUTION)
    for axis, size in enumerate(channel.shape):
        coarse = int(np.round(size * share))
        # Centres of coarse voxels, rounded as in scipy.ndimage.zoom with `grid_mode`.
        sampled = np.floor((np.arange(coarse) + 0.5) * (size / coarse) - 0.5 + 0.5).astype(np.int64)
        channel = _through_coarse(channel, axis, sampled)
    return channel


def _gamma(channel: Tensor, seed: int) -> Tensor:
    exponent = _around_one(np.random.RandomState(seed), *GAMMA)
    mean, deviation = channel.mean(), channel.std(correction=0)
    low = channel.min()
    extent = channel.max() - low
    changed = ((channel - low) / (extent + 1e-7)) ** exponent * extent + low
    changed = changed - changed.mean()
    return changed / (changed.std(correction=0) + 1e-8) * deviation + mean


def _gamma_inverted(channel: Tensor, seed: int) -> Tensor:
    return -_gamma(-channel, seed)


def _log_gamma(channel: Tensor, seed: int) -> Tensor:
    exponent = np.exp(np.random.RandomState(seed).uniform(-LOG_GAMMA, LOG_GAMMA))
    return channel.sign() * channel.abs() ** float(exponent)


def _around_one(draws: np.random.RandomState, low: float, high: float) -> float:
    """A factor below or above 1, equally likely, as batchgenerators draws it."""
    return draws.uniform(low, 1) if draws.uniform() < 0.5 else draws.uniform(1, high)


CHANGES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "low_resolution": _low_resolution,
    "gamma_inverted": _gamma_inverted,
    "gamma": _gamma,
    "log_gamma": _log_gamma,
}
"""The changes of `INTENSITY`, of one channel (D, H, W) with a seed."""
