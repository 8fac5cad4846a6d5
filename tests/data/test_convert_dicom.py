"""From folders of DICOM files to NIfTI."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.errors import DatasetError, InputError
from seg25d.data.convert_dicom import convert_dicom
from seg25d.data.dicom_options import DicomOptions
from seg25d.data.image_io import read_channel, read_image
from tests.data.dicom_files import ramp, save, slice_dataset, write_slices

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
    return [path.name for path in convert_dicom(source, out, num_processes=0)]


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
    assert "a.dcm: the DICOM file ends before its image" in message
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


def two_phases(folder: Path) -> None:
    for phase in (1, 2):
        for index, numbers in enumerate(ramp() + 100 * phase):
            dataset = slice_dataset(numbers, (0, 0, 2.0 * index), index, TemporalPositionIdentifier=phase)
            save(dataset, folder / f"{phase}{index}.dcm")


def test_a_disc_with_reports_and_a_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    directory = slice_dataset(ramp()[0], (0, 0, 0), SOPClassUID="1.2.840.10008.1.3.10", Rows=None, PixelData=None)
    save(directory, tmp_path / "disc" / "DICOMDIR")
    report = slice_dataset(
        ramp()[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", Rows=None, Columns=None, PixelData=None
    )
    save(report, tmp_path / "disc" / "DICOM" / "reports" / "1.dcm")
    with pytest.raises(DatasetError, match="holds no DICOM images"):
        convert(tmp_path / "disc", tmp_path / "out")
    write_slices(tmp_path / "disc" / "DICOM" / "ct", ramp())
    assert convert(tmp_path / "disc", tmp_path / "out") == ["DICOM_ct_0000.nii.gz"]
    assert "reports: skipped" in caplog.text


def test_phases_become_cases(tmp_path: Path) -> None:
    two_phases(tmp_path / "in" / "anna")
    two_phases(tmp_path / "in" / "bert_0001")
    write_slices(tmp_path / "in" / "carl", ramp())
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match="2 phases"):
        convert(tmp_path / "in", out)
    split = DicomOptions(split_phases=True)
    # Worker processes finish in any order.
    names = [path.name for path in convert_dicom(tmp_path / "in", out, 2, split)]
    assert names == [
        "anna_phase1_0000.nii.gz",
        "anna_phase2_0000.nii.gz",
        "bert_phase1_0001.nii.gz",
        "bert_phase2_0001.nii.gz",
        "carl_0000.nii.gz",
    ]
    assert read_channel(out / names[1])[0].max() == ramp().max() + 200
    # Goes on where it was cut off.
    (out / names[1]).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.gz")}
    assert [path.name for path in convert_dicom(tmp_path / "in", out, 0, split)] == names
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert (out / names[1]).exists()


def test_what_was_changed_stands_in_the_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_slices(tmp_path / "in" / "anna", ramp())
    (tmp_path / "in" / "anna" / "3.dcm").unlink()
    write_slices(tmp_path / "in" / "bert", ramp(), lambda index: (0.5 * index, 0, 2.0 * index))
    write_slices(tmp_path / "in" / "carl", ramp())
    out = tmp_path / "out"
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path / "in", out)
    assert "1 slice is missing between 2.dcm and 4.dcm" in str(caught.value)
    assert "the gantry was tilted" in str(caught.value)
    options = DicomOptions(accept_gaps=True, resample_tilt=True)
    convert_dicom(tmp_path / "in", out, 0, options)
    changes = json.loads((out / "conversion.json").read_text())["changes"]
    assert list(changes) == ["anna_0000.nii.gz", "bert_0000.nii.gz"]
    assert "slices interpolated to 6" in changes["anna_0000.nii.gz"][0]
    assert "tilted by 14 degrees" in changes["bert_0000.nii.gz"][0]
    assert "slices interpolated to 6" in caplog.text
    write_slices(tmp_path / "in" / "dora", ramp())
    convert_dicom(tmp_path / "in", out, 0, options)
    assert json.loads((out / "conversion.json").read_text())["changes"] == changes
    with pytest.raises(DatasetError, match="with these options"):
        convert_dicom(tmp_path / "in", out, 0, DicomOptions(accept_gaps=True))


def test_folders_of_segmentations_are_no_series_beside_others(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "anna")
    for index, numbers in enumerate(ramp()):
        dataset = slice_dataset(numbers, (0, 0, 2.0 * index), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        save(dataset, tmp_path / "in" / "out" / f"{index}.dcm")
    assert convert(tmp_path / "in", tmp_path / "nifti") == ["anna_0000.nii.gz"]
    # Alone they are read as what they hold.
    assert convert(tmp_path / "in" / "out", tmp_path / "alone") == ["out_0000.nii.gz"]
