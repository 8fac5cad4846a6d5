"""Neighbouring slices as further channels, and slices side by side: what `slices` and `super_image` have in common.

Letters: B batch, C channels, D slices, h w image, k neighbours per side.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def with_neighbours(volume: Tensor, context: int) -> Tensor:
    """Give each slice its neighbours as channels; beyond the ends the outermost slice is repeated.

    Args:
        volume: (B, C, D, H, W), slices along D.
        context: Neighbours per side, k.

    Returns:
        (B, C * (2k + 1), D, H, W); channels of slice z - k first.
    """
    return as_channels(beyond_ends(volume, context), context)


def beyond_ends(volume: Tensor, context: int) -> Tensor:
    """Repeat the outermost slices of (B, C, D, H, W): gives (B, C, D + 2k, H, W)."""
    return functional.pad(volume, (0, 0, 0, 0, context, context), mode="replicate") if context else volume


def as_channels(padded: Tensor, context: int) -> Tensor:
    """Give each slice its neighbours as channels: (B, C, D + 2k, H, W) to (B, C * (2k + 1), D, H, W)."""
    if context == 0:
        return padded
    depth = padded.shape[2] - 2 * context
    return torch.cat([padded[:, :, shift : shift + depth] for shift in range(2 * context + 1)], 1)


def slices_first(volume: Tensor, axis: int) -> Tensor:
    """Bring the slicing axis (0 D, 1 H, 2 W) of (B, C, D, H, W) to the front of the spatial axes, as a view."""
    return volume.movedim(2 + axis, 2)


def slices_back(volume: Tensor, axis: int) -> Tensor:
    """Undo `slices_first`."""
    return volume.movedim(2, 2 + axis)


def in_batch(volumes: tuple[int, int], features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change slices that are images of a batch: the layout of networks that mix slices (seg25d/networks/mixing.py).

    Args:
        volumes: Their number B, and the slices of each, D.
        features: (B * D, C, h, w), the slices of a volume in their order.
        change: From and to (B, D, C, h, w).

    Returns:
        (B * D, C, h, w).
    """
    return change(features.reshape(*volumes, *features.shape[1:])).flatten(0, 1)


def apply_network(network: nn.Module, images: Tensor, layout: Callable[..., Tensor]) -> Any:
    """Output of a network; one that mixes slices is told where they are.

    Args:
        network: A network that mixes slices says so (`mixes_slices`).
        images: (N, C, h, w).
        layout: Of their slices, such as `in_batch` with their numbers.
    """
    return network(images, layout) if getattr(network, "mixes_slices", False) else network(images)
