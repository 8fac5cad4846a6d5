"""Random augmentation of windows; drawing is separate from applying, so that an augmentation can be replayed.

Letters: C channels, D H W volume; d h w the region that is read, which is larger than the window so that a rotated
window still lies within it.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from seg25d.core.grids import alike_axes
from seg25d.core.types import Shape, Spacing
from seg25d.training.config import AugmentationConfig

ANISOTROPIC = 3.0
"""Factor between spacings or extents above which axes are not rotated into each other: thick slices and flat windows
rotate only in the plane (nnU-Net's "dummy 2D")."""
MANY_CLASSES = 16
"""Number of classes in a window above which labels are interpolated as nearest neighbours."""
NOISE = (0.0, 0.1)
"""Range of the standard deviation of noise; as the next ones, nnU-Net's (nnUNetTrainer.get_training_transforms)."""
BLUR_VOXELS = (0.5, 1.0)
"""Range of the standard deviation of a Gaussian."""
FACTOR = (0.75, 1.25)
"""Range of the factors of `brightness` and `contrast`."""
RESOLUTION = (0.5, 1.0)
"""Range of the share of voxels along each axis that `low_resolution` leaves."""
GAMMA = (0.7, 1.5)
"""Range of the exponent of `gamma` and `gamma_inverted`."""
LOG_GAMMA = 0.3
"""Largest logarithm of the exponent of `log_gamma` (TorchIO, random_gamma.py)."""


@dataclass(frozen=True)
class Augmentation:
    """Random parameters drawn for one window."""

    matrix: NDArray[np.float64] | None = None
    """(3, 3): from offsets in the window to offsets in the volume, both in voxels from the centre; None for none."""
    shifts: NDArray[np.float64] | None = None
    """(3, n, n, n): shift along D, H, W at the control points in voxels; None for none."""
    order: tuple[int, int, int] = (0, 1, 2)
    """Source axis of each of the three spatial axes of the result."""
    flips: tuple[int, ...] = ()
    """Spatial axes to flip, after they have been exchanged."""
    thickness: tuple[int, float] | None = None
    """Axis and thickness in voxels of the thicker slices that are simulated; None for none."""
    intensity: tuple[tuple[str, int, int], ...] = field(default=())
    """(name in `INTENSITY`, channel, seed), in the order in which they are applied."""


def draw_augmentation(
    rng: np.random.Generator,
    config: AugmentationConfig,
    window: Shape,
    spacing_mm: Spacing,
    num_channels: int,
    mirror_axes: Sequence[int],
) -> Augmentation:
    """Draw the augmentation of one window.

    Args:
        rng: Source of randomness.
        config: Probabilities and ranges.
        window: (D, H, W).
        spacing_mm: Of the window: rotations turn millimetres, not voxels.
        num_channels: Channels of the image.
        mirror_axes: Axes along which flips are allowed.
    """
    if not config.enabled:
        return Augmentation()
    matrix = _draw_matrix(rng, config, window, spacing_mm) if rng.random() < config.spatial else None
    shifts = _draw_shifts(rng, config, spacing_mm) if rng.random() < config.elastic else None
    thickness = None
    if config.anisotropy and rng.random() < config.anisotropy:
        thickness = int(rng.integers(3)), float(rng.uniform(*config.anisotropy_factor))
    # Augmentations that are off draw nothing, so that new ones do not change older runs.
    chances = {name: chance for name in INTENSITY if (chance := getattr(config, name)) > 0}
    intensity = tuple(
        (name, channel, int(rng.integers(2**31)))
        for name, chance in chances.items()
        for channel in range(num_channels)
        if rng.random() < chance
    )
    flips = tuple(axis for axis in mirror_axes if rng.random() < config.mirror)
    order = (0, 1, 2)
    if config.cube_rotation and rng.random() < config.cube_rotation:
        turns = cube_rotations(spacing_mm, window)
        order, turned = turns[int(rng.integers(len(turns)))]
        flips = tuple(sorted({*flips} ^ {*turned}))
    return Augmentation(matrix, shifts, order, flips, thickness, intensity)


@cache
def cube_rotations(spacing_mm: Spacing, window: Shape) -> tuple[tuple[tuple[int, int, int], tuple[int, ...]], ...]:
    """The rotations that map a window onto itself: an order of the axes, and the axes to flip afterwards.

    24 where all axes are alike, see `alike_axes`; 8 where two are (rotations in the plane, and half turns), else 4.
    No reflections: their number would double to the paper's 48 (methods.md 4.3).

    Args:
        spacing_mm: (D, H, W).
        window: (D, H, W).
    """
    groups = alike_axes(spacing_mm, window)
    turns = []
    for order in itertools.permutations(range(3)):
        if any(groups[axis] != groups[source] for axis, source in enumerate(order)):
            continue
        odd = sum(order[first] > order[second] for first, second in itertools.combinations(range(3), 2)) % 2
        for number in range(4):
            for flips in itertools.combinations(range(3), number):
                if number % 2 == odd:
                    turns.append(((order[0], order[1], order[2]), flips))
    return tuple(turns)


def _draw_shifts(rng: np.random.Generator, config: AugmentationConfig, spacing_mm: Spacing) -> NDArray[np.float64]:
    size = (3, *(config.elastic_control_points,) * 3)
    largest = config.elastic_mm
    shifts_mm = (
        rng.normal(0, largest, size)
        if config.elastic_distribution == "normal"
        else rng.uniform(-largest, largest, size)
    )
    if config.elastic_fixed_border:
        inner = np.zeros(size)
        inside = (slice(None), *(slice(1, -1),) * 3)
        inner[inside] = shifts_mm[inside]
        shifts_mm = inner
    return np.asarray(shifts_mm / np.array(spacing_mm)[:, None, None, None])


def _draw_matrix(
    rng: np.random.Generator, config: AugmentationConfig, window: Shape, spacing_mm: Spacing
) -> NDArray[np.float64]:
    spacing = np.array(spacing_mm)
    extent = spacing * window
    angles = np.deg2rad(rng.uniform(-config.rotation_degrees, config.rotation_degrees, 3))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        if any(
            max(size[first], size[second]) > ANISOTROPIC * min(size[first], size[second]) for size in (spacing, extent)
        ):
            continue
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    # Larger and smaller are equally likely (log-uniform); zooming in reads a smaller part.
    smallest, largest = np.log(config.scaling).tolist()
    zoom = np.exp(rng.uniform(smallest, largest, 3 if config.scaling_per_axis else None))
    return np.asarray(matrix * spacing[None, :] / spacing[:, None] / zoom)


def region_to_read(augmentation: Augmentation, window: Shape) -> Shape:
    """Compute the region of the volume that contains the window when it is rotated, scaled and deformed.

    Returns:
        (d, h, w), centred on the window; the window itself where nothing spatial was drawn.
    """
    if augmentation.matrix is None and augmentation.shifts is None:
        return window
    matrix = np.eye(3) if augmentation.matrix is None else augmentation.matrix
    needed = np.abs(matrix) @ np.array(window, np.float64)
    if augmentation.shifts is not None:
        needed += 2 * np.abs(augmentation.shifts).max((1, 2, 3))
    # One voxel more for the neighbours of interpolation, one for a centre between voxels.
    depth, height, width = (math.ceil(size) + 2 for size in needed)
    return (depth, height, width)


def apply_spatial(image: Tensor, labels: Tensor, augmentation: Augmentation, window: Shape) -> tuple[Tensor, Tensor]:
    """Cut the centred window out of a region and rotate, scale, deform and flip it as drawn.

    Args:
        image: (C, d, h, w) float; outside of it is zero.
        labels: (d, h, w) uint8; outside of it is background.
        augmentation: What was drawn.
        window: (D, H, W).

    Returns:
        (C, D, H, W) and (D, H, W), both by linear interpolation, the labels class by class.
    """
    if augmentation.matrix is None and augmentation.shifts is None:
        image, labels = _centre(image, window), _centre(labels, window)
    else:
        region = (labels.shape[0], labels.shape[1], labels.shape[2])
        grid = _sampling_grid(augmentation, window, region, image.device)
        image = functional.grid_sample(image[None], grid, "bilinear", "zeros", align_corners=False)[0]
        labels = _sample_labels(labels, grid)
    if augmentation.order != (0, 1, 2):
        image = image.permute(0, *(axis + 1 for axis in augmentation.order))
        labels = labels.permute(augmentation.order)
    if augmentation.flips:
        image = image.flip([axis + 1 for axis in augmentation.flips])
        labels = labels.flip(list(augmentation.flips))
    return image, labels


def _sample_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """Sample labels (d, h, w) at the points of a grid: the class with the largest interpolated share, as in nnU-Net.

    That is smoother than the nearest neighbour, which is only used where many classes would take too long.
    """
    classes = torch.bincount(labels.flatten()).nonzero()[:, 0].to(labels.dtype)
    if len(classes) > MANY_CLASSES:
        maps = functional.grid_sample(labels[None, None].float(), grid, "nearest", "zeros", align_corners=False)
        return maps[0, 0].to(labels.dtype)
    shares = (labels[None] == classes[:, None, None, None]).float()[None]
    shares = functional.grid_sample(shares, grid, "bilinear", "zeros", align_corners=False)[0]
    # Class by class: `argmax` along the first axis takes ten times as long.
    largest, found = shares[0].clone(), classes[0].expand(shares.shape[1:])
    for share, label in zip(shares[1:], classes[1:], strict=True):
        found = torch.where(share > largest, label, found)
        torch.maximum(largest, share, out=largest)
    # Outside of the volume no class has a share: that is background.
    return torch.where(shares.sum(0) < 0.5, 0, found)


def _centre(volume: Tensor, window: Shape) -> Tensor:
    for axis, wanted in zip((-3, -2, -1), window, strict=True):
        volume = volume.narrow(axis, (volume.shape[axis] - wanted) // 2, wanted)
    return volume


def _sampling_grid(augmentation: Augmentation, window: Shape, region: Shape, device: torch.device) -> Tensor:
    """Compute normalised coordinates (1, D, H, W, 3) in the region, x (W) first, as `grid_sample` expects them."""
    matrix = np.eye(3) if augmentation.matrix is None else augmentation.matrix
    # affine_grid maps normalised to normalised coordinates, with (W, H, D) order: scale by the half sizes.
    scaled = matrix * np.array(window)[None, :] / np.array(region)[:, None]
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = torch.from_numpy(scaled[::-1, ::-1].copy())
    # An odd difference of sizes puts the centred window half a voxel off the region's centre.
    odd = [((size - wanted) % 2) / size for size, wanted in zip(region, window, strict=True)]
    theta[0, :, 3] = -torch.tensor(odd[::-1])
    grid = functional.affine_grid(theta.to(device), [1, 1, *window], align_corners=False)
    if augmentation.shifts is not None:
        shifts = torch.from_numpy(augmentation.shifts)[None].float().to(device)
        smooth = functional.interpolate(shifts, window, mode="trilinear", align_corners=True)[0].flip(0)
        to_normalised = torch.tensor([2.0 / size for size in region[::-1]], device=device)
        grid = grid + (smooth.movedim(0, -1) * to_normalised)[None]
    return grid


def apply_thickness(image: Tensor, thickness: tuple[int, float]) -> Tensor:
    """Simulate thicker slices along one axis: sample the nearest slices, then interpolate linearly between them.

    As TorchIO's RandomAnisotropy, which resamples to the coarser spacing and back.

    Args:
        image: (C, D, H, W).
        thickness: Axis (0 D, 1 H, 2 W), and the thickness in voxels.

    Returns:
        The same shape.
    """
    axis, factor = thickness
    size = image.shape[axis + 1]
    coarse = max(1, round(size / factor))
    slices = image.movedim(axis + 1, -1).reshape(1, -1, size)
    thick = functional.interpolate(slices, coarse, mode="nearest-exact")
    smooth = functional.interpolate(thick, size, mode="linear", align_corners=False)
    moved = image.movedim(axis + 1, -1).shape
    return smooth.reshape(moved).movedim(-1, axis + 1)


def apply_intensity(image: NDArray[np.float32], augmentation: Augmentation) -> NDArray[np.float32]:
    """Apply the drawn changes of intensity with batchgenerators.

    Args:
        image: (C, D, H, W); changed in place where that is possible.
        augmentation: What was drawn.
    """
    for name, channel, seed in augmentation.intensity:
        with _global_seed(seed):
            image[channel] = INTENSITY[name](image[channel : channel + 1])[0]
    return image


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators, from which batchgenerators draws, and restore them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


Channel = NDArray[np.float32]


def _noise(channel: Channel) -> Channel:
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_noise  # noqa: PLC0415 - 1 s

    return augment_gaussian_noise(channel, NOISE)  # type: ignore[no-any-return]


def _blur(channel: Channel) -> Channel:
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur  # noqa: PLC0415 - 1 s

    return augment_gaussian_blur(channel, BLUR_VOXELS)  # type: ignore[no-any-return]


def _brightness(channel: Channel) -> Channel:
    from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative  # noqa: PLC0415

    return augment_brightness_multiplicative(channel, FACTOR)  # type: ignore[no-any-return]


def _contrast(channel: Channel) -> Channel:
    from batchgenerators.augmentations.color_augmentations import augment_contrast  # noqa: PLC0415 - 1 s

    return augment_contrast(channel, FACTOR, preserve_range=True)  # type: ignore[no-any-return]


def _low_resolution(channel: Channel) -> Channel:
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy  # noqa: PLC0415

    return augment_linear_downsampling_scipy(  # type: ignore[no-any-return]
        channel, zoom_range=RESOLUTION, order_downsample=0, order_upsample=1
    )


def _gamma(channel: Channel) -> Channel:
    from batchgenerators.augmentations.color_augmentations import augment_gamma  # noqa: PLC0415 - 1 s

    return augment_gamma(channel, GAMMA, retain_stats=True)  # type: ignore[no-any-return]


def _gamma_inverted(channel: Channel) -> Channel:
    from batchgenerators.augmentations.color_augmentations import augment_gamma  # noqa: PLC0415 - 1 s

    # In some versions invert_image negates before but not after: do both here.
    return -augment_gamma(-channel, GAMMA, retain_stats=True)  # type: ignore[no-any-return]


def _log_gamma(channel: Channel) -> Channel:
    exponent = np.exp(np.random.uniform(-LOG_GAMMA, LOG_GAMMA))
    return np.asarray(np.sign(channel) * np.abs(channel) ** np.float32(exponent), np.float32)


INTENSITY: dict[str, Callable[[Channel], Channel]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "low_resolution": _low_resolution,
    "gamma_inverted": _gamma_inverted,
    "gamma": _gamma,
    "log_gamma": _log_gamma,
}
"""Changes of intensity of one channel (1, D, H, W), in nnU-Net's order and ranges; chances are in the config."""
