"""Scores under nnU-Net's keys, counted by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from seg25d.data.labels import Labels
from seg25d.evaluation.evaluate import evaluate
from seg25d.evaluation.pairs import LabelValues


def write(path: Path, values: list[int]) -> None:
    path.parent.mkdir(exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.array(values, np.uint8).reshape(2, 2, 2)), str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One case of 8 voxels; value 3 in the truth does not count with -il 3."""
    write(tmp_path / "truth" / "a.nii.gz", [0, 1, 1, 1, 2, 3, 3, 0])
    write(tmp_path / "guess" / "a.nii.gz", [1, 1, 1, 0, 0, 1, 9, 0])
    return tmp_path / "truth", tmp_path / "guess"


def scores(folders: tuple[Path, Path], labels: LabelValues | Labels) -> dict:
    evaluate(*folders, labels=labels, nnunet_keys=True, num_processes=0)
    return json.loads((folders[1] / "summary.json").read_text())


def test_values_are_scored_each_by_itself_and_undeclared_ones_are_nothing(folders: tuple[Path, Path]) -> None:
    found = scores(folders, LabelValues((1, 2, 5), 3))
    (case,) = found["metric_per_case"]
    # Six voxels count; of value 1 two are found, one is missed, one is false.
    expected = {"Dice": 4 / 6, "IoU": 2 / 4, "FN": 1, "FP": 1, "TN": 2, "TP": 2, "n_pred": 3, "n_ref": 3}
    assert case["metrics"]["1"] == pytest.approx(expected)
    assert case["metrics"]["2"]["Dice"] == 0
    assert math.isnan(case["metrics"]["5"]["Dice"])
    assert found["foreground_mean"]["Dice"] == pytest.approx((4 / 6 + 0) / 2)
    assert (Path(case["reference_file"]), Path(case["prediction_file"])) == tuple(each / "a.nii.gz" for each in folders)


def test_without_an_ignored_value_all_voxels_count(folders: tuple[Path, Path]) -> None:
    metrics = scores(folders, LabelValues((1,), None))["metric_per_case"][0]["metrics"]["1"]
    assert (metrics["TP"], metrics["FP"], metrics["FN"], metrics["TN"]) == (2, 2, 1, 3)


def test_regions_are_named_by_their_values(tmp_path: Path) -> None:
    write(tmp_path / "truth" / "a.nii.gz", [0, 1, 1, 1, 2, 2, 0, 0])
    write(tmp_path / "guess" / "a.nii.gz", [0, 1, 1, 2, 2, 0, 0, 0])
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    found = scores((tmp_path / "truth", tmp_path / "guess"), labels)
    assert set(found["mean"]) == {"(1, 2)", "(2,)"}
    assert found["mean"]["(1, 2)"]["Dice"] == pytest.approx(8 / 9)
