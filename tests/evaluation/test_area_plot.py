import csv
import json
import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.core.errors import InputError
from seg25d.core.records import read_record
from seg25d.data import sizes
from seg25d.evaluation.area_plot import AreaPlots, area_curve, area_plots, coarsest_axis, write_area_plots


def write(folder, name, areas, value=1, spacing_dhw=(2.0, 1.0, 1.0)):
    """A file with so many voxels of a value in each of its axial slices of 2 x 5."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((len(areas), 2, 5), np.uint8)
    for index, area in enumerate(areas):
        labels[index].reshape(-1)[:area] = value
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing_dhw[::-1])
    sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


def test_numbers_by_hand():
    # A of the prediction: 0 1 0 0.5 0, of the truth: 0 0.5 1 0.5 0.
    curve = area_curve(np.array([0, 8, 0, 4, 0]), np.array([0, 2, 4, 2, 0]))
    assert curve.areas == (0, 1, 0, 0.5, 0)
    assert curve.mean_absolute_difference == pytest.approx((0.5 + 1) / 5)
    # Around the means 0.3 and 0.4: products -0.3 -0.4, 0.7 0.1, -0.3 0.6, 0.2 0.1, -0.3 -0.4.
    covariance = 0.12 + 0.07 - 0.18 + 0.02 + 0.12
    norms = math.sqrt(0.09 + 0.49 + 0.09 + 0.04 + 0.09) * math.sqrt(0.16 + 0.01 + 0.36 + 0.01 + 0.16)
    assert curve.correlation == pytest.approx(covariance / norms)
    assert curve.total_variation == pytest.approx(1 + 1 + 0.5 + 0.5)
    assert curve.num_runs == 2


def test_the_truth_has_no_comparison():
    curve = area_curve(np.array([1, 2, 0]))
    assert (curve.mean_absolute_difference, curve.correlation) == (None, None)
    assert (curve.total_variation, curve.num_runs) == (1.5, 1)


def test_without_any_foreground():
    both = area_curve(np.zeros(4), np.zeros(4))
    assert (both.mean_absolute_difference, both.correlation) == (None, None)
    assert (both.areas, both.total_variation, both.num_runs) == ((0, 0, 0, 0), 0, 0)
    missed = area_curve(np.zeros(4), np.array([0, 1, 1, 0]))
    assert (missed.mean_absolute_difference, missed.correlation) == (0.5, None)
    assert area_curve(np.zeros(0)).areas == ()


@pytest.mark.parametrize(
    ("spacing_mm", "axis"),
    [
        ((5.0, 1.0, 1.0), "axial"),
        ((1.0, 3.0, 1.0), "coronal"),
        ((1.0, 0.5, 2.0), "sagittal"),
        ((1.0, 1.0, 1.0), "axial"),
        ((1.0, 2.0, 2.0), "axial"),
    ],
)
def test_slices_are_furthest_apart_or_axial(spacing_mm, axis):
    assert coarsest_axis(spacing_mm) == axis


@pytest.fixture
def folders(tmp_path):
    write(tmp_path / "truth", "a", [0, 2, 4, 2])
    write(tmp_path / "truth", "b", [0, 0, 0, 0])
    for name, areas in (("smooth", [0, 1, 2, 1]), ("jumpy", [3, 0, 3, 0])):
        write(tmp_path / name, "a", areas)
        write(tmp_path / name, "b", [0, 0, 1, 0])
    return tmp_path / "truth", {"smooth": tmp_path / "smooth", "jumpy": tmp_path / "jumpy"}


def test_several_predictions_beside_the_truth(folders, tmp_path):
    plots = area_plots(*folders, num_workers=0)
    first, second = plots.per_case
    assert (first.case, first.axis, first.slice_distance_mm) == ("a", "axial", 2.0)
    assert first.reference.areas == first.predictions["smooth"].areas == (0, 0.5, 1, 0.5)
    assert first.predictions["smooth"].correlation == pytest.approx(1)
    assert first.predictions["jumpy"].num_runs == 2
    assert second.predictions["jumpy"].mean_absolute_difference == 0.25
    assert plots.mean["jumpy"].total_variation == pytest.approx((3 + 2) / 2)
    assert plots.mean["reference"].num_runs == 0.5
    write_area_plots(plots, tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "a.png",
        "b.png",
        "area_plots.csv",
        "area_plots.json",
    }
    assert (tmp_path / "plots" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert read_record(tmp_path / "plots" / "area_plots.json", AreaPlots) == plots
    with (tmp_path / "plots" / "area_plots.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["segmentation"]) for row in rows] == [
        (case, name) for case in "ab" for name in ("reference", "smooth", "jumpy")
    ]
    assert rows[0]["correlation"] == ""
    assert float(rows[2]["total_variation"]) == 3


def test_another_axis_may_be_asked_for(folders):
    areas = area_plots(*folders, axis="coronal", num_workers=0).per_case[0].reference.areas
    assert areas == (1, 0)


def test_ignored_voxels_have_no_area(folders):
    truth, predictions = folders
    write(truth, "b", [0, 3, 0, 0], value=2)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "ignore": 2}}
    (truth / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz", "numTraining": 2}))
    write(predictions["smooth"], "b", [0, 4, 0, 0])
    case = area_plots(truth, predictions, num_workers=0).per_case[1]
    assert not any(case.reference.areas)
    assert case.predictions["smooth"].areas == (0, 1, 0, 0)
    assert case.predictions["jumpy"].areas == (0, 0, 1, 0)


@pytest.mark.parametrize("names", [[], ["reference"]])
def test_predictions_need_names_of_their_own(folders, names):
    with pytest.raises(InputError, match="expected folders of predictions by name"):
        area_plots(folders[0], dict.fromkeys(names, folders[0]), num_workers=0)


def test_missing_predictions_are_listed(folders):
    (folders[1]["jumpy"] / "b.nii.gz").unlink()
    with pytest.raises(InputError, match="no prediction for 1 of 2 cases: b"):
        area_plots(*folders, num_workers=0)


def test_the_number_of_workers_follows_the_largest_case(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(sizes, "choose_num_workers", lambda *wanted: asked.append(wanted) or 0)
    area_plots(*folders)
    assert asked == [(None, 4 * 2 * 5 * 22 + (200 << 20), 2)]
