"""From folders of DICOM files to NIfTI."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.errors import DatasetError, InputError
from seg25d.data.convert_dicom import convert_dicom_folders
from seg25d.data.image_io import read_image

SHAPE = (3, 4, 5)


def write_series(folder: Path, seed: int = 0, series: str = "1") -> None:
    """Slices of 2.5 mm with a rescale slope and intercept, the last slice first."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)
    for index, values_of_slice in enumerate(values):
        image = sitk.GetImageFromArray(values_of_slice[None])
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-10.5, 20.25, 2.5 * index))
        for tag, text in {
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{series}",
            "0020|0013": str(index + 1),
            "0020|0032": f"-10.5\\20.25\\{2.5 * index}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(tag, text)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{series}_{9 - index}.dcm"))
        writer.Execute(image)


def convert(source: Path, out: Path) -> list[str]:
    return [path.name for path in convert_dicom_folders(source, out, num_processes=0)]


def test_files_are_what_a_prediction_reads_of_the_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write_series(tmp_path / "in" / "anna")
    write_series(tmp_path / "in" / "bert" / "ct_0001", seed=1)
    (tmp_path / "in" / "anna" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "papers" / "old").mkdir(parents=True)
    out = tmp_path / "out"
    assert convert(tmp_path / "in", out) == ["anna_0000.nii.gz", "bert_ct_0001.nii.gz"]
    for folder, name in (("anna", "anna_0000"), ("bert/ct_0001", "bert_ct_0001")):
        wanted, geometry = read_image([tmp_path / "in" / folder])
        found, other = read_image([out / f"{name}.nii.gz"])
        assert np.array_equal(found, wanted)
        assert geometry.difference(other) is None
    assert "anna: left out, not images of the series: notes.txt" in caplog.text
    assert "papers: skipped" in caplog.text
    assert "old: skipped" not in caplog.text


def test_one_series_alone_is_called_like_its_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "carl")
    assert convert(tmp_path / "carl", tmp_path / "out") == ["carl_0000.nii.gz"]


def test_all_problems_come_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "anna")
    write_series(tmp_path / "in" / "anna", series="2")
    (tmp_path / "in" / "bert").mkdir()
    (tmp_path / "in" / "bert" / "a.dcm").write_bytes(b"no image")
    for folder in ("x/y", "x_y"):
        write_series(tmp_path / "in" / folder)
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path / "in", tmp_path / "out")
    message = str(caught.value)
    assert "holds 2 DICOM series" in message
    assert "bert: the folder holds no DICOM images" in message
    assert "would both become x_y_0000.nii.gz" in message
    assert not (tmp_path / "out").exists()


def test_folders_without_dicom_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="holds no DICOM files"):
        convert(tmp_path / "in", tmp_path / "out")


def test_what_is_there_is_kept_and_never_overwritten(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "anna")
    out = tmp_path / "out"
    convert(tmp_path / "in", out)
    first = (out / "anna_0000.nii.gz").stat().st_mtime_ns
    write_series(tmp_path / "in" / "bert", seed=1)
    assert convert(tmp_path / "in", out) == ["anna_0000.nii.gz", "bert_0000.nii.gz"]
    assert (out / "anna_0000.nii.gz").stat().st_mtime_ns == first
    write_series(tmp_path / "in" / "anna", seed=2)
    with pytest.raises(DatasetError, match="was not made from"):
        convert(tmp_path / "in", out)
    (out / "conversion.json").unlink()
    with pytest.raises(DatasetError, match="was not made from"):
        convert(tmp_path / "in" / "bert", out)
