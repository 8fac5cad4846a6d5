"""Connected components of predicted labels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGE = 0.5
"""Minimum size of a component to be kept, as a share of the largest component of its class (methods.md 4.1)."""


def small_components(labels: NDArray[np.uint8], planes: Sequence[NDArray[np.uint8]] = ()) -> NDArray[np.bool_]:
    """Mask of components (6 neighbours) with less than half of the voxels of the largest one of their class.

    Where labels are fused of several planes, components without a seed voxel are in the mask, too, and do not count
    as the largest (methods.md 4.1, of the code of Zhou et al. 2017). Seed voxels of a class are those that all planes
    give to it; where there are none those of all planes but one, and so on.

    Args:
        labels: (D, H, W), internal indices; 0 is background.
        planes: What each plane predicts, (D, H, W), internal indices; none: every component may be kept.

    Returns:
        Mask (D, H, W); empty if there is no foreground.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    small = np.zeros(labels.shape, np.bool_)
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        inside = labels[box] == index
        components, _ = ndimage.label(inside)
        sizes = np.bincount(components.ravel())
        if planes:
            seeds = _seeds(inside, [plane[box] == index for plane in planes])
            sizes[np.bincount(components[seeds], minlength=len(sizes)) == 0] = 0
        sizes[0] = 0
        too_small = sizes < LARGE * sizes.max()
        too_small[0] = False
        small[box] |= too_small[components]
    return small


def _seeds(inside: NDArray[np.bool_], planes: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The voxels of a class (D, H, W) on which the most planes agree; at least one of them."""
    votes = np.stack(planes).sum(0, dtype=np.uint8)
    agreed: NDArray[np.bool_] = inside & (votes == votes[inside].max())
    return agreed
