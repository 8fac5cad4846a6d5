"""Comparison of two methods over cases and seeds: difference of means, interval and p.

Scores of a method are a matrix: one row for each training (seed), one column for each case. The model is that of
studies of several readers and cases, with trainings as readers that belong to one method each: score = method + case +
case in this method + training + error. The variance of the difference has a part of the cases, which all trainings
share, and a part of the trainings of each method; degrees of freedom are Satterthwaite's, and those of the trainings
where these vary more than the cases. So a method that was lucky with its seeds, or that is better on few cases only, is
not called better. One training says nothing about the second part: there is no interval and no p then, nor where
nothing varies, as with two networks that find nothing.

Fusions of the same views are paired by their seeds, as are networks that learn from the same few cases: then the gains,
(seeds, cases), are seed + case + error, and what both have of a seed is no part of the variance.

Sources: Obuchowski & Rockette 1995 and Hillis 2007 (Statistics in Medicine 26, 596-619) for the model, for leaving out
a negative part and for keeping its degrees of freedom; Bouthillier et al. 2021 (arXiv 2103.03098) for seeds as a source
of variance that comparisons of trained networks have to know.
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
ROUNDING = 1e-9
"""A standard error below this is one of rounding: the scores do not vary."""


class Difference(NamedTuple):
    """How much the mean of one method is above that of another."""

    mean: float
    low: float | None
    """Ends of the interval, of 95 % unless asked otherwise; None if a method was trained once, or if nothing varies."""
    high: float | None
    p: float | None
    """Two-sided."""
    num_cases: int
    """Number of patients where those are known."""
    standard_error: float | None = None
    freedom: float | None = None
    """Degrees of freedom of the standard error."""

    def __str__(self) -> str:
        """Mean, interval and p."""
        if self.low is None or self.high is None or self.p is None:
            return f"{self.mean:+.3f} (no interval)"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}), p = {self.p:.2g}"

    def p_against(self, bound: float) -> float:
        """Two-sided p of a true difference of this size; 1 without an interval, 0 of an infinite one."""
        if self.standard_error is None or self.freedom is None:
            return 1.0
        return 2 * float(student.sf(abs(self.mean - bound) / self.standard_error, self.freedom))


def difference(
    scores: Scores,
    others: Scores,
    *,
    paired: bool = False,
    cases: Sequence[str] | None = None,
    confidence: float = CONFIDENCE,
) -> Difference | None:
    """Compare two methods on the cases of which every training has a score; None if there are fewer than two.

    Args:
        scores: Of the method.
        others: Of the one that it is compared with, on the same cases in the same order.
        paired: Whether trainings of both belong together by their seeds, which are in the same order: as fusions of the
            same views do, and networks that learn from the same few cases.
        cases: Names of the cases; those of one patient (`patient_of`) are averaged first.
        confidence: Of the interval.

    Raises:
        ValueError: If the numbers of cases differ, or those of paired trainings.
    """
    mine, their = _matrix(scores), _matrix(others)
    if mine.shape[1] != their.shape[1]:
        raise ValueError(f"expected scores of the same cases, got {mine.shape[1]} and {their.shape[1]}")
    if paired and len(mine) != len(their):
        raise ValueError(f"expected trainings with the same seeds, got {len(mine)} and {len(their)} of them")
    whole = ~(np.isnan(mine).any(0) | np.isnan(their).any(0))
    mine, their = mine[:, whole], their[:, whole]
    if cases is not None:
        patients = np.array([patient_of(case) for case in cases])[whole]
        mine, their = _of_patients(mine, patients), _of_patients(their, patients)
    num_cases = mine.shape[1]
    if num_cases < 2:
        return None
    gains = mine.mean(0) - their.mean(0)
    mean = float(gains.mean())
    if min(len(mine), len(their)) < 2:
        return Difference(mean, None, None, None, num_cases)
    matrices = [mine - their] if paired else [mine, their]
    of_cases = float(gains.var(ddof=1)) / num_cases
    parts = [(float(each.mean(1).var(ddof=1)) / len(each), len(each) - 1) for each in matrices]
    of_trainings = sum(part for part, _ in parts)
    # The gains of cases contain the error already, and so do the means of trainings.
    error = sum(_residual_variance(each) / each.size for each in matrices)
    variance = max(of_cases, of_trainings, of_cases + of_trainings - error)
    if variance < ROUNDING**2:
        return Difference(mean, None, None, None, num_cases)
    own = sum(part**2 / free for part, free in parts)
    freedom = variance**2 / (of_cases**2 / (num_cases - 1) + own)
    if of_trainings > of_cases:
        # Satterthwaite's alone are too many where seeds are few and matter most: equal methods differed in 8 of 100.
        freedom = min(freedom, of_trainings**2 / own)
    standard_error = math.sqrt(variance)
    half = float(student.ppf((1 + confidence) / 2, freedom)) * standard_error
    p = 2 * float(student.sf(abs(mean) / standard_error, freedom))
    return Difference(mean, mean - half, mean + half, p, num_cases, standard_error, freedom)


def mean_over_seeds(scores: Scores, digits: int = 3) -> str:
    """Format the mean, and the standard deviation over trainings of their means over the cases that have a score."""
    known = [[score for score in training if score is not None] for training in scores]
    means = [fmean(each) for each in known if each]
    if not means:
        return "-"
    return f"{fmean(means):.{digits}f}" + (f" ± {stdev(means):.{digits}f}" if len(means) > 1 else "")


def patient_of(case: str) -> str:
    """The patient of a case: `patient001` of `patient001_frame12`, as data set 27 names its cases, else the case."""
    return case.split("_frame", maxsplit=1)[0]


def _matrix(scores: Scores) -> NDArray[np.float64]:
    return np.array([[math.nan if score is None else score for score in training] for training in scores])


def _of_patients(scores: NDArray[np.float64], patients: NDArray[np.str_]) -> NDArray[np.float64]:
    """The mean over the cases of each patient: (trainings, patients)."""
    known = np.unique(patients)
    means = [scores[:, patients == patient].mean(1) for patient in known]
    return np.array(means).reshape(len(known), len(scores)).T


def _residual_variance(scores: NDArray[np.float64]) -> float:
    """Variance of what neither case nor training explains."""
    trainings, cases = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    squares = float((rest**2).sum())
    return float(squares / ((trainings - 1) * (cases - 1)))
