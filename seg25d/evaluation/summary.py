"""Scores of many cases and their means: what `summary.json` holds."""

from collections.abc import Iterable, Sequence

from seg25d.core.records import Record
from seg25d.evaluation.metrics import Metrics, Scores
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM


class CaseSummary(Record):
    """The metrics of one case per label value (as text) or name of a region."""

    case: str
    metrics: dict[str, Metrics]


class Summary(Record):
    """What `summary.json` holds."""

    foreground_mean: Scores
    """Mean over the labels of their means; a label without any score does not count."""
    mean: dict[str, Scores]
    """Per label the mean over the cases that have a score for it."""
    per_case: tuple[CaseSummary, ...]
    surface_tolerance_mm: float | None = None
    """Tolerance of `surface_dice`; null where no case has that score, as in files of seg25d before it was there."""


def summarize(cases: Sequence[CaseSummary], surface_tolerance_mm: float = SURFACE_TOLERANCE_MM) -> Summary:
    """Average the scores of cases.

    Args:
        cases: In any order; no cases give a summary without labels and with null means.
        surface_tolerance_mm: With which they were scored.

    Returns:
        The means, and the cases sorted by name.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case))
    labels = dict.fromkeys(label for case in ordered for label in case.metrics)
    mean = {label: _mean([case.metrics[label] for case in ordered if label in case.metrics]) for label in labels}
    has_surfaces = any(each.surface_dice is not None for each in mean.values())
    return Summary(
        foreground_mean=_mean(list(mean.values())),
        mean=mean,
        per_case=ordered,
        surface_tolerance_mm=surface_tolerance_mm if has_surfaces else None,
    )


def _mean(scores: Sequence[Scores]) -> Scores:
    return Scores(**{name: _mean_number(getattr(each, name) for each in scores) for name in Scores.model_fields})


def _mean_number(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
