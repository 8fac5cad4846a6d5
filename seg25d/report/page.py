"""The page: one self-contained HTML file."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from seg25d.core.versions import library_versions
from seg25d.evaluation.area_plot import AreaNumbers
from seg25d.report.advice import advise, comparison_rows, cost_points, describe_models
from seg25d.report.charts import (
    NARROW,
    WIDE,
    area_plot,
    box_plots,
    cost_against_accuracy,
    learning_curves,
    true_over_predicted,
)
from seg25d.report.niivue import NiiVue
from seg25d.report.results import Results
from seg25d.report.shown_cases import ShownCase, class_colours
from seg25d.selection.ranking import case_means

ASSETS = files("seg25d.report") / "assets"
UNKNOWN = "\N{EN DASH}"
"""Sign for a missing number in tables; tables.js sorts it last."""
MOST_CLASS_CHARTS = 12
"""Maximum number of box plots of classes; the table has all classes."""
MOST_CASE_ROWS = 2000
"""Maximum number of rows in the table of cases; `summary.json` has all of them."""


def render_page(
    results: Results,
    cases: Sequence[ShownCase],
    areas: Mapping[str, AreaNumbers],
    niivue: NiiVue | None,
) -> str:
    """Render the page to text.

    Args:
        results: The results of the data set.
        cases: The cases to show.
        areas: Mean measures of area plots, of the truth and of every run.
        niivue: The viewer; None if no case is shown in it.
    """
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only reports need it

    rows = comparison_rows(results)
    advice = advise(results, rows)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"score": _score, "embed": _embed}
    template = environment.from_string((ASSETS / "report.html.jinja").read_text(encoding="utf-8"))
    viewer_cases = [case.viewer for case in cases if case.viewer is not None]
    scripts = ("tables.js", "viewer.js") if viewer_cases else ("tables.js",)
    return template.render(
        results=results,
        rows=rows,
        advice=advice,
        models=describe_models(rows),
        cases=cases,
        areas=areas,
        colours=class_colours(results.description.labels),
        area_charts={case.name: _area_chart(case) for case in cases},
        class_rows=_class_rows(results),
        case_rows=_case_rows(results)[:MOST_CASE_ROWS],
        contestants=[contestant.name for contestant in results.contestants],
        context_titles=list(dict.fromkeys(title for each in results.contexts.values() for title in each.losses)),
        charts=_charts(results),
        style=(ASSETS / "report.css").read_text(encoding="utf-8"),
        scripts=[(ASSETS / name).read_text(encoding="utf-8") for name in scripts],
        viewer_cases=viewer_cases,
        niivue=niivue if viewer_cases else None,
        versions=library_versions(),
    )


def _charts(results: Results) -> dict[str, Any]:
    """Draw the charts that are not of single cases; those without data are left out."""
    means = {contestant.name: list(case_means(contestant.summary).values()) for contestant in results.contestants}
    boxes = _draw_boxes(means, "Dice of a case, mean over its classes")
    points = cost_points(results)
    return {
        "boxes": boxes,
        "classes": _class_charts(results),
        "sure": _sureness_chart(results),
        "cost": _both_widths(partial(cost_against_accuracy, points)) if len(points) > 1 else None,
        "learning": {
            run.name: _both_widths(partial(learning_curves, run.logs)) for run in results.runs if any(run.logs.values())
        },
    }


def _sureness_chart(results: Results) -> str | None:
    """Draw the true over the predicted Dice of the first that predicts it."""
    calibration = next(iter(results.calibrations.values()), None)
    if calibration is None:
        return None
    points = {
        _class_name(results, name): [
            (predicted, dice)
            for case in calibration.cases
            if (predicted := case.predicted.get(name)) is not None and (dice := case.dice.get(name)) is not None
        ]
        for name in list(calibration.lines)[:MOST_CLASS_CHARTS]
    }
    return _both_widths(partial(true_over_predicted, points))


def _both_widths(draw: Callable[[float], str]) -> str:
    """A chart for screens and for phones, of which the page shows one."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def _class_charts(results: Results) -> dict[str, str]:
    """Draw box plots of the Dice of each class, if there are several classes."""
    labels = list(dict.fromkeys(label for contestant in results.contestants for label in contestant.summary.mean))
    charts = {}
    for label in labels[:MOST_CLASS_CHARTS] if len(labels) > 1 else []:
        scores = {
            contestant.name: [case.metrics[label].dice for case in contestant.summary.per_case if label in case.metrics]
            for contestant in results.contestants
        }
        if chart := _draw_boxes(scores, f"Dice of {_class_name(results, label)}"):
            charts[_class_name(results, label)] = chart
    return charts


def _draw_boxes(scores: Mapping[str, Sequence[float | None]], title: str) -> str | None:
    """Draw box plots of the known scores; None if there are none."""
    known = {name: [value for value in values if value is not None] for name, values in scores.items()}
    known = {name: values for name, values in known.items() if values}
    return _both_widths(partial(box_plots, known, title)) if known else None


def _class_name(results: Results, label: str) -> str:
    """The name of a class with its value, or the name of a region."""
    names = {str(value): name for name, value in results.description.labels.names.items()}
    return f"{names[label]} ({label})" if label in names else label


def _area_chart(case: ShownCase) -> str:
    predictions = {name: curve for name, curve in case.areas.items() if name != "truth"}
    return _both_widths(partial(area_plot, case.areas["truth"], predictions, case.along))


def _class_rows(results: Results) -> list[tuple[str, str, Any]]:
    """Rows of class, run or ensemble, and scores."""
    return [
        (_class_name(results, label), contestant.name, scores)
        for contestant in results.contestants
        for label, scores in contestant.summary.mean.items()
    ]


def _case_rows(results: Results) -> list[tuple[str, list[float | None]]]:
    """The mean Dice of all runs and ensembles for each case, sorted by the first one's, worst case first."""
    means = [case_means(contestant.summary) for contestant in results.contestants]
    cases = sorted({case for each in means for case in each})
    rows = [(case, [each.get(case) for each in means]) for case in cases]
    return sorted(rows, key=lambda row: [2.0 if value is None else value for value in row[1]])


def _score(value: float | None, digits: int = 3) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _embed(value: Any) -> str:
    """Convert to JSON for a script element, escaped so that no name of a case can end the element."""
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2

    return Markup(json.dumps(value).replace("<", "\\u003c"))
