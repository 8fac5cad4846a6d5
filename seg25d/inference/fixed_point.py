"""Fixed-point iteration of coarse-to-fine prediction: crop and predict until the mask hardly changes (methods.md 4.1).

Letters: K scores, D H W volume, d h w crop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import bounding_box, box_slices, with_margin
from seg25d.core.types import BoundingBox, Shape
from seg25d.planning.coarse_to_fine import FineConfig


class Refined(NamedTuple):
    """Prediction of a fine model in a crop."""

    box: BoundingBox
    """Position of the crop in the volume."""
    scores: Any
    """An array (K, d, h, w), or one of each model."""
    mask: NDArray[np.bool_]
    """(d, h, w): the foreground of all classes together."""


def fixed_point(
    mask: NDArray[np.bool_], refine: Callable[[BoundingBox], Refined], margin: Shape, fine: FineConfig
) -> Refined | None:
    """Predict the crop around a mask, then the crop around the predicted mask, and so on.

    The iteration ends when the Dice of two successive masks is high enough, after a maximum number of rounds, or when
    the next crop would be the same again. The Dice is that of the foreground of all classes together, as crops depend
    only on that. A round that finds nothing also ends the iteration and is not used: in the code of Zhou et al. 2017
    the result is then empty, here it is the last round that found something.

    Args:
        mask: Foreground (D, H, W) of the coarse model.
        refine: Function that predicts a crop.
        margin: Voxels around a mask along (D, H, W), cut off at the border of the volume.
        fine: Settings with the end of the iteration.

    Returns:
        The last round that found something; None if the mask or the first round is empty.
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
        before, mask, last = mask, _insert_crop(refined, mask), refined
        if foreground_dice(before, mask) >= fine.stop_dice:
            break
    return last


def foreground_dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice of two masks (D, H, W), of which at least one is not empty."""
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def _insert_crop(refined: Refined, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros_like(like)
    mask[box_slices(refined.box)] = refined.mask
    return mask
