"""Distances between the surfaces of segmentations, as defined in MONAI, computed from the surface voxels only.

MONAI (`monai.metrics`) computes a mask, its erosion and a list of coordinates for each class and volume. Here, one pass
over the labels finds the surface voxels of all classes, so that the time for a class depends only on its surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import Spacing
from seg25d.data.labels import NUM_INDICES

SURFACE_TOLERANCE_MM = 3.0
"""Default tolerance of deviations between surfaces: that of TotalSegmentator (Wasserthal et al. 2023,
`resources/evaluate.py` there). The deviation between two human readers is a better choice if it is known (Nikolov et
al. 2021)."""
PERCENTILE = 95
_LEAF_SIZE = 32
"""Points per leaf of the tree for nearest neighbours; faster than scipy's default of 10 for a single query (as in
MONAI)."""


@dataclass(frozen=True)
class Surfaces:
    """The voxels of a label array that share a face with a voxel of another label or with the border of the array.

    Attributes:
        labels: (D + 2, H + 2, W + 2), the array padded with one background voxel on each side.
        voxels: (N,) positions in the flattened `labels`, sorted by label and then by position.
        starts: (257,) start of the voxels of each label in `voxels`.
    """

    labels: NDArray[np.uint8]
    voxels: NDArray[np.int64]
    starts: NDArray[np.int64]

    def of(self, members: Sequence[int]) -> NDArray[np.int64]:
        """Find the surface of a class or region: its voxels that share a face with a voxel outside it.

        Args:
            members: Labels that belong to it.

        Returns:
            (n,) positions in the flattened `labels`, in ascending order; empty if the class is absent.
        """
        parts = [self.voxels[self.starts[index] : self.starts[index + 1]] for index in members]
        if len(parts) == 1:
            return parts[0]
        touching = np.sort(np.concatenate(parts))
        inside = np.zeros(NUM_INDICES, np.bool_)
        inside[list(members)] = True
        enclosed = np.ones(len(touching), np.bool_)
        flat = self.labels.reshape(-1)
        _, height, width = self.labels.shape
        for step in (1, width, height * width):
            enclosed &= inside[flat[touching - step]] & inside[flat[touching + step]]
        return touching[~enclosed]


class SurfaceScores(NamedTuple):
    """Scores from the distances between two surfaces."""

    hd95_mm: float
    surface_dice: float


def find_surfaces(labels: NDArray[np.uint8]) -> Surfaces:
    """Find the surface voxels of all labels above 0.

    Args:
        labels: (D, H, W), internal indices; not changed.
    """
    padded = np.pad(labels, 1)
    touches = np.zeros(padded.shape, np.bool_)
    for axis in range(3):
        here, seen = np.moveaxis(padded, axis, 0), np.moveaxis(touches, axis, 0)
        differs = here[1:] != here[:-1]
        seen[1:] |= differs
        seen[:-1] |= differs
    touches &= padded > 0
    positions = np.flatnonzero(touches)
    indices = padded.reshape(-1)[positions]
    order = np.argsort(indices, kind="stable")
    starts = np.concatenate([[0], np.bincount(indices, minlength=NUM_INDICES).cumsum()])
    return Surfaces(padded, positions[order], starts)


def surface_scores(
    reference: Surfaces, prediction: Surfaces, members: Sequence[int], spacing_mm: Spacing, tolerance_mm: float
) -> SurfaceScores | None:
    """Compute the 95 % Hausdorff distance and the normalised surface Dice of a class or region.

    Distances are measured from the centre of each surface voxel to that of the nearest one of the other surface.
    The first score is the larger of the two 95th percentiles, the second the share of all distances up to the tolerance
    (Nikolov et al. 2021; counted in voxels as in MONAI's `compute_surface_dice`, not weighted by area).

    Args:
        reference: Surfaces of the true array.
        prediction: Surfaces of the predicted array, of the same shape.
        members: Labels that belong to the class or region.
        spacing_mm: Spacing of both.
        tolerance_mm: Distance that is tolerated.

    Returns:
        The scores; None if either surface is empty.
    """
    truth, guess = reference.of(members), prediction.of(members)
    if not (len(truth) and len(guess)):
        return None
    shape = reference.labels.shape
    distances = [_distances(*pair, shape, spacing_mm) for pair in ((truth, guess), (guess, truth))]
    close = sum(np.count_nonzero(each <= tolerance_mm) for each in distances)
    return SurfaceScores(
        hd95_mm=max(float(np.percentile(each, PERCENTILE)) for each in distances),
        surface_dice=close / (len(truth) + len(guess)),
    )


def _distances(
    here: NDArray[np.int64], there: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: Spacing
) -> NDArray[np.float32]:
    """Distances (n,) in mm from each voxel of `here` to the nearest of `there`, in float32 as in MONAI."""
    from scipy.spatial import KDTree  # noqa: PLC0415 - heavy

    distances = np.zeros(len(here), np.float32)
    apart = ~np.isin(here, there, assume_unique=True, kind="sort")
    if apart.any():
        # The padding keeps coordinates away from 0: next to it the tree splits at a denormal number, and recurses
        # endlessly if those are flushed to zero, as in training and prediction on a CPU.
        tree = KDTree(_coordinates(there, shape, spacing_mm), leafsize=_LEAF_SIZE)
        distances[apart] = tree.query(_coordinates(here[apart], shape, spacing_mm))[0]
    return distances


def _coordinates(positions: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Coordinates (n, 3) in mm."""
    coordinates = np.stack(np.unravel_index(positions, shape), axis=1).astype(np.float64)
    coordinates *= spacing_mm
    return coordinates
