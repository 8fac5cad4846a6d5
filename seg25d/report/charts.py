"""Charts as SVG in the page's colours: drawn by matplotlib, with placeholder colours replaced by CSS variables."""

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from seg25d.core.figures import names_as_written
from seg25d.evaluation.area_plot import AreaCurve

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
"""Colours that colour-blind people can distinguish (Okabe and Ito); repeated with other dashes."""
DASHES = ("solid", (0, (5, 2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
WIDE, NARROW = 8.4, 4.8
"""Width of a chart in inches, for screens and for phones, on which the letters of a wide one would be too small."""
LETTERS_ACROSS = 100
"""Maximum width of a wide chart, in letters."""
MOST_DRAWN_POINTS = 2000
"""Maximum number of points that are shapes each (160 bytes); more of them become a picture."""
_INK, _FAINT = "#010203", "#040506"
"""Placeholders for colours of the page; nothing else is drawn in them."""
_THEMED = {_INK: "var(--ink)", _FAINT: "var(--line)"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "seg25d",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Point(NamedTuple):
    """A candidate in the chart of costs and scores."""

    name: str
    seconds: float
    dice: float
    on_front: bool
    is_single: bool
    """Whether it is one run, not an ensemble."""


def learning_curves(logs: Mapping[int, Sequence[Mapping[str, Any]]], width: float = WIDE) -> str:
    """Draw losses and validation Dice over the minutes of training, one line per fold."""
    shape = (1, 2) if width == WIDE else (2, 1)
    with _Figure(width, 2.9 * shape[0], shape) as figure:
        losses, dice = figure.axes
        handles: list[Any] = []
        for number, (fold, log) in enumerate(logs.items()):
            minutes = [line["total_seconds"] / 60 for line in log]
            look = {"color": SERIES[number % len(SERIES)], "linewidth": 1.3, "marker": ".", "markersize": 4}
            handles += losses.plot(minutes, _read_curve(log, "train_loss"), label=f"fold {fold}", **look)
            losses.plot(minutes, _read_curve(log, "validation_loss"), linestyle=DASHES[2], **look)
            dice.plot(minutes, _read_curve(log, "validation_dice"), label=f"fold {fold}", **look)
        losses.set(xlabel="minutes of training", ylabel="loss", title="loss (dotted: validation)")
        dice.set(xlabel="minutes of training", ylabel="Dice", title="Dice of validation windows", ylim=(0, 1))
        figure.legend(handles)
    return figure.svg


def box_plots(scores: Mapping[str, Sequence[float]], label: str, width: float = WIDE) -> str:
    """Draw boxes from the first to the third quartile, whiskers of 1.5 times that range, and all cases as points."""
    with _Figure(width, 0.9 + 0.42 * len(scores)) as figure:
        (axes,) = figure.axes
        look = {key: {"color": _INK, "linewidth": 1.1} for key in ("boxprops", "whiskerprops", "capprops")}
        names = list(scores)[::-1]
        axes.boxplot(
            [scores[name] for name in names],
            orientation="horizontal",
            tick_labels=[shorten(name, figure.letters // 3) for name in names],
            widths=0.55,
            showfliers=False,
            medianprops={"color": SERIES[1], "linewidth": 1.8},
            **look,
        )
        for position, name in enumerate(names, 1):
            values = scores[name]
            spread = [position + 0.22 * ((index * 0.618) % 1 - 0.5) for index in range(len(values))]
            axes.plot(values, spread, ".", color=SERIES[0], alpha=0.35, markersize=4)
        axes.set_xlabel(figure.wrap(label))
        axes.grid(visible=False, axis="y")
    return figure.svg


def cost_against_accuracy(points: Sequence[Point], width: float = WIDE) -> str:
    """Draw Dice over seconds per case, with a line along the Pareto front.

    Ensembles that are not on the front are drawn without names, as there may be many of them.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415 - slow to import

    with _Figure(width, 4.2) as figure:
        (axes,) = figure.axes
        front = sorted((point for point in points if point.on_front), key=lambda point: point.seconds)
        line = {"color": SERIES[1], "linewidth": 1.2, "linestyle": DASHES[1], "label": "nothing is faster and better"}
        handles = axes.plot([point.seconds for point in front], [point.dice for point in front], **line)
        for point in points:
            colour = SERIES[1] if point.on_front else SERIES[0]
            marker = "o" if point.is_single else "D"
            axes.plot(point.seconds, point.dice, marker, color=colour, markersize=7 if point.is_single else 5)
            if point.on_front or point.is_single:
                offset = (0, 8) if point.on_front else (0, -15)
                name = shorten(point.name, figure.letters // 4)
                axes.annotate(name, point[1:3], offset, textcoords="offset points", fontsize=9, ha="center")
        handles += axes.plot([], [], "o", color=SERIES[0], label="configuration")
        handles += axes.plot([], [], "D", color=SERIES[0], markersize=5, label="ensemble")
        label = figure.wrap("seconds per case, all folds and mirrored (logarithmic)")
        axes.set(xscale="log", xlabel=label, ylabel="Dice")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.18, y=0.16)
        figure.legend(handles)
    return figure.svg


def true_over_predicted(points: Mapping[str, Sequence[tuple[float, float]]], width: float = WIDE) -> str:
    """Draw the true over the predicted Dice, a point per structure and case; on the line they are the same."""
    with _Figure(width, 3.8) as figure:
        (axes,) = figure.axes
        handles: list[Any] = []
        many = sum(map(len, points.values())) > MOST_DRAWN_POINTS
        for number, (name, pairs) in enumerate(points.items()):
            look = {"color": SERIES[number % len(SERIES)], "markersize": 5, "alpha": 0.6, "rasterized": many}
            marker = "osD^"[number // len(SERIES) % 4]
            label = shorten(name, figure.letters // 4)
            values = [each[0] for each in pairs], [each[1] for each in pairs]
            handles += axes.plot(*values, marker, label=label, **look)
        low = min((value for pairs in points.values() for pair in pairs for value in pair), default=0.0)
        low = max(0.0, math.floor(low * 10 - 0.5) / 10)
        axes.plot([low, 1], [low, 1], color=_INK, linewidth=0.8, linestyle=DASHES[1])
        axes.set(xlabel="predicted Dice", ylabel="true Dice", xlim=(low, 1), ylim=(low, 1))
        figure.legend(handles)
    return figure.svg


def shorten(name: str, most: int) -> str:
    """Shorten a name with more than `most` characters in the middle, as names tend to differ at their ends."""
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def area_plot(truth: AreaCurve, predictions: Mapping[str, AreaCurve], along: str, width: float = WIDE) -> str:
    """Draw the area of each slice as a share of the largest one; the truth is filled."""
    with _Figure(width, 2.6) as figure:
        (axes,) = figure.axes
        slices = range(len(truth.areas))
        handles: list[Any] = [axes.fill_between(slices, truth.areas, step="mid", color=_FAINT, label="truth")]
        for number, (name, curve) in enumerate(predictions.items()):
            look = {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}
            label = shorten(name, figure.letters - 10)
            handles += axes.plot(slices, curve.areas, drawstyle="steps-mid", linewidth=1.4, label=label, **look)
        axes.set(xlabel=along, ylabel="area / largest area", ylim=(0, 1.05))
        axes.margins(x=0)
        figure.legend(handles)
    return figure.svg


class _Figure:
    """A figure in the page's style; `svg` is set after the `with` block."""

    def __init__(self, width: float, height: float, shape: tuple[int, int] = (1, 1)) -> None:
        self._size = (width, height)
        self._shape = shape
        self.letters = round(LETTERS_ACROSS * width / WIDE)
        self.svg = ""

    def __enter__(self) -> "_Figure":
        from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

        self._context = names_as_written(_STYLE)
        self._context.__enter__()
        self._figure = Figure(figsize=self._size, layout="constrained")
        self.axes = self._figure.subplots(*self._shape, squeeze=False).ravel()
        return self

    def wrap(self, label: str) -> str:
        """Break the label of an axis into lines that the figure has room for beside the numbers of the other axis."""
        return textwrap.fill(label, round(0.7 * self.letters))

    def legend(self, handles: Sequence[Any]) -> None:
        """Add a legend for lines and areas below the chart."""
        labels = [handle.get_label() for handle in handles]
        if handles:
            columns = min(len(handles), 6, max(1, self.letters // (8 + max(map(len, labels)))))
            width, height = self._size
            self._figure.set_size_inches(width, height + 0.22 * (math.ceil(len(handles) / columns) - 1))
            self._figure.legend(handles, labels, loc="outside lower center", ncols=columns)

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        if kind is None:
            text = io.StringIO()
            self._figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            self.svg = _inline(text.getvalue())
        self._context.__exit__(kind, *problem)  # type: ignore[arg-type]


def _inline(svg: str) -> str:
    """Convert an SVG file to a part of a page: without header and size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 aria-hidden="true" focusable="false"', svg, count=1)
    # The ids of groups repeat in every figure, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for fixed, themed in _THEMED.items():
        svg = svg.replace(fixed, themed)
    return svg


def _read_curve(log: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float("nan") if line.get(key) is None else line[key] for line in log]
