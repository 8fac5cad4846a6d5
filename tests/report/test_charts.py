"""Charts of odd numbers and long names."""

import re

import numpy as np

from seg25d.evaluation.area_plot import area_curve
from seg25d.report.charts import area_plot, learning_curves, shorten


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
