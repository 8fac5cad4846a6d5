"""Training on the slices that show most of an object: which these are, and windows around them (methods.md 4.1)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.training.config import TrainingConfig
from seg25d.training.crops import object_mask


def check_largest_slices(config: TrainingConfig, plan: ConfigurationPlan) -> None:
    """Check that windows can be drawn by slices, if that is set.

    Raises:
        InputError: If the method does not see single slices.
    """
    if config.largest_slices is not None and plan.representation.free_axis is None:
        raise InputError(
            f"largest_slices: expected a method of single slices (axial, coronal, sagittal), got "
            f"{plan.representation.name}; leave it out"
        )


def largest_slices(store: Store, cases: Sequence[str], axis: int, share: float) -> list[tuple[str, int]]:
    """Find the slices of all cases with the largest area of foreground, ignored voxels aside.

    As in the code of Zhou et al. 2017 (methods.md 4.1; OrganSegC2F, DataC.py), slices of all cases are compared, and
    the number of those that are kept is rounded down; at least one is. Of equal areas earlier slices come first (there
    all that are as large as the last one are kept).

    Args:
        store: Of the cases.
        cases: Whose labels are read.
        axis: Along which slices are taken: 0 D, 1 H, 2 W.
        share: Of the slices that have foreground.

    Returns:
        Case and number of each slice, from the largest area on; empty where there is no foreground.
    """
    others = tuple(other for other in range(3) if other != axis)
    found: list[tuple[int, str, int]] = []
    for case in cases:
        areas = np.count_nonzero(object_mask(store.open_labels(case)[:]), axis=others)
        found += [(int(areas[number]), case, int(number)) for number in np.flatnonzero(areas)]
    found.sort(key=lambda each: -each[0])
    return [(case, number) for _, case, number in found[: max(1, math.floor(share * len(found)))]]


def draw_in_slice(rng: np.random.Generator, labels: Any, axis: int, number: int) -> NDArray[np.integer[Any]]:
    """Draw a foreground voxel (D, H, W) of a slice that has some.

    Args:
        rng: Draws it.
        labels: (D, H, W), internal indices, sliceable.
        axis: Along which slices are taken.
        number: Of the slice.
    """
    where = [slice(None)] * 3
    where[axis] = slice(number, number + 1)
    voxels = np.argwhere(object_mask(np.asarray(labels[tuple(where)])))
    voxels[:, axis] = number
    return np.asarray(voxels[int(rng.integers(len(voxels)))])
