"""STAPLE for several classes, by SimpleITK.

It is not in a module `data/image_*.py`, as it does not read or write files.
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.core.types import IntArray
from seg25d.ensembling.fuse import disputed_voxels, majority_vote

MAX_ITERATIONS = 100
TOLERANCE = 1e-5
"""The iteration ends when no entry of a confusion matrix changes by more than this (ITK's default)."""
_MAX_VALUES = 65535


def staple(labels: Sequence[IntArray]) -> IntArray:
    """Fuse segmentations by STAPLE: votes are weighted by the reliability of each rater, estimated from all of them.

    Every rater has a confusion matrix; matrices and true labels are estimated in turn by expectation maximisation
    (Warfield et al. 2004; with several classes Rohlfing et al. 2004, as in ITK's `MultiLabelSTAPLEImageFilter`). The
    prior of a class is its share of the voxels of all raters, so the result depends slightly on the amount of air.

    Where several classes are equally probable, ITK leaves the voxel undecided and the majority vote decides.

    Args:
        labels: Values (D, H, W), one array per rater, of one shape.

    Returns:
        Values (D, H, W), in a type that can hold the values of all raters.

    Raises:
        ValueError: If there is nothing to fuse, or shapes differ.
    """
    majority = majority_vote(labels)
    if not disputed_voxels(labels).any():
        return majority
    # ITK counts from 0 to the highest value: gaps in the numbering would cost memory and time.
    values = np.unique(np.concatenate([np.unique(array) for array in labels]))
    assert len(values) <= _MAX_VALUES, "label files have fewer values"
    kind = np.uint8 if len(values) < 255 else np.uint16
    images = [sitk.GetImageFromArray(np.searchsorted(values, array).astype(kind)) for array in labels]
    undecided = len(values)
    estimation = sitk.MultiLabelSTAPLEImageFilter()
    estimation.SetLabelForUndecidedPixels(undecided)
    estimation.SetTerminationUpdateThreshold(TOLERANCE)
    estimation.SetMaximumNumberOfIterations(MAX_ITERATIONS)
    fused = sitk.GetArrayFromImage(estimation.Execute(images))
    decided = values[np.minimum(fused, undecided - 1)]
    result: IntArray = np.where(fused == undecided, majority, decided).astype(majority.dtype)
    return result
