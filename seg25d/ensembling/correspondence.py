"""Correspondence between voxels of one image, as in non-local means (Buades et al., CVPR 2005).

    alpha(i, i') ~ exp(-msd(i, i') / (2 s_i^2)) exp(-|i - i'|^2 / (2 s_d^2)),   i' near i, sum over i' is 1

msd is the mean squared difference of the patches around i and i' (`MSD` of the wrapper that Asman & Landman published).

Letters: J raters, K values that occur, D H W volume, n queried voxels, m those of them in a tile, b in a block.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.records import Record
from seg25d.core.types import IntArray

TILE = 32
"""Voxels per axis that are compared at a time, to limit the memory; tiles without queried voxels are skipped."""
BLOCK = 1 << 16
"""Queried voxels whose votes are looked at together."""
_OUTSIDE = -1
"""Code of neighbours outside the volume, which are ignored."""
Box = tuple[slice, slice, slice]


class Correspondence(Record):
    """Search range for corresponding voxels, and the similarity that is required."""

    search_radius: int = Field(default=3, ge=0)
    """In voxels: correspondences are searched in a cube of 2 r + 1; 0 gives STAPLE."""
    patch_radius: int = Field(default=2, ge=0)
    """In voxels: cubes of 2 r + 1 are compared; the image is padded with its edge values."""
    distance_deviation: float = Field(default=1.5, gt=0)
    """s_d, in voxels."""
    intensity_deviation: float = Field(default=0.25, gt=0)
    """s_i, in standard deviations of the image around the disputed voxels."""


class Votes:
    """Sums of alpha (J, n, K) without zeros, which nearly all of many labels have, as few of them are near a voxel.

    Args:
        shape: (J, n, K).
    """

    BYTES = 8
    """Of a sum that is not zero, with its place."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.found: list[list[tuple[IntArray, NDArray[np.float32]]]] = [[] for _ in range(-(-shape[1] // BLOCK))]
        """For each block, places in its flat array (J, b, K), and what is there."""

    def add(self, rows: IntArray, votes: NDArray[np.float32]) -> None:
        """Add the sums (J, m, K) of some voxels, which are numbered by `rows` (m,)."""
        blocks = rows // BLOCK
        for number in np.unique(blocks):
            inside = blocks == number
            part, own = votes[:, inside], rows[inside] - number * BLOCK
            rater, row, code = np.nonzero(part)
            shape = self._block_shape(number)
            places = np.ravel_multi_index((rater, own[row], code), shape).astype(np.min_scalar_type(math.prod(shape)))
            self.found[number].append((places, part[rater, row, code]))

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All sums in the order of voxels: the voxels of a block, and its sums (J, b, K)."""
        for number, found in enumerate(self.found):
            shape = self._block_shape(number)
            votes = np.zeros(shape, np.float32)
            for places, values in found:
                votes.reshape(-1)[places] = values
            yield slice(number * BLOCK, number * BLOCK + shape[1]), votes

    def _block_shape(self, number: int) -> tuple[int, int, int]:
        num_raters, num_voxels, num_values = self.shape
        return num_raters, min(BLOCK, num_voxels - number * BLOCK), num_values


def nonlocal_votes(
    codes: Sequence[IntArray],
    image: NDArray[np.float32],
    where: NDArray[np.bool_],
    num_values: int,
    settings: Correspondence,
) -> Votes:
    """Sum the labels that each rater gives around each queried voxel, weighted by correspondence: the sums of alpha.

    Args:
        codes: Positions 0 .. K - 1 of labels (D, H, W), one array per rater, of a type that has -1.
        image: (D, H, W), normalised.
        where: Mask (D, H, W) of the n queried voxels.
        num_values: K.
        settings: Radii and deviations.

    Returns:
        (J, n, K), voxels in the order of `where`; the sum over K is 1.
    """
    found = Votes((len(codes), int(where.sum()), num_values))
    row_of = np.zeros(where.shape, np.min_scalar_type(-found.shape[1]))
    row_of[where] = np.arange(found.shape[1])
    search = settings.search_radius
    padded_image = np.pad(image, search + settings.patch_radius, mode="edge")
    padded_codes = [np.pad(code, search, constant_values=_OUTSIDE) for code in codes]
    strides = np.array([padded_codes[0][0].size, padded_codes[0].shape[2], 1])
    for tile in _tiles(where):
        inside = np.nonzero(where[tile])
        rows = row_of[tile][inside].astype(np.int64)
        # Positions in flat arrays, as gathering from them is faster.
        places = strides @ [axis + part.start + search for axis, part in zip(inside, tile, strict=True)]
        own = np.arange(len(rows))
        votes = np.zeros((len(codes), len(rows), num_values), np.float32)
        total = np.zeros(len(rows), np.float32)
        for offset in itertools.product(range(-search, search + 1), repeat=3):
            neighbours = [code.reshape(-1)[places + strides @ offset] for code in padded_codes]
            alpha = _similarity(padded_image, tile, inside, offset, settings) * (neighbours[0] != _OUTSIDE)
            total += alpha
            for rater, code in enumerate(neighbours):
                votes[rater, own, code] += alpha  # _OUTSIDE, the last code, gets 0
        votes /= total[:, None]
        found.add(rows, votes)
    return found


def _similarity(
    padded: NDArray[np.float32],
    tile: Box,
    inside: tuple[NDArray[np.int64], ...],
    offset: tuple[int, ...],
    settings: Correspondence,
) -> NDArray[np.float32]:
    """Alpha before normalisation to a sum of 1, for voxels in a tile and their neighbours at an offset."""
    from scipy.ndimage import uniform_filter  # noqa: PLC0415 - heavy

    patch, reach = settings.patch_radius, settings.search_radius + settings.patch_radius
    here = padded[_shift_box(tile, (0, 0, 0), reach, patch)]
    there = padded[_shift_box(tile, offset, reach, patch)]
    # The outermost patches are incomplete, but they are not used.
    differences = uniform_filter(np.square(here - there), 2 * patch + 1)[tuple(np.add(inside, patch))]
    distance = sum(step**2 for step in offset) / (2 * settings.distance_deviation**2)
    alpha: NDArray[np.float32] = np.exp(differences / np.float32(-2 * settings.intensity_deviation**2) - distance)
    return alpha


def normalized(image: NDArray[Any]) -> NDArray[np.float32]:
    """Normalise to mean 0 and standard deviation 1; zeros if all voxels are equal."""
    values = image.astype(np.float32)
    deviation = values.std(dtype=np.float64)
    values -= np.float32(values.mean(dtype=np.float64))
    values /= np.float32(deviation or 1)
    return values


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around all true voxels, of which there is at least one."""
    ranges = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    depth, height, width = (slice(int(found[0]), int(found[-1]) + 1) for found in ranges)
    return depth, height, width


def _tiles(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Boxes of at most `TILE` voxels per axis around all true voxels, each as small as possible."""
    for corner in itertools.product(*(range(0, size, TILE) for size in mask.shape)):
        tile = tuple(slice(start, start + TILE) for start in corner)
        if mask[tile].any():
            box = bounding_box(mask[tile])
            yield _shift_box(box, corner, 0)


def _shift_box(box: Box, offset: tuple[int, ...], padding: int, margin: int = 0) -> Box:
    """The box in a padded array, shifted by an offset and enlarged by a margin on all sides."""
    depth, height, width = (
        slice(part.start + padding + step - margin, part.stop + padding + step + margin)
        for part, step in zip(box, offset, strict=True)
    )
    return depth, height, width
