"""Comparison of two methods over cases and seeds: difference of means, interval and p.

Scores of a method are a matrix: one row for each training (seed), one column for each case. The model is that of
studies of several readers and cases, with trainings as readers that belong to one method each: score = method + case +
case in this method + training + error. The variance of the difference has a part of the cases, which all trainings
share, and a part of the trainings of each method; degrees of freedom are Satterthwaite's. So a method that was lucky
with its seeds, or that is better on few cases only, is not called better. One training says nothing about the second
part: there is no interval and no p then.

Sources: Obuchowski & Rockette 1995 and Hillis 2007 (Statistics in Medicine 26, 596-619) for the model and for leaving
out a negative part of the trainings; Bouthillier et al. 2021 (arXiv 2103.03098) for seeds as a source of variance that
comparisons of trained networks have to know.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Scores = Sequence[Sequence[float | None]]
"""(trainings, cases); None where a case has no score."""
CONFIDENCE = 0.95


class Difference(NamedTuple):
    """How much the mean of one method is above that of another."""

    mean: float
    low: float | None
    """Ends of the interval, of 95 % unless asked otherwise; None if one of the methods was trained once."""
    high: float | None
    p: float | None
    """Two-sided."""
    num_cases: int

    def __str__(self) -> str:
        """Mean, interval and p."""
        if self.low is None or self.high is None or self.p is None:
            return f"{self.mean:+.3f} (one training)"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}), p = {self.p:.2g}"


def difference(scores: Scores, others: Scores, confidence: float = CONFIDENCE) -> Difference | None:
    """Compare two methods on the cases of which every training has a score; None if there are fewer than two.

    Args:
        scores: Of the method.
        others: Of the one that it is compared with, on the same cases in the same order.
        confidence: Of the interval.

    Raises:
        ValueError: If the numbers of cases differ.
    """
    mine, their = _matrix(scores), _matrix(others)
    if mine.shape[1] != their.shape[1]:
        raise ValueError(f"expected scores of the same cases, got {mine.shape[1]} and {their.shape[1]}")
    whole = ~(np.isnan(mine).any(0) | np.isnan(their).any(0))
    mine, their = mine[:, whole], their[:, whole]
    num_cases = mine.shape[1]
    if num_cases < 2:
        return None
    gains = mine.mean(0) - their.mean(0)
    mean = float(gains.mean())
    if min(len(mine), len(their)) < 2:
        return Difference(mean, None, None, None, num_cases)
    of_cases = float(gains.var(ddof=1)) / num_cases
    parts = [(each.mean(1).var(ddof=1) / len(each), len(each) - 1) for each in (mine, their)]
    # The gains of cases contain the error already, and so do the means of trainings.
    error = sum(_residual_variance(each) / (len(each) * num_cases) for each in (mine, their))
    of_trainings = float(max(0.0, sum(part for part, _ in parts) - error))
    variance = of_cases + of_trainings
    if variance == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, num_cases)
    if of_trainings == 0:
        parts = []
    freedom = variance**2 / (of_cases**2 / (num_cases - 1) + sum(part**2 / free for part, free in parts))
    half = float(student.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance)
    p = 2 * float(student.sf(abs(mean) / math.sqrt(variance), freedom))
    return Difference(mean, mean - half, mean + half, p, num_cases)


def mean_over_seeds(scores: Scores, digits: int = 3) -> str:
    """Format the mean, and the standard deviation over trainings of their means over the cases that have a score."""
    known = [[score for score in training if score is not None] for training in scores]
    means = [fmean(each) for each in known if each]
    if not means:
        return "-"
    return f"{fmean(means):.{digits}f}" + (f" ± {stdev(means):.{digits}f}" if len(means) > 1 else "")


def _matrix(scores: Scores) -> NDArray[np.float64]:
    return np.array([[math.nan if score is None else score for score in training] for training in scores])


def _residual_variance(scores: NDArray[np.float64]) -> float:
    """Variance of what neither case nor training explains."""
    trainings, cases = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    squares = float((rest**2).sum())
    return float(squares / ((trainings - 1) * (cases - 1)))
