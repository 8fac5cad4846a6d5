"""Connected components of predicted labels."""

import numpy as np
from numpy.typing import NDArray

LARGE = 0.5
"""Minimum size of a component to be kept, as a share of the largest component of its class (methods.md 4.1)."""


def small_components(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of components (6 neighbours) with less than half of the voxels of the largest one of their class.

    Args:
        labels: (D, H, W), internal indices; 0 is background.

    Returns:
        Mask (D, H, W); empty if there is no foreground.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    small = np.zeros(labels.shape, np.bool_)
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        components, _ = ndimage.label(labels[box] == index)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        too_small = sizes < LARGE * sizes.max()
        too_small[0] = False
        small[box] |= too_small[components]
    return small
