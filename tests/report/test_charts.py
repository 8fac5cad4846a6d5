"""Charts of odd numbers and long names."""

import re

import numpy as np

from seg25d.evaluation.area_plot import area_curve
from seg25d.report.charts import NARROW, Point, area_plot, box_plots, cost_against_accuracy, learning_curves, shorten


def test_long_names_keep_both_ends():
    assert shorten("stack", 9) == "stack"
    assert shorten("stack__vnet__shivdeo2021", 9) == "stac\N{HORIZONTAL ELLIPSIS}2021"


def test_a_legend_of_long_names_stands_in_rows_below():
    curve = area_curve(np.arange(5.0))
    heights = []
    for length in (4, 60):
        svg = area_plot(curve, {str(number) * length: curve for number in range(4)}, "axial slice")
        (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        heights.append(float(box[1]))
        assert float(box[0]) < 610
    assert heights[1] > heights[0] + 50


def test_names_of_groups_are_left_out_as_they_repeat():
    curve = area_curve(np.arange(5.0))
    assert '<g id="' not in area_plot(curve, {"si": curve}, "axial slice")


def test_a_single_epoch_is_a_point():
    svg = learning_curves({0: [{"total_seconds": 60.0, "train_loss": 1.0, "validation_loss": None}]})
    assert svg.count("<use") > learning_curves({0: []}).count("<use")


def size_of(svg: str) -> tuple[float, float]:
    ((width, height),) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    return float(width), float(height)


def test_narrow_charts_are_as_wide_as_a_phone_in_letters_of_the_same_size():
    curve = area_curve(np.arange(5.0))
    long = "stack__vnet__shivdeo2021"
    log = [{"total_seconds": 60.0, "train_loss": 1.0, "validation_loss": None}]
    points = [Point(long, 1.0, 0.5, True, True), Point("si", 9.0, 0.8, True, True)]
    charts = [
        area_plot(curve, {long: curve}, "axial slice", NARROW),
        box_plots({long: [0.1, 0.2]}, "Dice of a class with a rather long name that nobody expected (1)", NARROW),
        cost_against_accuracy(points, NARROW),
        learning_curves({0: log}, NARROW),
    ]
    for svg in charts:
        assert size_of(svg)[0] < 350, "so that letters are not shrunk on a phone"
        assert not re.findall(r">[^<]{45,}</text>", svg), "lines that are broken where the figure ends"
    assert size_of(charts[3])[1] > 1.5 * size_of(learning_curves({0: log}))[1], "losses above Dice"


def test_odd_names_are_drawn_as_they_are_written():
    curve = area_curve(np.arange(5.0))
    names = [r"$\bad$ left", "\N{CJK UNIFIED IDEOGRAPH-5DE6}", "_rest"]
    charts = [
        area_plot(curve, dict.fromkeys(names, curve), "axial slice"),
        box_plots({name: [0.1, 0.2] for name in names}, names[0]),
        cost_against_accuracy([Point(name, 1.0, 0.5, True, True) for name in names]),
    ]
    for svg in charts:
        assert all(name in svg for name in names)
