"""Coarse-to-fine prediction: around what was found, again and again, until that hardly changes (methods.md 4.1).

Letters: K scores, D H W volume, d h w crop.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.grids import bounding_box, box_slices, with_margin
from seg25d.core.types import BoundingBox, Shape
from seg25d.planning.coarse_to_fine import FineConfig


class Refined(NamedTuple):
    """What a fine model says of a crop."""

    box: BoundingBox
    """Where the crop lies in the volume."""
    scores: Tensor
    """(K, d, h, w)."""
    mask: NDArray[np.bool_]
    """(d, h, w): the foreground, of all classes."""


def fixed_point(
    mask: NDArray[np.bool_], refine: Callable[[BoundingBox], Refined], margin: Shape, fine: FineConfig
) -> Refined | None:
    """Predict the crop around a mask, take the mask of that, and so on.

    It ends when the Dice of two successive masks is high enough, after so many rounds, or when the next round would see
    the same crop again, and so find the same. Dice is that of the foreground of all classes together, as crops depend
    on nothing else. A round that finds nothing ends it too, and does not count: the paper's code then goes back to
    masks of weaker agreement of the views, here the last round that found something stands.

    Args:
        mask: (D, H, W), what the coarse model found.
        refine: Predicts a crop.
        margin: Voxels around a mask along (D, H, W), as far as the volume reaches.
        fine: When it ends.

    Returns:
        The last round that found something; None if there was none, because the mask or the first round is empty.
    """
    last: Refined | None = None
    for _ in range(fine.max_rounds):
        found = bounding_box(mask)
        crop = None if found is None else with_margin(found, margin, mask.shape)
        if crop is None or (last is not None and crop == last.box):
            break
        refined = refine(crop)
        if not refined.mask.any():
            break
        before, mask, last = mask, _placed(refined, mask), refined
        if foreground_dice(before, mask) >= fine.stop_dice:
            break
    return last


def foreground_dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice of two masks (D, H, W), of which one at least is not empty."""
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def _placed(refined: Refined, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros_like(like)
    mask[box_slices(refined.box)] = refined.mask
    return mask
