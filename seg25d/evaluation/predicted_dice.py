"""The Dice of a segmentation without its truth, from the probabilities that it was made of.

The figure is the mean probability of a structure over the voxels that were segmented as it: the share of them that
would be right, if the probabilities were. Networks are surer than they should be, each in its own way, so that a
straight line for each structure, fitted to the cases of the cross-validation, makes a Dice of this number. Each of
these cases was segmented by the models that had not seen it. What the lines are worth is measured on folds that they
were not fitted to.

No other figure was found to predict the Dice better (`benchmarks/uncertainty.py`, on three data sets; measurements.md,
"How sure predictions are"), so that the simplest is taken.

Letters: n cases, with truth.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from seg25d.core.files import read_json
from seg25d.core.names import CaseName
from seg25d.core.records import Record, parse_record
from seg25d.evaluation.summary import CaseSummary

logger = logging.getLogger(__name__)

MARKED = 0.2
"""Share of the cases of the cross-validation that would be marked: a fifth, to be looked at by somebody."""
WORST = 0.1
"""Share of cases, the worst, that marking is to find."""
LEAST_FOR_A_LINE = 10
"""Cases with a structure from which a line is fitted; with fewer, their mean Dice is predicted. Ten to twenty cases for
each coefficient are the usual rule of regression (Harrell, Regression Modeling Strategies, section 4.4)."""
LEAST_SPREAD = 1e-6
"""Standard deviation below which figures of four digits do not vary."""
Dice: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Correlation: TypeAlias = Annotated[float, Field(ge=-1, le=1)]


class Sums(Record):
    """What the probabilities of a structure add up to, in a case, before post-processing."""

    voxels: int = Field(ge=0)
    """That were segmented."""
    inside: float = Field(ge=0)
    """Sum of the probabilities over these voxels."""

    @property
    def mean_probability(self) -> float | None:
        """The mean over the voxels that were segmented; None where there are none."""
        return self.inside / self.voxels if self.voxels else None


class CaseSums(Record):
    """The sums of a case, by structure: value or name of a region."""

    schema_version: Literal[2] = 2
    """1 had sums over all voxels, too, for another figure."""
    structures: dict[str, Sums]


class KnownCase(Record):
    """A case whose truth is known, segmented by models that had not seen it."""

    case: CaseName
    fold: int = Field(ge=0)
    sums: dict[str, Sums]
    dice: dict[str, Dice | None]
    """None where neither truth nor segmentation has the structure."""
    present: frozenset[str]
    """Structures that the truth has."""

    @classmethod
    def of(cls, summary: CaseSummary, fold: int, sums: Mapping[str, Sums]) -> Self:
        """A case from its scores."""
        metrics = summary.metrics
        dice = {name: each.dice for name, each in metrics.items()}
        present = frozenset(name for name, each in metrics.items() if each.tp + each.fn > 0)
        return cls(case=summary.case, fold=fold, sums=dict(sums), dice=dice, present=present)


class Line(Record):
    """From the mean probability to the predicted Dice of a structure."""

    slope: float = Field(ge=0)
    offset: float
    always: bool
    """Whether all cases had this structure: a segmentation without it then has a Dice of 0."""

    def predict(self, sums: Sums) -> float | None:
        """The Dice, in four digits; None where nothing is segmented, and nothing may be there."""
        mean = sums.mean_probability
        if mean is None:
            return 0.0 if self.always else None
        return round(min(1.0, max(0.0, self.offset + self.slope * mean)), 4)


class JudgedCase(Record):
    """A case of the cross-validation, with what lines say that were fitted to the other folds."""

    case: CaseName
    predicted: dict[str, Dice | None]
    dice: dict[str, Dice | None]


class Judgement(Record):
    """What predictions are worth, over all structures of all cases that have both figures, or over cases."""

    mean_absolute_error: Dice | None
    correlation: Correlation | None
    """Pearson's, over structures and cases, each figure without the mean of its structure: that one structure is easier
    than another is no knowledge of a case. None if either does not vary, or where the lines of a fold have no slope:
    what varies then is the mean of the other folds, which is the lower, the better a fold is."""
    correlation_of_cases: Correlation | None
    """The same of the means of the cases over their structures."""
    worst: int = Field(ge=0)
    """Cases that are the worst tenth by their true mean Dice, at least one."""
    found: int | None = Field(ge=0)
    """How many of them are among the fifth with the lowest predicted mean; None where a fold's lines have no slope."""


class Calibration(Record):
    """How the Dice is predicted with a model, and what that is worth."""

    schema_version: Literal[2] = 2
    """1 was fitted to another figure, and is never used: see `read_calibration`."""
    lines: dict[str, Line]
    marked_below: Dice
    """Mean of a case over its structures below which it is marked: of a fifth of the cases of the cross-validation."""
    cases: tuple[JudgedCase, ...]
    """Judged by lines of other folds; by its own if there is one fold."""
    judgement: Judgement
    error_of_means: Dice | None
    """Mean absolute error if the mean Dice of each structure in the other folds were predicted for every case."""

    @property
    def is_flat(self) -> bool:
        """Whether it predicts the same for all cases, as where there are too few to fit lines."""
        return _is_flat(self.lines)

    def predict(self, sums: Mapping[str, Sums]) -> dict[str, float | None]:
        """The Dice of each structure of a case; None where there is nothing to predict."""
        return _predict(self.lines, sums)

    def marks(self, predicted: Mapping[str, float | None]) -> bool:
        """Whether a case with these figures is to be looked at."""
        mean = mean_dice(predicted)
        return mean is not None and mean < self.marked_below


def is_of_other_figure(value: Any) -> bool:
    """Whether the content of a file is of schema 1: unreleased versions predicted the Dice from another figure."""
    return isinstance(value, dict) and value.get("schema_version") == 1


def read_calibration(path: Path) -> Calibration | None:
    """Read how the Dice is predicted with a run.

    Args:
        path: `crossval/predicted_dice.json`.

    Returns:
        None where it is of another figure, which is told.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    value = read_json(path)
    if not is_of_other_figure(value):
        return parse_record(value, Calibration, str(path))
    logger.warning(
        "%s is not used: an unreleased version of seg25d fitted it to another figure than the mean probability; "
        "`seg25d train DATASET CONFIGURATION FOLD --val` of all its folds makes it again",
        path,
    )
    return None


def _without_other_figure(value: Any) -> Any:
    if not is_of_other_figure(value):
        return value
    logger.warning(
        "how best.json predicts the Dice is not used: an unreleased version of seg25d fitted it to another figure than "
        "the mean probability; `seg25d find_best_configuration DATASET` makes it again"
    )
    return None


CalibrationOfBest: TypeAlias = Annotated[Calibration | None, BeforeValidator(_without_other_figure)]
"""As `best.json` has it; None where it is of another figure, which is told."""


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
    folds = sorted({case.fold for case in ordered})
    judged, without, fits = [], [], [lines]
    for fold in folds:
        own = [case for case in ordered if case.fold == fold]
        names = {case.case for case in own}
        others = [case for case in ordered if case.case not in names] if len(folds) > 1 else ordered
        fits.append(_fit(others))
        judged += _judged(own, fits[-1])
        without += _judged(own, _fit(others, flat=True))
    means = [mean for case in ordered if (mean := mean_dice(_predict(lines, case.sums))) is not None]
    calibration = Calibration(
        lines=lines,
        marked_below=float(np.quantile(means, MARKED)) if means else 0.0,
        cases=tuple(judged),
        judgement=judge(judged),
        error_of_means=judge(without).mean_absolute_error,
    )
    if not any(_is_flat(each) for each in fits):
        return calibration
    nothing = {"correlation": None, "correlation_of_cases": None, "found": None}
    return calibration.model_copy(update={"judgement": calibration.judgement.model_copy(update=nothing)})


def judge(cases: Sequence[JudgedCase]) -> Judgement:
    """Compare predicted with true Dice."""
    of_structures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in cases:
        for name, predicted in case.predicted.items():
            if predicted is not None and (dice := case.dice.get(name)) is not None:
                of_structures[name].append((predicted, dice))
    pairs = [pair for each in of_structures.values() for pair in each]
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
        correlation=_correlation([_centred(each) for each in of_structures.values()]),
        correlation_of_cases=_correlation([_centred(means)]),
        worst=min(worst, len(means)),
        found=len(set(lowest) & set(suspects)),
    )


def _is_flat(lines: Mapping[str, Line]) -> bool:
    return all(line.slope == 0 for line in lines.values())


def _predict(lines: Mapping[str, Line], sums: Mapping[str, Sums]) -> dict[str, float | None]:
    return {name: line.predict(sums[name]) for name, line in lines.items() if name in sums}


def _judged(cases: Sequence[KnownCase], lines: Mapping[str, Line]) -> list[JudgedCase]:
    return [
        JudgedCase(
            case=case.case,
            predicted=_predict(lines, case.sums),
            dice={name: None if value is None else round(value, 4) for name, value in case.dice.items()},
        )
        for case in cases
    ]


def _fit(cases: Sequence[KnownCase], *, flat: bool = False) -> dict[str, Line]:
    """A line per structure that at least one case has; `flat`: its mean."""
    lines = {}
    for name in dict.fromkeys(name for case in cases for name in case.sums):
        points = [
            (mean, dice)
            for case in cases
            if name in case.sums
            and (mean := case.sums[name].mean_probability) is not None
            and (dice := case.dice.get(name)) is not None
        ]
        if points:
            lines[name] = _line(points, always=all(name in case.present for case in cases), flat=flat)
    return lines


def _line(points: Sequence[tuple[float, float]], *, always: bool, flat: bool) -> Line:
    """The line of least squares, which does not fall."""
    means, dice = np.array(points, np.float64).T
    slope = 0.0
    if not flat and len(points) >= LEAST_FOR_A_LINE and means.std() > 0:
        slope = max(0.0, float(np.cov(means, dice)[0, 1] / means.var(ddof=1)))
    return Line(slope=slope, offset=float(dice.mean() - slope * means.mean()), always=always)


def _centred(pairs: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Pairs (n, 2) without their means."""
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values - values.mean(0) if len(values) else values


def _correlation(parts: Sequence[NDArray[np.float64]]) -> float | None:
    one, other = np.concatenate([*parts, np.empty((0, 2))]).T
    if len(one) < 2 or one.std() < LEAST_SPREAD or other.std() < LEAST_SPREAD:
        return None
    return min(1.0, max(-1.0, float(np.corrcoef(one, other)[0, 1])))
