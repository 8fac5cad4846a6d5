"""Scores of each validation case of a training, for tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from result_tables import Row

from seg25d.evaluation.pairs import Segmentations, find_labels, find_pairs, read_pair
from seg25d.evaluation.summary import Summary

SCORES = ("dice", "precision", "recall", "hd95_mm", "mean_accuracy", "mean_iou")


def per_case(summaries: Sequence[Summary], score: str) -> list[float | None]:
    """The mean score of each validation case over its labels."""
    cases = (case for summary in summaries for case in summary.per_case)
    return [_mean([getattr(each, score) for each in case.metrics.values()]) for case in cases]


def scores_of(summaries: Sequence[Summary]) -> Row:
    """The validation cases of all folds, and every one of `SCORES` for each."""
    cases = [case.case for summary in summaries for case in summary.per_case]
    return {"cases": cases, "scores": {score: per_case(summaries, score) for score in SCORES}}


def measure(
    measures: Mapping[str, Callable[[Segmentations], float | None]], places: Sequence[tuple[Path, Path]]
) -> dict[str, list[float | None]]:
    """Measure every validation case, in the order of the summaries; files are read once, and only if need be.

    Args:
        measures: Of a case, by name.
        places: Folders of true and predicted segmentations, for each fold.
    """
    found: dict[str, list[float | None]] = {name: [] for name in measures}
    for truth, predicted in places if measures else ():
        labels = find_labels(truth, predicted)
        for pair in find_pairs(truth, predicted):
            case = read_pair(labels, pair)
            for name, measure in measures.items():
                found[name].append(measure(case))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
