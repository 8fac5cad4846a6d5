"""`predict --statistics`: what is predicted is measured, whenever it was predicted, and whatever else failed."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from seg25d.cli.main import main
from seg25d.data.image_io import read_labels


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def copy_case(images: list[Path], case: str, name: str) -> None:
    for image in images:
        shutil.copy(image, image.with_name(image.name.replace(case, name)))


def test_what_is_predicted_is_measured(trained_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = sorted((trained_once / "raw").glob("Dataset900_*/imagesTs"))
    shutil.copytree(source, tmp_path / "images")
    images = sorted((tmp_path / "images").glob("*.nii.gz"))
    case = images[0].name.removesuffix("_0000.nii.gz")
    copy_case(images, case, "another")
    words = ["predict", "-i", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "-d", "900", "-c", "2d"]
    words += ["--workspace", str(trained_once), "--device", "cpu", "--statistics", str(tmp_path / "table.csv")]
    assert main(words) == 0
    first = rows_of(tmp_path / "table.csv")
    assert {row["case"] for row in first} == {case, "another"}
    labels, geometry = read_labels(tmp_path / "out" / f"{case}.nii.gz")
    volumes = [float((labels == value).sum() * np.prod(geometry.spacing_mm) / 1000) for value in (1, 2)]
    measured = [float(row["volume_ml"]) for row in first if row["case"] == case]
    assert measured[: len(volumes)] == pytest.approx(volumes[: len(measured)], rel=1e-5)
    # Another case, of which one fails: the table has all that are there.
    copy_case(images, case, "new")
    copy_case(images, case, "broken")
    (tmp_path / "images" / "broken_0000.nii.gz").write_bytes(b"no image")
    assert main(words) == 1
    assert "broken" in capsys.readouterr().err
    assert {row["case"] for row in rows_of(tmp_path / "table.csv")} == {case, "another", "new"}


def test_a_table_that_cannot_be_written_stops_before_the_prediction(trained_once: Path, tmp_path: Path) -> None:
    (source,) = sorted((trained_once / "raw").glob("Dataset900_*/imagesTs"))
    words = ["predict", "-i", str(source), "-o", str(tmp_path / "out"), "-d", "900", "-c", "2d"]
    assert main([*words, "--workspace", str(trained_once), "--statistics", str(tmp_path)]) == 2
    assert not (tmp_path / "out").exists()
