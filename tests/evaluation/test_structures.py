"""Sizes and intensities of structures, against SimpleITK's filters and by hand."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.cli.main import main
from seg25d.data import sizes
from seg25d.evaluation.structures import structures_of
from tests.killed import calls_of, run_until

SPACING = (2.5, 0.7, 0.8)


@pytest.fixture(scope="module")
def made_up() -> tuple[Any, Any]:
    """An image of two channels, and smooth random labels 1 to 3, of which 3 touches the border."""
    rng = np.random.default_rng(3)
    smooth = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(rng.normal(size=(14, 40, 38))), 3.0)
    )
    cuts = np.quantile(smooth, (0.6, 0.8, 0.95))
    labels = np.digitize(smooth, cuts).astype(np.uint8)
    labels[:, :1] = labels[:, -1:] = 0
    labels[:, :, 0] = 3
    return rng.normal(40, 300, size=(2, *labels.shape)).astype(np.float32), labels


def itk_image(array: Any) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    return image


def test_sizes_and_intensities_are_those_of_simpleitk(made_up: tuple[Any, Any]) -> None:
    image, labels = made_up
    found = structures_of(image, labels, {str(value): (value,) for value in (1, 2, 3)}, SPACING)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(itk_image(np.pad(labels, 1)))
    for channel in range(2):
        values = sitk.LabelIntensityStatisticsImageFilter()
        values.Execute(itk_image(labels), itk_image(image[channel]))
        for value in (1, 2, 3):
            mine = found[str(value)].intensities[channel]
            assert mine.mean == pytest.approx(values.GetMean(value), rel=1e-5)
            assert mine.std == pytest.approx(values.GetStandardDeviation(value), rel=1e-5)
            assert (mine.min, mine.max) == pytest.approx((values.GetMinimum(value), values.GetMaximum(value)))
            # ITK's median comes from a histogram.
            width = (values.GetMaximum(value) - values.GetMinimum(value)) / 128
            assert mine.p50 == pytest.approx(values.GetMedian(value), abs=width)
            assert (mine.p5, mine.p95) == tuple(np.percentile(image[channel][labels == value].astype(float), (5, 95)))
    for value in (1, 2, 3):
        mine = found[str(value)]
        assert mine.voxels == shapes.GetNumberOfPixels(value)
        assert mine.volume_ml * 1000 == pytest.approx(shapes.GetPhysicalSize(value))
        assert mine.surface_mm2 == pytest.approx(shapes.GetPerimeter(value))
        sizes = shapes.GetBoundingBox(value)[3:]
        assert mine.extent_mm[::-1] == pytest.approx([n * step for n, step in zip(sizes, SPACING[::-1], strict=True)])
        parts = sitk.ConnectedComponent(itk_image((labels == value).astype(np.uint8)), True)
        assert mine.components == int(sitk.GetArrayFromImage(parts).max())


def test_touching_the_border_is_seen_along_each_axis_of_several_voxels() -> None:
    image = np.zeros((1, 5, 6, 7), np.float32)
    for axis in range(3):
        for end in (0, -1):
            labels = np.zeros((5, 6, 7), np.uint8)
            labels[2, 3, 3] = 1
            assert not structures_of(image, labels, {"1": (1,)}, SPACING)["1"].touches_border
            np.moveaxis(labels, axis, 0)[end, 3, 3] = 1
            assert structures_of(image, labels, {"1": (1,)}, SPACING)["1"].touches_border
    flat = structures_of(
        image[:, :1], np.pad(np.ones((1, 2, 2), np.uint8), ((0, 0), (1, 3), (1, 4))), {"1": (1,)}, SPACING
    )
    assert (flat["1"].touches_border, flat["1"].surface_mm2) == (False, None)


def test_regions_overlap_and_what_is_absent_has_zeros() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1, 1:3], labels[2, 3, 3] = 1, 2
    image = np.arange(120, dtype=np.float32).reshape(1, 4, 5, 6)
    found = structures_of(image, labels, {"whole": (1, 2), "core": (2,), "none": (3,)}, (1.0, 1.0, 1.0))
    assert [found[name].voxels for name in ("whole", "core", "none")] == [3, 1, 0]
    assert [found[name].components for name in ("whole", "core", "none")] == [2, 1, 0]
    assert found["whole"].extent_mm == (2.0, 3.0, 3.0)
    assert (found["core"].intensities[0].mean, found["core"].intensities[0].std) == (81.0, None)
    assert (found["none"].volume_ml, found["none"].intensities) == (0.0, ())


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def write_case(folder: Path, case: str, made_up: tuple[Any, Any]) -> None:
    image, labels = made_up
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    for channel in range(2):
        sitk.WriteImage(itk_image(image[channel]), str(folder / "images" / f"{case}_{channel:04d}.nii.gz"))
    sitk.WriteImage(itk_image(labels), str(folder / "labels" / f"{case}.nii.gz"))


def test_the_command_writes_a_row_per_case_and_structure(tmp_path: Path, made_up: tuple[Any, Any]) -> None:
    for case in "ab":
        write_case(tmp_path, case, made_up)
    words = ["statistics", str(tmp_path / "images"), str(tmp_path / "labels"), "--num-processes", "0"]
    assert main(words) == 0
    rows = rows_of(tmp_path / "labels" / "statistics.csv")
    assert [(row["case"], row["structure"]) for row in rows] == [(case, value) for case in "ab" for value in "123"]
    found = structures_of(*made_up, {"3": (3,)}, SPACING)["3"]
    assert float(rows[2]["volume_ml"]) == pytest.approx(found.volume_ml, rel=1e-5)
    assert float(rows[2]["channel_1_p95"]) == pytest.approx(found.intensities[1].p95, rel=1e-5)
    assert (rows[2]["touches_border"], rows[2]["extent_x_mm"]) == ("true", f"{found.extent_mm[2]:.6g}")
    described = '{"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "liver": 1, "rest": [2, 3]}'
    (tmp_path / "dataset.json").write_text(
        described + ', "regions_class_order": [1, 2], "numTraining": 2, "file_ending": ".nii.gz"}'
    )
    assert main([*words, "-o", str(tmp_path / "table.csv")]) == 0
    named = rows_of(tmp_path / "table.csv")
    assert [row["structure"] for row in named] == ["liver", "rest"] * 2
    assert int(named[1]["voxels"]) == int(rows[1]["voxels"]) + int(rows[2]["voxels"])
    assert "PET_mean" in named[0]


def test_numbers_in_names_of_cases_are_no_channels(tmp_path: Path, made_up: tuple[Any, Any]) -> None:
    image, labels = made_up
    for name, array in (("images", image[0]), ("labels", labels)):
        (tmp_path / name).mkdir()
        sitk.WriteImage(itk_image(array), str(tmp_path / name / "scan_2019.nii.gz"))
    words = ["statistics", str(tmp_path / "images"), str(tmp_path / "labels"), "--num-processes", "0"]
    assert main(words) == 0
    rows = rows_of(tmp_path / "labels" / "statistics.csv")
    assert (rows[0]["case"], "channel_0_mean" in rows[0], "channel_1_mean" in rows[0]) == ("scan_2019", True, False)


def test_what_does_not_fit_is_one_error(
    tmp_path: Path, made_up: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(tmp_path, "a", made_up)
    words = ["statistics", str(tmp_path / "images"), str(tmp_path / "labels"), "--num-processes", "0"]
    (tmp_path / "labels" / "a.nii.gz").rename(tmp_path / "labels" / "b.nii.gz")
    assert main(words) == 2
    assert "have no image of the same name: b" in capsys.readouterr().err
    sitk.WriteImage(itk_image(made_up[1][:-1]), str(tmp_path / "labels" / "a.nii.gz"))
    (tmp_path / "labels" / "b.nii.gz").unlink()
    assert main(words) == 2
    assert "a: the grid of" in capsys.readouterr().err
    sitk.WriteImage(itk_image(made_up[1]), str(tmp_path / "labels" / "a.nrrd"))
    assert main(words) == 2
    assert "a.nii.gz and a.nrrd" in capsys.readouterr().err
    assert not (tmp_path / "labels" / "statistics.csv").exists()
    assert main([*words[:2], str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_the_number_of_workers_follows_the_largest_case(
    tmp_path: Path, made_up: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(sizes, "choose_num_workers", lambda *wanted: asked.append(wanted) or 0)
    for case in "ab":
        write_case(tmp_path, case, made_up)
    assert main(["statistics", str(tmp_path / "images"), str(tmp_path / "labels")]) == 0
    assert asked == [(None, 14 * 40 * 38 * (24 + 2 * 4) + (200 << 20), 2)]


@pytest.mark.slow
def test_a_killed_measurement_goes_on_with_the_cases_that_are_left(tmp_path: Path, made_up: tuple[Any, Any]) -> None:
    for case in "abcd":
        write_case(tmp_path, case, made_up)
    words = ["statistics", tmp_path / "images", tmp_path / "labels"]
    table, place = tmp_path / "labels" / "statistics.csv", "seg25d.evaluation.structures:_measure_case"
    assert calls_of(place, *words) == 4
    undisturbed = table.read_bytes()
    run_until(place, 3, *words)
    assert calls_of(place, *words) == 1
    assert table.read_bytes() == undisturbed
    assert len(list(table.parent.iterdir())) == 5
    run_until(place, 3, *words)
    sitk.WriteImage(itk_image(made_up[0][0] + 1), str(tmp_path / "images" / "b_0000.nii.gz"))
    assert calls_of(place, *words) == 2
    first, second = (float(rows_of(table)[row]["channel_0_mean"]) for row in (0, 3))
    assert second == pytest.approx(first + 1, abs=1e-3)
