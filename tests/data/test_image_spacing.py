"""What is said where a file leaves its spacing open, or gives it in other units."""
# mypy: disallow-untyped-calls=False

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.data.image_io import read_geometry
from seg25d.data.image_spacing import spacing_note

OPEN = "1 mm is taken along all axes, as its header has neither "


def save(path: Path, old: str = "", new: str = "") -> Path:
    image = sitk.GetImageFromArray(np.ones((3, 4, 5), np.int16))
    image.SetSpacing((1, 1.5, 2))
    sitk.WriteImage(image, str(path))
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode()))
    read_geometry(path)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.mhd", "a.nrrd"])
def test_files_that_say_it(name: str, tmp_path: Path) -> None:
    assert spacing_note(save(tmp_path / name), 3) is None
    assert spacing_note(tmp_path, 3) is None


@pytest.mark.parametrize(
    ("name", "old", "new", "note"),
    [
        ("a.mha", "ElementSpacing = 1 1.5 2\n", "", f"{OPEN}ElementSpacing nor ElementSize"),
        ("a.mhd", "ElementSpacing = 1 1.5 2\n", "", f"{OPEN}ElementSpacing nor ElementSize"),
        ("a.mha", "ElementSpacing =", "ElementSize =", None),
        ("a.mha", "NDims = 3\n", "NDims = 3\nDistanceUnits = mm\n", None),
        ("a.mha", "NDims = 3\n", "NDims = 3\nDistanceUnits = ?\n", None),
        ("a.mha", "NDims = 3\n", "NDims = 3\nDistanceUnits = m\n", "though `DistanceUnits` of its header says m"),
        ("a.nrrd", "sizes:", 'space units: "mm" "mm" "mm"\nsizes:', None),
        ("a.nrrd", "sizes:", 'space units: "m" "m" "m"\nsizes:', "though `space units` of its header says m"),
    ],
)
def test_files_that_do_not(name: str, old: str, new: str, note: str | None, tmp_path: Path) -> None:
    found = spacing_note(save(tmp_path / name, old, new), 3)
    assert found is None if note is None else note in str(found)


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ("", f"{OPEN}spacings nor space directions"),
        ("thicknesses: 1 1 2\n", f"{OPEN}spacings nor space directions"),
        ("axis mins: 0 0 0\naxis maxs: 5 4 6\n", f"{OPEN}spacings nor space directions"),
        ("spacings: 1 1 1\n", None),
        (
            'spacings: 1 1 1\nunits: "mm" "" "cm"\n',
            "its lengths are taken as mm, as SimpleITK does, though `units` of its header says cm",
        ),
    ],
)
def test_nrrd_without_axes_in_space(more: str, note: str | None, tmp_path: Path) -> None:
    header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\nencoding: raw\n{more}\n"
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + bytes(120))
    assert read_geometry(path).spacing_mm == (1, 1, 1)
    assert spacing_note(path, 3) == note
