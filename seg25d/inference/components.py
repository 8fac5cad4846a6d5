"""Connected components of predicted labels."""

import numpy as np
from numpy.typing import NDArray

LARGE = 0.5
"""Share of the voxels of the largest component of a class from which on a component stays (methods.md 4.1)."""


def small_components(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The voxels of components (6 neighbours) with less than half of the voxels of the largest one of their class.

    Args:
        labels: (D, H, W), internal indices; 0 is background.

    Returns:
        (D, H, W); nothing where there is no foreground.
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
