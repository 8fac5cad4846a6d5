"""The Dice of a segmentation without its truth, from the probabilities that it was made of.

If the probabilities p of a structure were those with which its voxels belong to it, the Dice of what was segmented, S,
would be expected to be about

    2 sum of p over S / (|S| + sum of p over all voxels)

Networks are surer than they should be, each in its own way, so that a straight line for each structure, fitted to the
cases of the cross-validation, makes a Dice of this number. Each of these cases was segmented by the models that had not
seen it. What the lines are worth is measured on folds that they were not fitted to.

Letters: n cases, with truth.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from seg25d.core.names import CaseName
from seg25d.core.records import Record

MARKED = 0.2
"""Share of the cases of the cross-validation that would be marked: a fifth, to be looked at by somebody."""
WORST = 0.1
"""Share of cases, the worst, that marking is to find."""
LEAST_FOR_A_LINE = 10
"""Cases with a structure from which a line is fitted: one in ten observations per coefficient that is estimated is the
usual rule of regression (Harrell, Regression Modeling Strategies). With fewer, their mean Dice is predicted."""


class Sums(Record):
    """What the probabilities of a structure add up to, in a case, before post-processing."""

    voxels: int = Field(ge=0)
    """That were segmented."""
    inside: float = Field(ge=0)
    """Sum of the probabilities over these voxels."""
    everywhere: float = Field(ge=0)
    """Sum of the probabilities over all voxels."""

    @property
    def expected_dice(self) -> float | None:
        """The Dice if the probabilities were right; None where nothing was segmented."""
        return 2 * self.inside / (self.voxels + self.everywhere) if self.voxels else None


class CaseSums(Record):
    """The sums of a case, by structure: value or name of a region."""

    schema_version: Literal[1] = 1
    structures: dict[str, Sums]


class KnownCase(Record):
    """A case whose truth is known, segmented by models that had not seen it."""

    case: CaseName
    fold: int = Field(ge=0)
    sums: dict[str, Sums]
    dice: dict[str, float | None]
    """None where neither truth nor segmentation has the structure."""


class Line(Record):
    """From the expected to the predicted Dice of a structure."""

    slope: float
    offset: float
    always: bool
    """Whether all cases had this structure: a segmentation without it then has a Dice of 0."""

    def predict(self, sums: Sums) -> float | None:
        """The Dice, 0 to 1; None where nothing is segmented, and nothing may be there."""
        expected = sums.expected_dice
        if expected is None:
            return 0.0 if self.always else None
        return min(1.0, max(0.0, self.offset + self.slope * expected))


class JudgedCase(Record):
    """A case of the cross-validation, with what lines say that were fitted to the other folds."""

    case: CaseName
    predicted: dict[str, float | None]
    dice: dict[str, float | None]


class Judgement(Record):
    """What predictions are worth, over all structures of all cases that have both figures, or over cases."""

    mean_absolute_error: float | None
    correlation: float | None
    """Pearson's, over structures and cases; None if either does not vary."""
    correlation_of_cases: float | None
    """The same of the means of the cases over their structures."""
    worst: int
    """Cases that are the worst tenth by their true mean Dice, at least one."""
    found: int
    """How many of them are among the fifth with the lowest predicted mean."""


class Calibration(Record):
    """How the Dice is predicted with a model, and what that is worth."""

    schema_version: Literal[1] = 1
    lines: dict[str, Line]
    marked_below: float
    """Mean of a case over its structures below which it is marked: of a fifth of the cases of the cross-validation."""
    cases: tuple[JudgedCase, ...]
    """Judged by lines of other folds; by its own if there is one fold."""
    judgement: Judgement
    error_of_means: float | None
    """Mean absolute error if the mean Dice of each structure in the other folds were predicted for every case."""

    def predict(self, sums: Mapping[str, Sums]) -> dict[str, float | None]:
        """The Dice of each structure of a case; None where there is nothing to predict."""
        return {name: line.predict(sums[name]) for name, line in self.lines.items() if name in sums}

    def marks(self, predicted: Mapping[str, float | None]) -> bool:
        """Whether a case with these figures is to be looked at."""
        mean = mean_dice(predicted)
        return mean is not None and mean < self.marked_below


def mean_dice(dice: Mapping[str, float | None]) -> float | None:
    """The mean over the structures that have a Dice."""
    known = [value for value in dice.values() if value is not None]
    return sum(known) / len(known) if known else None


def calibrate(cases: Sequence[KnownCase]) -> Calibration | None:
    """Fit lines to cases whose truth is known, and judge them on the folds that they were not fitted to.

    Args:
        cases: Of any number of folds.

    Returns:
        None if no structure of any case has a Dice.
    """
    ordered = sorted(cases, key=lambda case: (case.fold, case.case))
    lines = _fit(ordered)
    if not lines:
        return None
    folds = {case.fold for case in ordered}
    judged, without = [], []
    for fold in sorted(folds):
        others = [case for case in ordered if case.fold != fold] if len(folds) > 1 else ordered
        own = [case for case in ordered if case.fold == fold]
        judged += _judged(own, _fit(others))
        without += _judged(own, _fit(others, flat=True))
    means = [mean for case in ordered if (mean := mean_dice(_predict(lines, case.sums))) is not None]
    return Calibration(
        lines=lines,
        marked_below=float(np.quantile(means, MARKED)) if means else 0.0,
        cases=tuple(map(_rounded, judged)),
        judgement=judge(judged),
        error_of_means=judge(without).mean_absolute_error,
    )


def judge(cases: Sequence[JudgedCase]) -> Judgement:
    """Compare predicted with true Dice."""
    pairs = [
        (predicted, dice)
        for case in cases
        for name, predicted in case.predicted.items()
        if predicted is not None and (dice := case.dice.get(name)) is not None
    ]
    means = [
        (predicted, dice)
        for case in cases
        if (predicted := mean_dice(case.predicted)) is not None and (dice := mean_dice(case.dice)) is not None
    ]
    worst = max(1, round(WORST * len(means)))
    marked = max(1, round(MARKED * len(means)))
    lowest = sorted(range(len(means)), key=lambda index: means[index][1])[:worst]
    suspects = sorted(range(len(means)), key=lambda index: means[index][0])[:marked]
    return Judgement(
        mean_absolute_error=float(np.mean([abs(one - other) for one, other in pairs])) if pairs else None,
        correlation=_correlation(pairs),
        correlation_of_cases=_correlation(means),
        worst=min(worst, len(means)),
        found=len(set(lowest) & set(suspects)),
    )


def _rounded(case: JudgedCase) -> JudgedCase:
    """With four digits, as models of a hundred structures have hundreds of thousands of figures."""
    parts = {"predicted": case.predicted, "dice": case.dice}
    return case.model_copy(
        update={
            part: {name: None if value is None else round(value, 4) for name, value in values.items()}
            for part, values in parts.items()
        }
    )


def _judged(cases: Sequence[KnownCase], lines: Mapping[str, Line]) -> list[JudgedCase]:
    return [JudgedCase(case=case.case, predicted=_predict(lines, case.sums), dice=case.dice) for case in cases]


def _predict(lines: Mapping[str, Line], sums: Mapping[str, Sums]) -> dict[str, float | None]:
    return {name: line.predict(sums[name]) for name, line in lines.items() if name in sums}


def _fit(cases: Sequence[KnownCase], *, flat: bool = False) -> dict[str, Line]:
    """A line per structure that at least one case has; `flat`: its mean."""
    lines = {}
    for name in dict.fromkeys(name for case in cases for name in case.sums):
        points = [
            (expected, dice)
            for case in cases
            if name in case.sums
            and (expected := case.sums[name].expected_dice) is not None
            and (dice := case.dice.get(name)) is not None
        ]
        if points:
            always = all(case.dice.get(name) is not None for case in cases)
            lines[name] = _line(points, always=always, flat=flat)
    return lines


def _line(points: Sequence[tuple[float, float]], *, always: bool, flat: bool) -> Line:
    """The line of least squares, which does not fall."""
    expected, dice = np.array(points, np.float64).T
    slope = 0.0
    if not flat and len(points) >= LEAST_FOR_A_LINE and expected.std() > 0:
        slope = max(0.0, float(np.cov(expected, dice)[0, 1] / expected.var(ddof=1)))
    return Line(slope=slope, offset=float(dice.mean() - slope * expected.mean()), always=always)


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    one, other = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(pairs) < 2 or one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])
