"""Voxel-wise fusion: the mean of probabilities, and majority voting.

Letters: J raters (the predictions to fuse), K channels of probabilities, D H W volume, n voxels.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import Windows
from seg25d.core.types import IntArray

_TIED = 1e-9
"""Weighted votes that differ by less than this share of all votes are tied, to allow for rounding of sums."""
_BLOCK = 1 << 20


def mean_of_probabilities(
    probabilities: Iterable[NDArray[np.floating[Any]]], weights: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """Average probabilities; with weights this is the linear opinion pool (Stone, Ann. Math. Statist. 32, 1961).

    Args:
        probabilities: One array (K, D, H, W) per rater, all of the same shape; read one after the other, so that a
            generator needs the memory of only two of them.
        weights: One per rater, at least 0 and not all 0; they need not add up to 1. None: equal weights.

    Returns:
        Mean (K, D, H, W); classes that add up to 1 in all inputs also do so here.

    Raises:
        ValueError: If there is nothing to average, shapes differ, or the weights are invalid.
    """
    shares = None if weights is None else list(check_weights(weights))
    total: NDArray[np.float32] | None = None
    used: list[float] = []
    for array in probabilities:
        if shares is not None and len(used) == len(shares):
            raise ValueError(f"expected one weight per rater; got {len(shares)} for more raters")
        used.append(1.0 if shares is None else shares[len(used)])
        if total is None:
            total = np.multiply(array, used[-1], dtype=np.float32)
        elif total.shape != array.shape:
            raise ValueError(f"the probabilities have shapes {total.shape} and {array.shape}; they must be the same")
        else:
            _add_weighted(total, array, used[-1])
        # Otherwise this array is kept while the next one is computed.
        del array
    if total is None:
        raise ValueError("there are no probabilities to average")
    if shares is not None and len(used) < len(shares):
        raise ValueError(f"expected one weight per rater; got {len(shares)} for {len(used)} raters")
    total /= np.float32(sum(used))
    return total


class MeanProbabilities:
    """The mean of probabilities (K, D, H, W), computed of what is read: `mean[3, :, 0:64]`.

    Args:
        probabilities: One per rater, all of the same shape.
        weights: See `mean_of_probabilities`.
    """

    def __init__(self, probabilities: Sequence[Windows], weights: Sequence[float] | None = None) -> None:
        self.probabilities = probabilities
        self.weights = weights

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, D, H, W)."""
        return tuple(self.probabilities[0].shape)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        return mean_of_probabilities((each[key] for each in self.probabilities), self.weights)


def majority_vote(labels: Sequence[IntArray], weights: Sequence[float] | None = None) -> IntArray:
    """Choose the value that most raters chose, for each voxel.

    Ties: if several values have the most votes, the background 0 is excluded if more than half of all votes are for
    foreground (0, 1, 2 gives 1, as two of three raters chose foreground); the lowest of the remaining values wins. With
    one class, two raters have to agree on foreground, and of three raters at least two (fusion of the coarse stage of
    OrganSegC2F, Zhou et al. 2017). The order of the raters makes no difference.

    Args:
        labels: Values (D, H, W), one array per rater, of one shape.
        weights: Number of votes of each rater, at least 0 and not all 0; None: one each.

    Returns:
        Values (D, H, W), in a type that can hold the values of all raters.

    Raises:
        ValueError: If there is nothing to vote on, shapes differ, or the weights are invalid.
    """
    check_raters(labels)
    votes = np.array(check_weights([1.0] * len(labels) if weights is None else weights))
    if len(votes) != len(labels):
        raise ValueError(f"expected {len(labels)} weights, one per rater; got {len(votes)}")
    flat = [array.reshape(-1) for array in labels]
    result = flat[0].astype(np.result_type(*flat))
    disputed = np.flatnonzero(disputed_voxels(labels))
    for start in range(0, len(disputed), _BLOCK):
        where = disputed[start : start + _BLOCK]
        result[where] = _vote(np.stack([array[where] for array in flat]), votes / votes.sum())
    return result.reshape(labels[0].shape)


def disputed_voxels(labels: Sequence[IntArray]) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the voxels where raters differ."""
    disputed = np.zeros(labels[0].shape, np.bool_)
    for other in labels[1:]:
        disputed |= other != labels[0]
    return disputed


def check_raters(labels: Sequence[NDArray[Any]]) -> None:
    """Check that there are segmentations of one shape to fuse.

    Raises:
        ValueError: If there are no raters, or their shapes differ.
    """
    shapes = {array.shape for array in labels}
    if len(shapes) != 1:
        raise ValueError(f"expected segmentations of one shape to fuse; got {len(labels)} of shapes {sorted(shapes)}")


def check_weights(weights: Sequence[float]) -> Sequence[float]:
    """Return the weights if they are valid.

    Raises:
        ValueError: If one is negative or not finite, or none is above 0.
    """
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        listed = " ".join(f"{weight:g}" for weight in weights)
        raise ValueError(f"weights must be numbers of at least 0, and one of them above 0; got {listed or 'none'}")
    return weights


def _add_weighted(total: NDArray[np.float32], array: NDArray[np.floating[Any]], weight: float) -> None:
    """Add to `total` (K, ...) class by class, which avoids a third array of that size."""
    for channel in range(len(total)):
        total[channel] += np.multiply(array[channel], weight, dtype=np.float32)


def _vote(values: IntArray, votes: NDArray[np.float64]) -> IntArray:
    """Choose the winners (n,) of values (J, n); `votes` (J,) add up to 1."""
    tally = np.stack([votes @ (values == own) for own in values])
    tied = tally >= tally.max(axis=0) - _TIED
    last = np.iinfo(values.dtype).max
    lowest = np.where(tied, values, last).min(axis=0)
    lowest_something = np.where(tied & (values != 0), values, last)
    is_something = (votes @ (values != 0) > 0.5 + _TIED) & (tied & (values != 0)).any(axis=0)
    winners: IntArray = np.where(is_something, lowest_something.min(axis=0), lowest)
    return winners
