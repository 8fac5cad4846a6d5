"""Pictures of segmentations: contours of labels over slices of an image, and curves along the slices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg25d.core.figures import names_as_written
from seg25d.core.files import atomic_path
from seg25d.core.types import FloatArray, IntArray

PANEL_INCHES = 3.6
COLOURS = ("#e6550d", "#31a354", "#fdd835", "#29b6f6", "#e377c2", "#bcbd22", "#9467bd", "#17becf")
"""Colours of labels or curves 1, 2, ...; repeated if there are more."""


def fullest_slice(labels: IntArray) -> int:
    """The index along D of the slice with the most labels, and of these the one with most of the rarest label."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(values):
        return len(labels) // 2
    shown = np.stack([(labels == value).sum(axis=(1, 2)) for value in values])
    return int(((shown > 0).sum(axis=0) * labels.size + shown[counts.argmin()]).argmax())


def draw_contours(path: Path, image: FloatArray, panels: Mapping[str, IntArray], names: Mapping[str, int]) -> None:
    """Write a PNG with one panel per segmentation of the same picture.

    Args:
        path: The file.
        image: (h, w), shown from its 1st to its 99th percentile.
        panels: Title and labels (h, w) of each panel; if empty, only the image is drawn.
        names: Value of each label, for the legend; value 0 is left out.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import
    from matplotlib.lines import Line2D  # noqa: PLC0415 - slow to import

    shown = dict(panels) or {"": np.zeros(image.shape, np.uint8)}
    aspect = image.shape[0] / image.shape[1]
    lower, upper = np.percentile(image, (1, 99))
    values = [value for value in names.values() if value != 0]
    with names_as_written():
        figure = Figure(figsize=(PANEL_INCHES * len(shown), PANEL_INCHES * aspect + 0.9), layout="constrained")
        for axes, (title, labels) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            axes.imshow(image, cmap="gray", vmin=lower, vmax=max(upper, lower + 1e-6), interpolation="nearest")
            for value in values:
                if (labels == value).any():
                    axes.contour(labels == value, levels=[0.5], colors=[_colour(value)], linewidths=0.9)
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
        handles = [Line2D([], [], color=_colour(value)) for value in values]
        texts, columns = [name for name, value in names.items() if value != 0], max(1, len(handles))
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def draw_curves(path: Path, curves: Mapping[str, Sequence[float]], texts: tuple[str, str, str]) -> None:
    """Write a PNG of curves over the slice number; the first one, the truth, is drawn as a filled area.

    Args:
        path: The file.
        curves: Values by name, at least one curve; all have the same length.
        texts: Title, and labels of the horizontal and the vertical axis.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    with names_as_written():
        figure = Figure(figsize=(2 * PANEL_INCHES, PANEL_INCHES * 0.8), layout="constrained")
        axes = figure.subplots()
        true_values, *others = curves.values()
        slices = range(len(true_values))
        handles: list[Any] = [axes.fill_between(slices, true_values, step="mid", color="0.8")]
        for value, values in enumerate(others, 1):
            handles += axes.plot(slices, values, drawstyle="steps-mid", color=_colour(value), linewidth=1.2)
        axes.margins(x=0)
        title, along, upwards = texts
        axes.set(title=title, xlabel=along, ylabel=upwards, ylim=(0, 1.05))
        figure.legend(handles, list(curves), loc="outside lower center", ncols=len(curves), fontsize=8, frameon=False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def _colour(value: int) -> str:
    return COLOURS[(value - 1) % len(COLOURS)]


def draw_overlay(path: Path, image: FloatArray, labels: IntArray, opacity: float) -> None:
    """Write a PNG of a slice, voxel by voxel, in grey, with its labels in colour.

    Args:
        path: The file.
        image: (h, w), shown from its smallest to its largest value.
        labels: (h, w), 0 where there is none.
        opacity: Of the labels, 0 to 1.
    """
    from matplotlib.image import imsave  # noqa: PLC0415 - slow to import

    values = np.asarray(image, np.float64)
    grey = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for value in np.unique(labels[labels > 0]):
        colour = np.array([int(_colour(int(value))[start : start + 2], 16) / 255 for start in (1, 3, 5)])
        chosen = labels == value
        picture[chosen] = (1 - opacity) * picture[chosen] + opacity * colour
    with atomic_path(path) as temporary:
        imsave(temporary, picture, format="png")
