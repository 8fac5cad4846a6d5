"""Distances between the surfaces of segmentations, as MONAI defines them, from nothing but the surface voxels.

MONAI (`monai.metrics`) makes a mask, its erosion and a list of coordinates per class and volume. Here one pass over the
labels finds the surface voxels of all classes, so that a class costs as much as it has surface, wherever it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import Spacing
from seg25d.data.labels import NUM_INDICES

SURFACE_TOLERANCE_MM = 3.0
"""Deviation of surfaces that counts as none, unless another is asked for: that of TotalSegmentator (Wasserthal et al.
2023, `resources/evaluate.py` there). Where the deviation between two human readers is known, it is the better choice
(Nikolov et al. 2021)."""
PERCENTILE = 95
_LEAF_SIZE = 32
"""Points per leaf of the tree that finds nearest neighbours: faster than scipy's 10 for a tree that is asked once (as
in MONAI)."""


@dataclass(frozen=True)
class Surfaces:
    """The voxels of a label array that touch, by a face, a voxel with another label or the border of the array.

    Attributes:
        labels: (D + 2, H + 2, W + 2), the array with a background voxel around it.
        voxels: (N,) positions in `labels`, flattened, sorted by label and then by position.
        starts: (257,) where the voxels of each label begin in `voxels`.
    """

    labels: NDArray[np.uint8]
    voxels: NDArray[np.int64]
    starts: NDArray[np.int64]

    def of(self, members: Sequence[int]) -> NDArray[np.int64]:
        """The surface of a class or region: its voxels that touch one outside of it.

        Args:
            members: Labels that belong to it.

        Returns:
            (n,) positions in `labels`, flattened, rising; none where it is absent.
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
    """What the distances between two surfaces say."""

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
    """The 95 % Hausdorff distance and the normalised surface Dice of a class or region.

    For each surface voxel of one mask the distance to the nearest surface voxel of the other is taken, between centres.
    The larger of the two 95th percentiles is the first score, the share of all these distances up to the tolerance the
    second (Nikolov et al. 2021; counted in voxels as MONAI's `compute_surface_dice` does, not weighed by area).

    Args:
        reference: Of one array.
        prediction: Of another one of the same shape.
        members: Labels that belong to the class or region.
        spacing_mm: Of both.
        tolerance_mm: Distance that counts as none.

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
    """(n,) millimetres from each voxel of `here` to the nearest of `there`; 32 bits, in which MONAI compares them."""
    from scipy.spatial import KDTree  # noqa: PLC0415 - heavy

    distances = np.zeros(len(here), np.float32)
    apart = ~np.isin(here, there, assume_unique=True, kind="sort")
    if apart.any():
        # The voxel around the array keeps coordinates off 0: next to it the tree splits at a denormal number, and
        # recurses without end where those are flushed to zero, as training and prediction on a CPU do.
        tree = KDTree(_coordinates(there, shape, spacing_mm), leafsize=_LEAF_SIZE)
        distances[apart] = tree.query(_coordinates(here[apart], shape, spacing_mm))[0]
    return distances


def _coordinates(positions: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: Spacing) -> NDArray[np.float64]:
    """(n, 3) millimetres."""
    coordinates = np.stack(np.unravel_index(positions, shape), axis=1).astype(np.float64)
    coordinates *= spacing_mm
    return coordinates
