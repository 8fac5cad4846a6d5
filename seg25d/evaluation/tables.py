"""Scores as plain-text tables."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from seg25d.data.labels import Labels
from seg25d.evaluation.summary import Summary

COLUMNS = ("dice", "hd95_mm", "surface_dice", "precision", "recall", "iou", "lesion_f1", "volume_error_ml")
"""Scores in tables, which have to fit on a screen; `summary.json` has all of them."""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a plain-text table: first column left-aligned, others right-aligned; without rows only the header."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def format_score(value: float | None) -> str:
    """Format a score with three decimals; a dash if there is none."""
    return "-" if value is None else f"{value:.3f}"


def format_percent(values: Iterable[float | None]) -> str:
    """Format mean and standard deviation (n - 1) of shares in percent; only the mean of one value, a dash for none.

    Args:
        values: Shares; None does not count.
    """
    present = [100 * value for value in values if value is not None]
    if not present:
        return "-"
    return f"{mean(present):.1f}" + (f" ± {stdev(present):.1f}" if len(present) > 1 else "")


def summary_table(summary: Summary, labels: Labels | None = None) -> str:
    """Format the main mean scores of a summary: one row per label and one for all labels together.

    Args:
        summary: The scores.
        labels: Give the names of the rows; None: the rows have the values.
    """
    names = {key: key if labels is None else labels.name_of(key) for key in summary.mean}
    means = [*((names[key], scores) for key, scores in summary.mean.items()), ("all labels", summary.foreground_mean)]
    rows = [[name, *(format_score(getattr(scores, column)) for column in COLUMNS)] for name, scores in means]
    return text_table(["label", *COLUMNS], rows)
