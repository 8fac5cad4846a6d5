"""Grids that differ: the cure goes with the cause, and two affines of one header are both named."""
# mypy: disallow-untyped-calls=False

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.core.errors import ImageError
from seg25d.data.grid_problems import form_conflict, grid_problem
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import read_geometry, read_image


def nifti(path: Path, codes: tuple[int, int], qform_x: float = -10, sform_x: float = -10, size: int = 5) -> Geometry:
    """A NIfTI file whose two affines put the first voxel at these places (RAS); gives what is read."""
    image = sitk.GetImageFromArray(np.ones((3, 4, size), np.int16))
    image.SetSpacing((1, 1.5, 2))
    image.SetOrigin((10, 20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    for fields, offset, values in (("<2h", 252, codes), ("<f", 268, (qform_x,)), ("<f", 292, (sform_x,))):
        struct.pack_into(fields, content, offset, *values)
    path.write_bytes(content)
    return read_geometry(path)


@pytest.mark.parametrize(
    ("codes", "counts"), [((1, 1), "sform"), ((1, 2), "qform"), ((2, 1), "sform"), ((4, 4), "qform")]
)
def test_the_form_that_simpleitk_takes_is_named(codes: tuple[int, int], counts: str, tmp_path: Path) -> None:
    geometry = nifti(tmp_path / "a.nii", codes, sform_x=-99)
    assert geometry.origin_mm[0] == (10 if counts == "qform" else 99)
    assert form_conflict(geometry) == (
        "qform and sform disagree (origin 10 x 20 x 30 against 99 x 20 x 30 mm (x, y, z)); "
        f"the {counts} counts, as in SimpleITK"
    )


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_forms_that_agree_or_do_not_count(codes: tuple[int, int], tmp_path: Path) -> None:
    assert form_conflict(nifti(tmp_path / "a.nii", codes, sform_x=-10 if codes == (1, 1) else -99)) is None
    assert form_conflict(read_geometry(tmp_path / "a.nii").model_copy(update={"nifti_geometry": None})) is None


@pytest.mark.parametrize("codes", [(1, 1), (1, 2)])
@pytest.mark.parametrize("odd", ["image", "label"])
def test_the_other_file_lies_on_the_form_that_does_not_count(odd: str, codes: tuple[int, int], tmp_path: Path) -> None:
    counting, ignored = (-99, -10) if codes == (1, 1) else (-10, -99)
    two_forms = nifti(tmp_path / f"{odd}.nii", codes, -10, -99)
    plain = tmp_path / ("label.nii" if odd == "image" else "image.nii")
    other = nifti(plain, (1, 1), ignored, ignored)
    image, label = (two_forms, other) if odd == "image" else (other, two_forms)
    found = grid_problem(tmp_path / "label.nii", label, tmp_path / "image.nii", image)
    assert found is not None
    name, other_name = (f"{odd}.nii", plain.name)
    form, unused = ("sform", "qform") if counting == -99 else ("qform", "sform")
    assert (
        f"qform and sform of {name} disagree, the {form} counts, as in SimpleITK, and {other_name} lies on the {unused}"
        in found[0]
    )
    assert found[1].startswith(f"the voxels match: write the right affine into both forms of {name}")
    assert "resampl" not in " ".join(found)


def test_pixdim_is_compared_with_the_sform_alone(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", (0, 1))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<3f", content, 80, 1, 1.0005, 2)
    (tmp_path / "a.nii").write_bytes(content)
    assert form_conflict(read_geometry(tmp_path / "a.nii")) == (
        "pixdim and sform disagree (spacing 2 x 1.0005 x 1 against 2 x 1.5 x 1 mm (z, y, x)); "
        "the pixdim counts, as in SimpleITK"
    )
    struct.pack_into("<3f", content, 80, 1, 1.5005, 2)
    (tmp_path / "a.nii").write_bytes(content)
    assert form_conflict(read_geometry(tmp_path / "a.nii")) is None, "rounding"


def test_a_header_that_disagrees_with_itself_is_corrected_first(tmp_path: Path) -> None:
    odd, other = nifti(tmp_path / "a.nii", (1, 1), -10, -99), nifti(tmp_path / "b.nii", (1, 1), -50, -50)
    for names, grids in ((("a", "b"), (odd, other)), (("b", "a"), (other, odd))):
        difference, cure = grid_problem(
            tmp_path / f"{names[0]}.nii", grids[0], tmp_path / f"{names[1]}.nii", grids[1]
        ) or ("", "")
        assert "; in a.nii qform and sform disagree (origin 10 x 20 x 30 against 99 x 20 x 30" in difference
        assert cure.startswith("write the right affine into both forms of a.nii first")


def test_resampling_is_proposed_only_if_the_numbers_of_voxels_differ(tmp_path: Path) -> None:
    image = nifti(tmp_path / "a.nii", (1, 1))
    moved = nifti(tmp_path / "b.nii", (1, 1), -50, -50)
    larger = nifti(tmp_path / "c.nii", (1, 1), size=6)
    assert grid_problem(tmp_path / "b.nii", image, tmp_path / "a.nii", image) is None
    difference, cure = grid_problem(tmp_path / "b.nii", moved, tmp_path / "a.nii", image) or ("", "")
    assert difference == "origin 50 x 20 x 30 against 10 x 20 x 30 mm (x, y, z)"
    assert "copy the geometry of its header" in cure
    assert "resampl" not in cure
    difference, cure = grid_problem(tmp_path / "c.nii", larger, tmp_path / "a.nii", image) or ("", "")
    assert difference.startswith("shape 3 x 4 x 6 against 3 x 4 x 5")
    assert "resample it to the grid of a.nii" in cure
    with pytest.raises(ImageError, match=r"b.nii: its grid differs from that of a.nii: origin 50 .*copy the geometry"):
        read_image([tmp_path / "a.nii", tmp_path / "b.nii"])


def test_units_and_handedness_of_the_forms(tmp_path: Path) -> None:
    """Metres, and a quaternion that stands for a mirrored grid (pixdim[0] = -1), agree with the sform of SimpleITK."""
    image = sitk.GetImageFromArray(np.ones((3, 4, 5), np.int16))
    image.SetDirection((0, 0.6, 0.8, -1, 0, 0, 0, 0.8, -0.6))
    image.SetSpacing((1, 1.5, 2))
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    assert form_conflict(read_geometry(tmp_path / "a.nii")) is None
    content[123] = 1
    (tmp_path / "a.nii").write_bytes(content)
    geometry = read_geometry(tmp_path / "a.nii")
    assert geometry.spacing_mm == pytest.approx((2000, 1500, 1000))
    assert form_conflict(geometry) is None
    struct.pack_into("<2h", content, 252, 1, 2)
    struct.pack_into("<f", content, 292, -5)
    (tmp_path / "a.nii").write_bytes(content)
    told = form_conflict(read_geometry(tmp_path / "a.nii")) or ""
    assert "against 5000 x" in told
    assert "the qform counts" in told


def test_a_part_of_the_grid_was_saved_cropped(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.ones((6, 7, 8), np.int16))
    image.SetSpacing((1, 1.5, 2))
    image.SetOrigin((10, 20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    sitk.WriteImage(image[2:5, 1:7, 3:], str(tmp_path / "b.nrrd"))
    part = image[2:5, 1:7, 3:]
    part.SetOrigin(np.add(part.GetOrigin(), (0.5, 0, 0)).tolist())
    sitk.WriteImage(part, str(tmp_path / "c.nrrd"))
    sitk.WriteImage(sitk.ConstantPad(image, (0, 0, 0), (1, 0, 0)), str(tmp_path / "d.nrrd"))
    first = read_geometry(tmp_path / "a.nrrd")
    cures = [
        (grid_problem(tmp_path / name, read_geometry(tmp_path / name), tmp_path / "a.nrrd", first) or ("", ""))[1]
        for name in ("b.nrrd", "c.nrrd", "d.nrrd")
    ]
    assert "with a.nrrd as reference" in cures[0]
    assert "cropped" in cures[0]
    assert all("resample it to the grid of a.nrrd" in cure for cure in cures[1:])
