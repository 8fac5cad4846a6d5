"""Pretext tasks of pretraining: pieces of windows are hidden or exchanged (methods.md 1.8).

Letters: C channels, D H W window, g pieces along an axis.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seg25d.planning.configurations import known_names
from seg25d.planning.pretext import PretextConfig
from seg25d.representations.base import Representation

DEFAULT_GRID = 4
"""Pieces of a jigsaw along each axis where slices are not exchanged (methods.md 1.8)."""


def make_harder(
    image: Tensor, representation: Representation, config: PretextConfig, rng: np.random.Generator
) -> Tensor:
    """Hide or exchange pieces of a window.

    Args:
        image: (C, D, H, W); not changed.
        representation: Defines the pieces: parts of a slice, of a super image, or of the window.
        config: The task, valid according to `check_task`.
        rng: Source of all randomness.

    Returns:
        (C, D, H, W), with the same pieces in all channels.
    """
    if config.task == "inpainting":
        return hide_pieces(image, piece_shape(image.shape[1:], representation, config), config.hidden_share, rng)
    axis = representation.stacking_axis
    if config.grid is None and axis is not None:
        order = torch.from_numpy(exchanged_order(image.shape[1 + axis], config.exchanged_share, rng)).to(image.device)
        return image.index_select(1 + axis, order)
    grid, share = config.grid or DEFAULT_GRID, config.exchanged_share
    return representation.map_images(image, lambda each: exchange_pieces(each, range(1, each.ndim), grid, share, rng))


def check_task(representation: Representation, config: PretextConfig) -> None:
    """Check that a task suits a representation.

    Raises:
        ValueError: If it does not; the message says what would.
    """
    if representation.piece_axes is None:
        raise ValueError("its network does not see images but projections or predictions, of which nothing is restored")
    if config.task == "inpainting" and config.whole_slices and representation.stacking_axis is None:
        able = known_names(lambda each: any(one.stacking_axis is not None for one in each.examples()))
        raise ValueError(
            f"pretext.whole_slices is for networks that see several slices at once ({', '.join(able)}): use pieces"
        )


def piece_shape(window: Sequence[int], representation: Representation, config: PretextConfig) -> tuple[int, ...]:
    """Compute the voxels of a hidden piece along (D, H, W); of two or more voxels there are at least two pieces."""
    axis = representation.stacking_axis
    if config.whole_slices and axis is not None:
        return tuple(1 if each == axis else size for each, size in enumerate(window))
    axes = representation.piece_axes or ()
    return tuple(
        max(1, min(size - 1, round(size * config.piece))) if axis in axes else 1 for axis, size in enumerate(window)
    )


def hide_pieces(image: Tensor, piece: Sequence[int], share: float, rng: np.random.Generator) -> Tensor:
    """Fill pieces of a window with 0, which is about the mean of a normalised image.

    Args:
        image: (C, D, H, W).
        piece: Voxels along (D, H, W); pieces at the end may be smaller.
        share: Of the pieces; at least one is hidden, and one is not, where there are two.
        rng: Source of all randomness.
    """
    counts = [math.ceil(size / length) for size, length in zip(image.shape[1:], piece, strict=True)]
    total = math.prod(counts)
    hidden = min(max(1, round(share * total)), max(1, total - 1))
    visible = np.ones(total, np.float32)
    visible[rng.permutation(total)[:hidden]] = 0
    mask = torch.from_numpy(visible.reshape(counts)).to(image.device)
    for axis, length in enumerate(piece):
        mask = mask.repeat_interleave(length, axis)
    return image * mask[tuple(slice(size) for size in image.shape[1:])]


def exchanged_order(count: int, share: float, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Draw the order of pieces after an exchange: the index of the piece at each place.

    Args:
        count: Pieces.
        share: Of them that change places, at least two; 1: all are put into an order drawn at random.
        rng: Source of all randomness.
    """
    drawn = rng.permutation(count)
    if share == 1:
        return drawn
    order = np.arange(count)
    places = drawn[: max(2, round(share * count))]
    order[places] = np.roll(places, 1)
    return order


def exchange_pieces(image: Tensor, axes: Sequence[int], grid: int, share: float, rng: np.random.Generator) -> Tensor:
    """Put pieces of equal size into another order; the remainder at the end of an axis stays.

    Args:
        image: Any shape.
        axes: The axes that are cut.
        grid: Pieces along each, fewer where an axis is shorter.
        share: Of the pieces that change places.
        rng: Source of all randomness.
    """
    counts = [min(grid, image.shape[axis]) for axis in axes]
    lengths = [image.shape[axis] // count for axis, count in zip(axes, counts, strict=True)]
    order = exchanged_order(math.prod(counts), share, rng)
    mixed = image.clone()
    for target, source in enumerate(order):
        here, there = ([slice(None)] * image.ndim for _ in range(2))
        for axis, length, at, come_from in zip(
            axes, lengths, np.unravel_index(target, counts), np.unravel_index(source, counts), strict=True
        ):
            here[axis] = slice(int(at) * length, (int(at) + 1) * length)
            there[axis] = slice(int(come_from) * length, (int(come_from) + 1) * length)
        mixed[tuple(here)] = image[tuple(there)]
    return mixed
