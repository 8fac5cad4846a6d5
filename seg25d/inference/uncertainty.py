"""What the probabilities of a segmentation say of it: sums for each structure, and a map of where it is unsure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import FloatArray
from seg25d.data.labels import NUM_INDICES, Labels, is_any_of
from seg25d.evaluation.predicted_dice import Sums

STEPS = 1024
"""Of a map: written with all digits, it takes three times the place and time (a smooth made-up one of 32 bits)."""


class Uncertainty:
    """Collects, plane by plane, what the probabilities say.

    Args:
        labels: Meaning of probabilities and indices.
        with_map: Whether to make a map, too.
    """

    def __init__(self, labels: Labels, *, with_map: bool = False) -> None:
        self.labels = labels
        self.with_map = with_map
        self.begin((0, 0, 0))

    def begin(self, shape: Sequence[int]) -> None:
        """Forget what was added, as the prediction of an image (D, H, W) begins, perhaps anew."""
        names = self.labels.foreground
        self._voxels, self._inside = np.zeros(len(names), np.int64), np.zeros(len(names))
        self.map = np.zeros(shape, np.float16) if self.with_map else None
        """(D, H, W): 0 where one class is certain (or every region is, or is not), 1 where nothing is known."""

    def add(self, probabilities: FloatArray, indices: NDArray[np.uint8], place: FloatArray | None = None) -> None:
        """Add some voxels.

        Args:
            probabilities: (K, ...) of the classes, or of each region.
            indices: (...) what was chosen, internal indices.
            place: (...) the part of the map where they are.
        """
        regions = self.labels.has_regions
        if regions:
            counts = np.bincount(indices.reshape(-1), minlength=NUM_INDICES)
            for number, members in enumerate(self.labels.foreground.values()):
                self._voxels[number] += counts[list(members)].sum()
                self._inside[number] += probabilities[number][is_any_of(indices, members)].sum(dtype=np.float64)
        else:
            own = np.take_along_axis(probabilities, indices[None].astype(np.intp), 0)
            flat, size = indices.reshape(-1), len(probabilities)
            self._voxels += np.bincount(flat, minlength=size)[1:]
            self._inside += np.bincount(flat, weights=own.reshape(-1), minlength=size)[1:]
        if place is not None:
            place[...] = entropy(probabilities, regions=regions)

    def finished_map(self, *, grey: bool = False) -> NDArray[Any]:
        """The map, from 0 to 1 in steps of 1 / `STEPS`, which compress well; `grey`: 0 to 255, for pictures."""
        assert self.map is not None, "it was asked for"
        values = self.map.astype(np.float32)
        values *= np.float32(255 if grey else STEPS)
        np.rint(values, out=values)
        if grey:
            return values.astype(np.uint8)
        values /= np.float32(STEPS)
        return values

    @property
    def sums(self) -> dict[str, Sums]:
        """The sums of each class or region."""
        return {
            name: Sums(voxels=int(voxels), inside=float(inside))
            for name, voxels, inside in zip(self.labels.foreground, self._voxels, self._inside, strict=True)
        }


def entropy(probabilities: FloatArray, *, regions: bool) -> FloatArray:
    """Entropy of probabilities (K, ...), as a share of the largest that there can be.

    Args:
        probabilities: Of classes that exclude each other, or of each region.
        regions: Whether they are of regions; the entropy is then that of the region that is least sure.

    Returns:
        (...), 0 to 1.
    """
    if not regions:
        return _sum_of_entropies(probabilities) / np.float32(np.log(len(probabilities)))
    unsure = np.zeros(probabilities.shape[1:], np.float32)
    for each in probabilities:
        np.maximum(unsure, _sum_of_entropies((each, 1 - each)), out=unsure)
    return unsure / np.float32(np.log(2))


def _sum_of_entropies(parts: FloatArray | tuple[FloatArray, ...]) -> FloatArray:
    total: FloatArray | None = None
    for part in parts:
        own = -part * np.log(np.maximum(part, np.float32(1e-30)))
        total = own if total is None else np.add(total, own, out=total)
    assert total is not None, "there is at least one class"
    return total
