"""Weights of an ensemble, fitted on cases with known truth.

The fit maximises the mean Dice of the averaged probabilities, in the form with squares of V-Net (Milletari et al. 2016,
section 3): 2 sum(p g) / (sum(p^2) + sum(g^2)). Other measures are less suitable: the Dice of the final labels is a step
function; with p instead of p^2 all weight would go to one model, as a quotient of linear functions is largest in a
corner; cross entropy is dominated by the many background voxels, and needs all of them in every step. With
p = sum_j w_j p_j this Dice depends only on sum(p_j g), sum(p_j p_k) and sum(g) of each case: a few numbers per class,
independent of the size of the case, without random sampling of voxels.

Letters: J raters (the predictions to average), K channels of probabilities, D H W volume.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import CHUNK, Windows
from seg25d.data.labels import IGNORE_INDEX, Labels, is_any_of
from seg25d.inference.probability_files import ProbabilityFile

DECIMALS = 3
"""Decimals of fitted weights; more would be noise."""


class OverlapSums(NamedTuple):
    """Sums from which the Dice of any weighted average follows, for one class in one case."""

    overlaps: NDArray[np.float64]
    """(J,): sum(p_j g)"""
    products: NDArray[np.float64]
    """(J, J): sum(p_j p_k)"""
    size: float
    """sum(g), above 0"""

    def dice(self, weights: NDArray[np.float64]) -> float:
        """Compute the Dice of the average with these weights (J,)."""
        return float(2 * self.overlaps @ weights / self._denominator(weights))

    def gradient(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the gradient of the Dice with respect to the weights (J,)."""
        change: NDArray[np.float64] = 2 * self.overlaps - self.dice(weights) * 2 * self.products @ weights
        return change / self._denominator(weights)

    def _denominator(self, weights: NDArray[np.float64]) -> float:
        return float(weights @ self.products @ weights + self.size)


def overlap_sums(
    probabilities: Sequence[Windows | ProbabilityFile], truth: NDArray[np.uint8], labels: Labels
) -> dict[int, OverlapSums]:
    """Compute the sums of one case that fitting needs.

    Args:
        probabilities: (K, D, H, W) per rater: arrays, or files, of which some planes of a channel are read at a time.
        truth: Internal indices (D, H, W); `IGNORE_INDEX` where a voxel does not count.
        labels: Meaning of the K channels.

    Returns:
        The sums per channel, for foreground channels that occur in the truth: the Dice of other classes does not depend
        on the weights.
    """
    sums = {}
    for channel, members in enumerate(labels.output_members):
        mask = is_any_of(truth, members)
        if members == (0,) or not mask.any():
            continue
        overlaps, products = np.zeros(len(probabilities)), np.zeros((len(probabilities),) * 2)
        planes = zip(*(_planes(each, channel) for each in probabilities), strict=True)
        for raters, inside, truth_plane in zip(planes, mask, truth, strict=True):
            counted = truth_plane != IGNORE_INDEX
            values = np.stack([plane[counted] for plane in raters]).astype(np.float64)
            overlaps += values @ inside[counted]
            products += values @ values.T
        sums[channel] = OverlapSums(overlaps, products, float(mask.sum()))
    return sums


def _planes(probabilities: Windows | ProbabilityFile, channel: int) -> Iterator[NDArray[np.floating[Any]]]:
    """The planes (H, W) of a channel one by one, read as many at a time as a chunk has."""
    if isinstance(probabilities, ProbabilityFile):
        for _, planes in probabilities.planes(channel):
            yield from planes
    else:
        for start in range(0, probabilities.shape[1], CHUNK[0]):
            yield from probabilities[channel, start : start + CHUNK[0]]


def fit_weights(cases: Sequence[dict[int, OverlapSums]], num_raters: int) -> tuple[float, ...]:
    """Fit the weights that maximise the mean over classes of the mean Dice over the cases that have the class.

    Sequential quadratic programming (scipy's SLSQP) starts from equal weights and from every single rater; the best
    result is used. It is never worse than equal weights, apart from rounding, and depends only on the sums.

    Args:
        cases: Results of `overlap_sums`.
        num_raters: J, at least 1.

    Returns:
        One weight per rater, at least 0, rounded to `DECIMALS`, with the sum 1.

    Raises:
        ValueError: If no case has any foreground.
    """
    from scipy.optimize import Bounds, LinearConstraint, minimize  # noqa: PLC0415 - heavy

    channels = sorted({channel for case in cases for channel in case})
    if not channels:
        raise ValueError("no reference has any foreground; weights cannot be fitted")
    per_class = [[case[channel] for case in cases if channel in case] for channel in channels]

    def loss(weights: NDArray[np.float64]) -> float:
        return -float(np.mean([np.mean([sums.dice(weights) for sums in each]) for each in per_class]))

    def slope(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes = [np.mean([sums.gradient(weights) for sums in each], axis=0) for each in per_class]
        return -np.asarray(np.mean(slopes, axis=0))

    equal = np.full(num_raters, 1 / num_raters)
    adds_up_to_1 = LinearConstraint(np.ones((1, num_raters)), 1, 1)
    ends = [equal]
    for start in (equal, *np.eye(num_raters)):
        end = minimize(loss, start, jac=slope, method="SLSQP", bounds=Bounds(0, 1), constraints=adds_up_to_1).x
        ends.append(end.clip(0) / end.clip(0).sum())
    return _round_weights(min(ends, key=loss))


def _round_weights(weights: NDArray[np.float64]) -> tuple[float, ...]:
    """Round weights to `DECIMALS`, adding the rounding error to the largest so that the sum is 1."""
    units = 10**DECIMALS
    whole = np.rint(weights * units).astype(np.int64)
    whole[np.argmax(weights)] += units - whole.sum()
    return tuple(int(each) / units for each in whole)
