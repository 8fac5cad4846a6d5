"""Scores of many cases and their means: the content of `summary.json`."""

from collections.abc import Iterable, Sequence

from seg25d.core.records import Record
from seg25d.evaluation.metrics import Metrics, Scores
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM


class CaseSummary(Record):
    """The metrics of one case, by label value (as text) or name of a region."""

    case: str
    metrics: dict[str, Metrics]


class Summary(Record):
    """Content of `summary.json`."""

    foreground_mean: Scores
    """Mean over the labels of the label means; labels without any score do not count."""
    mean: dict[str, Scores]
    """Mean of each label over the cases that have a score for it."""
    per_case: tuple[CaseSummary, ...]
    surface_tolerance_mm: float | None = None
    """Tolerance of `surface_dice`; null if no case has that score, as in files of earlier versions of seg25d."""


def summarize(cases: Sequence[CaseSummary], surface_tolerance_mm: float = SURFACE_TOLERANCE_MM) -> Summary:
    """Average the scores of cases.

    Args:
        cases: Cases in any order; without cases, the summary has no labels and null means.
        surface_tolerance_mm: Tolerance with which they were scored.

    Returns:
        The means, and the cases sorted by name.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    labels = dict.fromkeys(label for case in ordered for label in case.metrics)
    mean = {label: _average([case.metrics[label] for case in ordered if label in case.metrics]) for label in labels}
    has_surfaces = any(each.surface_dice is not None for each in mean.values())
    return Summary(
        foreground_mean=_average(list(mean.values())),
        mean=mean,
        per_case=ordered,
        surface_tolerance_mm=surface_tolerance_mm if has_surfaces else None,
    )


def _average(scores: Sequence[Scores]) -> Scores:
    return Scores(**{name: _mean_or_none(getattr(each, name) for each in scores) for name in Scores.model_fields})


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
