"""The window tags in the headers of real files, as SimpleITK writes and reads them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.core.errors import ImageError
from seg25d.data.image_window import read_window_tags

# Window Center and Window Width in DICOM PS3.6.
CENTER, WIDTH = "0028|1050", "0028|1051"


def write(path: Path, **tags: str) -> Path:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    for name, text in tags.items():
        image.SetMetaData({"center": CENTER, "width": WIDTH}[name], text)
    sitk.WriteImage(image, str(path))
    return path


def write_series(folder: Path, windows: list[tuple[str, str]]) -> Path:
    """A DICOM series with a slice per window; the names of the files are in the opposite order of the slices."""
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, (center, width) in enumerate(windows):
        image = sitk.GetImageFromArray(np.zeros((4, 5), np.int16))
        tags = {
            "0008|0060": "CT",
            "0018|0050": "2",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0032": f"0\\0\\{2 * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for key, text in (tags | {CENTER: center, WIDTH: width}).items():
            if text:
                image.SetMetaData(key, text)
        writer.SetFileName(str(folder / f"{9 - number}.dcm"))
        writer.Execute(image)
    return folder


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
def test_files_written_from_dicom_keep_the_tags(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a{ending}", center="-600\\40 ", width="1500\\400 ")
    assert read_window_tags(path) == ("-600\\40", "1500\\400")
    assert read_window_tags(write(tmp_path / f"b{ending}", width="80")) == ("", "80")
    assert read_window_tags(write(tmp_path / f"c{ending}")) == ("", "")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_files_have_no_place_for_them(tmp_path: Path, ending: str) -> None:
    assert read_window_tags(write(tmp_path / f"a{ending}", center="40", width="400")) == ("", "")


def test_the_first_slice_of_a_dicom_folder_is_asked(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", [("-600\\40", "1500\\400"), ("50", "350"), ("", "")])
    assert read_window_tags(folder) == ("-600\\40", "1500\\400")
    assert read_window_tags(write_series(tmp_path / "b", [("", ""), ("", "")])) == ("", "")
    assert read_window_tags(write_series(tmp_path / "c", [("40.5", "400")])) == ("40.5", "400")


def test_a_real_dicom_folder(shared_data: Path) -> None:
    folder = shared_data / "robustness" / "dicom" / "hippocampus_crop"
    assert read_window_tags(folder) == ("470", "950")


def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(b"damaged")
    with pytest.raises(ImageError, match=r"a\.mha"):
        read_window_tags(tmp_path / "a.mha")
    with pytest.raises(ImageError, match="no DICOM"):
        read_window_tags(tmp_path)
