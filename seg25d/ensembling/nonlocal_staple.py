"""Non-local STAPLE (Asman & Landman, Medical Image Analysis 17, 2013), for raters that may be a few voxels off.

STAPLE uses the label that a rater gave at a voxel. Non-local STAPLE uses all labels of the rater in the neighbourhood,
weighted by the similarity of the image there to the image at the voxel.

    alpha(i, i') ~ exp(-msd(i, i') / (2 s_i^2)) exp(-|i - i'|^2 / (2 s_d^2)),   i' near i, sum over i' is 1
    E step       W_i(s) ~ f_i(s) prod_j sum_i' theta_j(D_j(i') | s) alpha(i, i')
    M step       theta_j(s' | s) = sum_i W_i(s) sum_{i': D_j(i') = s'} alpha(i, i') / sum_i W_i(s)

In multi-atlas segmentation every rater has its own image; networks segment this one, so alpha is the same for all of
them, the kernel of non-local means (msd: mean squared difference of two patches). The sums of alpha per rater and
label, which the E and M steps need, are computed once, for disputed voxels only.

Letters: J raters, K values that occur, D H W volume, n disputed voxels.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.memory import lack_of_memory
from seg25d.core.types import IntArray, Shape
from seg25d.ensembling.correspondence import (
    BLOCK,
    Box,
    Correspondence,
    Votes,
    bounding_box,
    nonlocal_votes,
    normalized,
)
from seg25d.ensembling.fuse import check_raters, disputed_voxels, majority_vote

_TIED = 1e-9
DISPUTED_SHARE = 0.05
"""Share of the voxels that raters are reckoned to dispute, before they are read."""
LABELS_NEAR = 4
"""Labels that a rater is reckoned to have around a disputed voxel, in the mean."""
_BYTES_PER_VOXEL, _BYTES_PER_VOXEL_AND_RATER = 24, 4
"""Memory beside the votes. Of each rater labels, codes, and codes with a border: a byte each, or more where there are
many labels. The image as it is, normalised, and with a border, and numbers of rows: 4 bytes each; the majority vote,
and masks."""
_BYTES_OF_A_BLOCK = 32
"""Memory for each voxel and label of a block, beside 4 bytes of each rater: four arrays of probabilities."""


class NonlocalStapleSettings(Correspondence):
    """Settings of non-local STAPLE; the defaults are those of the authors' wrapper (`PyJIST`, StatisticalFusion)."""

    prior: Literal["voxelwise", "global"] = "voxelwise"
    """f: the share of raters that chose a label at the voxel, or at all disputed voxels."""
    consensus: float | None = Field(default=0.99, gt=0, le=1)
    """Voxels with a label that this share of raters chose keep it and are not disputed; null: all are disputed."""
    agreed_margin: int = Field(default=2, ge=0)
    """In voxels: agreed labels this close to disputed ones count as true in rating the raters; 0: none do.

    The authors do not specify this. With none, one of three similar raters ends up deciding alone; with all, the
    background makes false foreground so improbable that every vote for foreground wins. Values of 1 to 3 avoid both
    (documentation/concepts/choices.md).
    """
    tolerance: float = Field(default=1e-4, gt=0)
    """The iteration ends when no theta changes by more than this."""
    max_iterations: int = Field(default=100, ge=1)


def nonlocal_staple(
    labels: Sequence[IntArray], image: NDArray[Any], settings: NonlocalStapleSettings | None = None
) -> IntArray:
    """Fuse segmentations by non-local STAPLE.

    Memory: 8 bytes for each rater, disputed voxel and label near it, and arrays of the box around all of these voxels.

    Args:
        labels: Values (D, H, W), one array per rater, of one shape.
        image: The image (D, H, W) that was segmented, in any units.
        settings: Settings; None: the defaults.

    Returns:
        Values (D, H, W), in a type that can hold the values of all raters; the majority vote where nothing is disputed,
        and where labels are equally probable.

    Raises:
        InputError: If the memory does not suffice.
        ValueError: If there is nothing to fuse, or shapes differ.
    """
    settings = settings or NonlocalStapleSettings()
    check_raters([*labels, image])
    result = majority_vote(labels)
    disputed = _find_disputed(labels, settings.consensus)
    if not disputed.any():
        return result
    margin = max(settings.search_radius + settings.patch_radius, settings.agreed_margin)
    box = _enlarge_box(bounding_box(disputed), margin, disputed.shape)
    where, inside = disputed[box], result[box]
    values = np.unique(np.concatenate([np.unique(array[box]) for array in labels]))
    _check_memory(int(np.count_nonzero(where)), len(labels), len(values))
    small = np.min_scalar_type(-len(values))
    codes = [np.searchsorted(values, array[box]).astype(small) for array in labels]
    raters = _Raters(
        votes=nonlocal_votes(codes, normalized(image[box]), where, len(values), settings),
        chosen=np.stack([each[where] for each in codes]),
        agreed=_count_agreeing(codes, np.searchsorted(values, inside), where, len(values), settings.agreed_margin),
    )
    fused, tied = _estimate(raters, settings)
    inside[where] = np.where(tied, inside[where], values[fused])
    return result


def worker_bytes(num_voxels: int, num_raters: int, num_values: int, settings: NonlocalStapleSettings) -> int:
    """Memory of a process that fuses segmentations.

    Args:
        num_voxels: Of each.
        num_raters: How many there are.
        num_values: Labels that may occur.
        settings: Of the fusion.
    """
    disputed = num_voxels if settings.consensus is None else int(DISPUTED_SHARE * num_voxels)
    arrays = (_BYTES_PER_VOXEL + _BYTES_PER_VOXEL_AND_RATER * num_raters) * num_voxels
    return arrays + disputed * _bytes_of_votes(num_raters, num_values) + _block_bytes(disputed, num_raters, num_values)


def _bytes_of_votes(num_raters: int, num_values: int) -> int:
    """What the votes at a disputed voxel take, in the mean."""
    return num_raters * min(num_values, LABELS_NEAR) * Votes.BYTES


def _block_bytes(num_disputed: int, num_raters: int, num_values: int) -> int:
    return min(BLOCK, num_disputed) * num_values * (4 * num_raters + _BYTES_OF_A_BLOCK)


def _check_memory(num_disputed: int, num_raters: int, num_values: int) -> None:
    """Compare what the votes take with the memory that is free.

    Raises:
        InputError: If there is too little; says what to do.
    """
    bytes_of_votes = _bytes_of_votes(num_raters, num_values)
    block = _block_bytes(num_disputed, num_raters, num_values)
    if lack := lack_of_memory((num_disputed,), bytes_of_votes, block):
        raise InputError(
            f"non-local STAPLE of {num_raters} segmentations that dispute {num_disputed:,} voxels: {lack}; take "
            "--method majority or staple, fewer processes (--num-processes 0), or a machine with more memory"
        )


class _Raters(NamedTuple):
    """Input of expectation maximisation."""

    votes: Votes
    """(J, n, K) of `nonlocal_votes`."""
    chosen: IntArray
    """(J, n): the codes that raters gave at the disputed voxels."""
    agreed: NDArray[np.int64]
    """(J, K, K): numbers of agreed voxels that count, per true code and code of the rater (last axis)."""

    def prior(self, block: slice, kind: str) -> NDArray[np.float64]:
        """Compute f, the prior of K codes for the voxels of a block: (voxels of the block, K)."""
        num_values = self.votes.shape[2]
        if kind == "global":
            everywhere = np.bincount(self.chosen.ravel(), minlength=num_values) / self.chosen.size
            return np.broadcast_to(everywhere, (len(self.chosen[0, block]), num_values))
        share: NDArray[np.float64] = (self.chosen[:, block, None] == np.arange(num_values)).mean(axis=0)
        return share

    def performance(
        self, truth: Callable[[slice, NDArray[np.float32]], NDArray[np.floating[Any]]]
    ) -> NDArray[np.float64]:
        """Compute the M step: theta (J, K, K), the probability of each code of a rater (last axis) for each true code.

        `truth` takes the voxels of a block and its votes, and returns W (voxels of a block, K). A code that is true
        nowhere has zeros.
        """
        said = self.agreed.astype(np.float64)
        for block, votes in self.votes.blocks():
            weights = truth(block, votes).astype(np.float64)
            for rater, own in enumerate(votes):
                said[rater] += weights.T @ own
        # Votes of a voxel add up to 1, so this is the sum of W.
        mass = said.sum(axis=2, keepdims=True)
        theta: NDArray[np.float64] = np.divide(said, mass, out=np.zeros_like(said), where=mass > 0)
        return theta


def _estimate(raters: _Raters, settings: NonlocalStapleSettings) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Run expectation maximisation, starting from the mean of the votes.

    Returns:
        The most probable code (n,), and a mask (n,) of ties.
    """
    num_voxels = raters.votes.shape[1]
    theta = raters.performance(lambda _, votes: votes.mean(axis=0))

    def posterior(block: slice, votes: NDArray[np.float32]) -> NDArray[np.float64]:
        return _posterior(votes, raters.prior(block, settings.prior), theta)

    for _ in range(settings.max_iterations):
        before, theta = theta, raters.performance(posterior)
        if np.abs(theta - before).max() < settings.tolerance:
            break
    fused, tied = np.zeros(num_voxels, np.int64), np.zeros(num_voxels, np.bool_)
    for block, votes in raters.votes.blocks():
        probabilities = posterior(block, votes)
        fused[block] = probabilities.argmax(axis=1)
        tied[block] = (probabilities >= probabilities.max(axis=1, keepdims=True) - _TIED).sum(axis=1) > 1
    return fused, tied


def _count_agreeing(
    codes: Sequence[IntArray],
    truth: NDArray[np.int64],
    disputed: NDArray[np.bool_],
    num_values: int,
    margin: int,
) -> NDArray[np.int64]:
    """Compute `_Raters.agreed` from undisputed voxels (D, H, W) with disputed ones within the margin."""
    from scipy.ndimage import maximum_filter  # noqa: PLC0415 - heavy

    near = maximum_filter(disputed, 2 * margin + 1, mode="constant") & ~disputed
    pairs = [truth[near] * num_values + code[near] for code in codes]
    return np.stack([np.bincount(each, minlength=num_values**2).reshape(num_values, num_values) for each in pairs])


def _posterior(
    votes: NDArray[np.float32], prior: NDArray[np.float64], theta: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the E step for some voxels: W (n, K); the prior where the raters' codes have probability 0."""
    product = prior.copy()
    for said, performance in zip(votes, theta, strict=True):
        product *= said @ performance.T
    total = product.sum(axis=1, keepdims=True)
    return np.where(total > 0, product / np.where(total > 0, total, 1), prior)


def _find_disputed(labels: Sequence[IntArray], consensus: float | None) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the voxels where no label has the share of raters that `consensus` requires."""
    if consensus is None:
        return np.ones(labels[0].shape, np.bool_)
    disputed = disputed_voxels(labels)
    values = np.stack([array[disputed] for array in labels])
    most = np.zeros(values.shape[1], np.int64)
    for own in values:
        np.maximum(most, (values == own).sum(axis=0), out=most)
    disputed[disputed] = most < consensus * len(labels)
    return disputed


def _enlarge_box(box: Box, margin: int, shape: Shape) -> Box:
    depth, height, width = (
        slice(max(0, part.start - margin), min(size, part.stop + margin)) for part, size in zip(box, shape, strict=True)
    )
    return depth, height, width
