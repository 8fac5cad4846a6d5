"""Neighbouring slices as further channels: what `slices` and `super_image` have in common.

Letters: B batch, C channels, D slices, k neighbours per side.
"""

import torch
from torch import Tensor
from torch.nn import functional


def with_neighbours(volume: Tensor, context: int) -> Tensor:
    """Give each slice its neighbours as channels; beyond the ends the outermost slice is repeated.

    Args:
        volume: (B, C, D, H, W), slices along D.
        context: Neighbours per side, k.

    Returns:
        (B, C * (2k + 1), D, H, W); channels of slice z - k first.
    """
    if context == 0:
        return volume
    depth = volume.shape[2]
    padded = functional.pad(volume, (0, 0, 0, 0, context, context), mode="replicate")
    return torch.cat([padded[:, :, shift : shift + depth] for shift in range(2 * context + 1)], 1)


def slices_first(volume: Tensor, axis: int) -> Tensor:
    """Bring the slicing axis (0 D, 1 H, 2 W) of (B, C, D, H, W) to the front of the spatial axes, as a view."""
    return volume.movedim(2 + axis, 2)


def slices_back(volume: Tensor, axis: int) -> Tensor:
    """Undo `slices_first`."""
    return volume.movedim(2, 2 + axis)
