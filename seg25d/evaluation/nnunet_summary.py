"""The content of `summary.json` under nnU-Net's keys (nnunetv2 2.8.1, evaluate_predictions.py).

Numbers are those of our summary: a class that is in no case of either folder is left out of the mean of the foreground,
which is NaN in nnU-Net then. Scores that are undefined are NaN, which Python's json reads and writes, as there.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import Metrics
from seg25d.evaluation.pairs import LabelValues, Pair
from seg25d.evaluation.summary import Summary


def nnunet_summary(summary: Summary, pairs: Sequence[Pair], labels: Labels | LabelValues | None) -> dict[str, Any]:
    """Convert a summary to nnU-Net's `foreground_mean`, `mean` and `metric_per_case`.

    Args:
        summary: The scores.
        pairs: The files of each of its cases.
        labels: Their meaning: nnU-Net names regions by their values, such as `(1, 2)`.

    Returns:
        JSON values; regions of one value are named by it.
    """
    regions = labels.names if isinstance(labels, Labels) and labels.has_regions else {}
    files = {pair.case: pair for pair in pairs}
    cases = [
        {
            "metrics": {_key(label, regions): _scores(each) for label, each in case.metrics.items()},
            "prediction_file": str(files[case.case].prediction),
            "reference_file": str(files[case.case].reference),
        }
        for case in summary.per_case
    ]
    mean = {
        _key(label, regions): _mean([_scores(case.metrics[label]) for case in summary.per_case])
        for label in summary.mean
    }
    return {"foreground_mean": _mean(list(mean.values())), "mean": mean, "metric_per_case": cases}


def _scores(metrics: Metrics) -> dict[str, float]:
    counts = {"FN": metrics.fn, "FP": metrics.fp}
    overlap = {"Dice": _or_nan(metrics.dice), "IoU": _or_nan(metrics.iou)}
    sizes = {"n_pred": metrics.tp + metrics.fp, "n_ref": metrics.tp + metrics.fn}
    return {**overlap, **counts, "TN": metrics.tn, "TP": metrics.tp, **sizes}


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over those that have it."""
    names = scores[0] if scores else ()
    present = {name: [each[name] for each in scores if not math.isnan(each[name])] for name in names}
    return {name: fmean(values) if values else math.nan for name, values in present.items()}


def _key(label: str, regions: Mapping[str, int | tuple[int, ...]]) -> str:
    return str(regions.get(label, label))


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else score
