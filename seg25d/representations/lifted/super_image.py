"""All slices of a window tiled into one image: the module of `SuperImage`.

Letters: B batch, C channels, K scores, D H W volume, r c rows and columns of the grid, h w image.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.types import Shape
from seg25d.representations.base import NetworkOutput, map_scores
from seg25d.representations.context import apply_network, slices_back, slices_first, with_neighbours
from seg25d.representations.super_image import SuperImage


class LiftedSuperImage(nn.Module):
    """(B, C, D, H, W) -> (B, C * (2k + 1), r * h, c * w) -> network -> (B, K, D, H, W)."""

    arranges_scores: ClassVar[bool] = True
    """Whether scores are those of the network in another arrangement, see `inference/scoring.py`."""

    def __init__(self, network: nn.Module, representation: SuperImage) -> None:
        super().__init__()
        self.network = network
        self.representation = representation

    def forward(self, volume: Tensor, places: Tensor | None = None) -> NetworkOutput:
        """Scores of volumes, see `Representation.lift`; empty places of the grid are zero and are dropped again.

        A window with more slices than the planned grid has room for (a volume that is a little larger than the window
        may be predicted as a whole) gets the grid that it would have been planned with.

        Args:
            volume: (B, C, D, H, W).
            places: The grid by its shape, (rows, columns), which is all that counts of it: for graphs without torch,
                where only tensors have sizes that are not fixed. None: the grid that the window has by itself.
        """
        axis = self.representation.axis
        slices = with_neighbours(slices_first(volume, axis), self.representation.context)
        depth = slices.shape[2]
        if places is None:
            window: Shape = (volume.shape[2], volume.shape[3], volume.shape[4])
            grid = self.representation.grid_for(window)
        else:
            grid = (places.shape[0], places.shape[1])
        output = apply_network(self.network, to_super_image(slices, grid), partial(in_tiles, grid, depth))

        def undo(image: Tensor) -> Tensor:
            return slices_back(from_super_image(image, grid, depth), axis)

        return map_scores(output, undo)


def to_super_image(slices: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tile slices row by row: slice r * columns + c goes to row r, column c (paper, section 2.1).

    Args:
        slices: (B, C, D, H, W) with D <= rows * columns.
        grid: Rows and columns.

    Returns:
        (B, C, rows * H, columns * W); places without a slice are zero.

    Raises:
        ValueError: If there are more slices than places.
    """
    rows, columns = grid
    padding = rows * columns - slices.shape[2]
    exporting = torch.compiler.is_exporting()  # then these are no numbers, and the reader looks after them
    if not exporting and padding < 0:
        raise ValueError(f"a grid of {rows} x {columns} has no room for {slices.shape[2]} slices")
    if exporting or padding:
        slices = functional.pad(slices, (0, 0, 0, 0, 0, padding))
    batch, channels, _, height, width = slices.shape
    tiles = slices.reshape(batch, channels, rows, columns, height, width).permute(0, 1, 2, 4, 3, 5)
    return tiles.reshape(batch, channels, rows * height, columns * width)


def from_super_image(image: Tensor, grid: tuple[int, int], depth: int) -> Tensor:
    """Undo `to_super_image`: (B, K, rows * h, columns * w) to (B, K, depth, h, w)."""
    rows, columns = grid
    batch, channels, height, width = image.shape
    tiles = image.reshape(batch, channels, rows, height // rows, columns, width // columns).permute(0, 1, 2, 4, 3, 5)
    return tiles.reshape(batch, channels, rows * columns, height // rows, width // columns)[:, :, :depth]


def in_tiles(grid: tuple[int, int], num_slices: int, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change slices that are tiles of an image: the layout of networks that mix slices (seg25d/networks/mixing.py).

    Args:
        grid: Rows and columns.
        num_slices: Of each volume, D; the places behind them are empty, and stay as they are.
        features: (B, C, rows * h, columns * w).
        change: From and to (B, D, C, h, w).

    Returns:
        (B, C, rows * h, columns * w).
    """
    num_places = math.prod(grid)
    places = from_super_image(features, grid, num_places).transpose(1, 2)
    exporting = torch.compiler.is_exporting()  # then these need not be numbers
    if not exporting and num_slices == num_places:
        return to_super_image(change(places).transpose(1, 2), grid)
    if exporting:
        slices, empty = places[:, :num_slices], places[:, num_slices:]
    else:
        slices, empty = places.split_with_sizes([num_slices, num_places - num_slices], 1)
    return to_super_image(torch.cat([change(slices), empty], 1).transpose(1, 2), grid)
