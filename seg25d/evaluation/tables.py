"""Scores as plain-text tables for people."""

from collections.abc import Sequence

from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text: first column to the left, others to the right; without rows the header alone."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def format_score(value: float | None) -> str:
    """Three decimals; a dash where there is no score."""
    return "-" if value is None else f"{value:.3f}"


def summary_table(summary: Summary) -> str:
    """The mean scores of a summary: a line per label and one for all labels together."""
    columns = list(Scores.model_fields)
    means = {**summary.mean, "all labels": summary.foreground_mean}
    rows = [[name, *(format_score(getattr(scores, column)) for column in columns)] for name, scores in means.items()]
    return text_table(["label", *columns], rows)
