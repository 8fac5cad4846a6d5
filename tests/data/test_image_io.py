"""Reading and writing image files: canonical axes in, the file's geometry out, to the last digit."""
# mypy: disallow-untyped-calls=False

import itertools
import logging
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seg25d.core.errors import ImageError
from seg25d.data import image_io
from seg25d.data.image_io import Geometry, read_geometry, read_image, read_labels, write_labels

ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"]
SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)].T * np.array(signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def make_image(direction: np.ndarray, rng: np.random.Generator, dtype: type = np.uint8) -> sitk.Image:
    image = sitk.GetImageFromArray(rng.integers(0, 5, (3, 4, 5)).astype(dtype))
    image.SetSpacing(rng.uniform(0.3, 5, 3).tolist())
    image.SetOrigin(rng.uniform(-300, 300, 3).tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def oblique(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def grid(image: sitk.Image) -> tuple[tuple[float, ...], ...]:
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def write_nifti(path: Path, affine: np.ndarray, order: str = "<", shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    """A NIfTI file by hand: sform only, spacing 1, 2, 3 mm; gives the array (z, y, x)."""
    header = bytearray(352)
    for offset, layout, values in [
        (0, "i", [348]),
        (40, "8h", [len(shape), *shape, *[1] * (7 - len(shape))]),
        (70, "2h", [2, 8]),
        (76, "8f", [1, 1, 2, 3, 1, 1, 1, 1]),
        (108, "f", [352]),
        (123, "B", [2]),
        (252, "2h", [0, 1]),
        (280, "12f", affine.ravel().tolist()),
    ]:
        struct.pack_into(order + layout, header, offset, *values)
    header[344:348] = b"n+1\0"
    array = (np.arange(np.prod(shape)) % 7).astype(np.uint8)
    path.write_bytes(bytes(header) + array.tobytes())
    return array.reshape(shape[::-1])


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_48_orientations_and_oblique_ones_come_back_exactly(
    ending: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    for direction in [*SIGNED_PERMUTATIONS, *(oblique(rng) for _ in range(12))]:
        source, target = tmp_path / f"source{ending}", tmp_path / f"target{ending}"
        sitk.WriteImage(make_image(direction, rng), str(source))
        labels, geometry = read_labels(source)
        write_labels(target, labels, geometry)
        before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
        assert grid(after) == grid(before)
        assert np.array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(before))


@pytest.mark.parametrize(("source_ending", "ending"), [*itertools.permutations(ENDINGS, 2)])
def test_geometry_across_formats(source_ending: str, ending: str, tmp_path: Path, rng: np.random.Generator) -> None:
    source, target = tmp_path / f"source{source_ending}", tmp_path / f"target{ending}"
    sitk.WriteImage(make_image(oblique(rng), rng), str(source))
    labels, geometry = read_labels(source)
    write_labels(target, labels, geometry)
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
    if ending in (".mha", ".mhd"):
        assert grid(after) == grid(before)
    for left, right in zip(grid(after), grid(before), strict=True):
        assert np.allclose(left, right, rtol=0, atol=1e-4 if ".nii" in ending else 1e-12)
    assert np.array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(before))


def test_canonical_axes_are_lps(tmp_path: Path) -> None:
    """A voxel marked in physical space is found where the canonical axes say."""
    for direction in SIGNED_PERMUTATIONS:
        image = sitk.Image([4, 5, 6], sitk.sitkUInt8)
        image.SetDirection(direction.ravel().tolist())
        corners = [image.TransformIndexToPhysicalPoint(c) for c in itertools.product((0, 3), (0, 4), (0, 5))]
        lowest = np.min(corners, axis=0)
        step = np.array([1, 0, 0]) + lowest  # one voxel to the left of the corner most right, anterior, inferior
        image[image.TransformPhysicalPointToIndex(step.tolist())] = 1
        sitk.WriteImage(image, str(tmp_path / "a.mha"))
        labels, geometry = read_labels(tmp_path / "a.mha")
        assert np.argwhere(labels).tolist() == [[0, 0, 1]]
        assert labels.shape == geometry.canonical_shape


@given(st.integers(0, 2**32 - 1))
def test_from_canonical_undoes_to_canonical(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = Geometry(
        shape=(2, 3, 4), spacing_mm=(3.0, 2.0, 1.0), origin_mm=(0, 0, 0), direction=tuple(oblique(rng).ravel().tolist())
    )
    array = rng.normal(size=(2, 2, 3, 4))
    canonical = geometry.to_canonical(array)
    assert canonical.shape == (2, *geometry.canonical_shape)
    assert np.array_equal(geometry.from_canonical(canonical), array)
    sizes = dict(zip(geometry.shape, geometry.spacing_mm, strict=True))
    assert geometry.canonical_spacing_mm == tuple(sizes[size] for size in geometry.canonical_shape)


def test_competing_axes_get_different_places() -> None:
    """Two file axes 45 degrees between L and P: each canonical axis still gets one of them."""
    half = 0.5**0.5
    geometry = Geometry(
        shape=(2, 3, 4), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(half, -half, 0, half, half, 0, 0, 0, 1)
    )
    assert sorted(geometry.canonical_shape) == [2, 3, 4]
    assert len(set(geometry.orientation)) == 3


@pytest.mark.parametrize(("index", "orientation"), [(0, "LPS"), (6, "RAS")])
def test_orientation(index: int, orientation: str, tmp_path: Path, rng: np.random.Generator) -> None:
    sitk.WriteImage(make_image(SIGNED_PERMUTATIONS[index], rng), str(tmp_path / "a.nii"))
    assert read_geometry(tmp_path / "a.nii").orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_of_either_byte_order(order: str, tmp_path: Path, rng: np.random.Generator) -> None:
    affine = np.c_[oblique(rng) * [1, 2, 3], [1.1, 2.2, 3.3]]
    array = write_nifti(tmp_path / "a.nii", affine, order)
    labels, geometry = read_labels(tmp_path / "a.nii")
    write_labels(tmp_path / "b.nii.gz", labels, geometry)
    assert read_geometry(tmp_path / "b.nii.gz") == geometry
    assert grid(sitk.ReadImage(str(tmp_path / "a.nii"))) == grid(sitk.ReadImage(str(tmp_path / "b.nii.gz")))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nii.gz"))), array)


def test_sheared_nifti_is_read_and_its_affine_written_again(tmp_path: Path) -> None:
    affine = np.array([[1, 0.2, 0, -5], [0, 2, 0, -6], [0, 0, 3, -7.0]])
    write_nifti(tmp_path / "a.nii", affine)
    labels, geometry = read_labels(tmp_path / "a.nii")
    write_labels(tmp_path / "b.nii", labels, geometry)
    assert (tmp_path / "b.nii").read_bytes()[252:328] == (tmp_path / "a.nii").read_bytes()[252:328]


def test_fourth_axis_of_one_is_dropped(tmp_path: Path) -> None:
    array = write_nifti(tmp_path / "a.nii", np.c_[np.diag([1, 2, 3]), [0, 0, 0]], shape=(3, 4, 5, 1))
    assert read_image([tmp_path / "a.nii"])[0].shape == (1, *array.shape[1:])


def test_channels_of_mixed_types_become_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    image = make_image(np.eye(3), rng, np.uint8)
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nrrd"]
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat64) * 0.5, str(paths[1]))
    array, _ = read_image(paths)
    assert array.dtype == np.float32
    assert np.array_equal(array[0] * 0.5, array[1])


def test_read_arrays_own_their_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    sitk.WriteImage(make_image(np.eye(3), rng), str(tmp_path / "a.nii"))
    labels, _ = read_labels(tmp_path / "a.nii")
    assert labels.flags.c_contiguous
    assert labels.flags.writeable
    # In the process that reads, they are no view of memory that SimpleITK gives back.
    assert image_io._read_labels(tmp_path / "a.nii", {})[0].flags.owndata


def test_channels_on_different_grids(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in "ab":
        sitk.WriteImage(make_image(np.eye(3), rng), str(tmp_path / f"{name}.nii"))
    with pytest.raises(ImageError, match=r"b\.nii: its grid differs from that of a\.nii: spacing"):
        read_image([tmp_path / "a.nii", tmp_path / "b.nii"])


def geometry_with(**changes: object) -> Geometry:
    base = {
        "shape": (2, 3, 4),
        "spacing_mm": (1, 1, 1),
        "origin_mm": (0, 0, 0),
        "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    }
    return Geometry.model_validate(base | changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"shape": (2, 3, 5)}, "shape"),
        ({"spacing_mm": (1, 1, 1.002)}, "spacing"),
        ({"origin_mm": (0, 0.02, 0)}, "origin"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction"),
    ],
)
def test_difference_names_what_differs(changes: dict[str, object], word: str) -> None:
    assert (geometry_with().difference(geometry_with(**changes)) or "").startswith(word)


def test_rounding_is_no_difference() -> None:
    other = geometry_with(spacing_mm=(1, 1, 1.0005), origin_mm=(0, 0.005, 0))
    assert geometry_with().difference(other) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_files(ending: str, tmp_path: Path, rng: np.random.Generator) -> None:
    image = sitk.GetImageFromArray(rng.integers(0, 999, (9, 9, 9)).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    cut = tmp_path / ("a.raw" if ending == ".mhd" else f"a{ending}")
    cut.write_bytes(cut.read_bytes()[:-300])
    with pytest.raises(ImageError, match=f"a{ending}: the file .*truncated.*; copy or export it again"):
        read_image([tmp_path / f"a{ending}"])


def test_gzip_of_several_members_is_complete(tmp_path: Path, rng: np.random.Generator) -> None:
    import gzip  # noqa: PLC0415

    sitk.WriteImage(make_image(np.eye(3), rng), str(tmp_path / "a.nii"))
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:380]) + gzip.compress(content[380:]))
    assert np.array_equal(read_labels(tmp_path / "b.nii.gz")[0], read_labels(tmp_path / "a.nii")[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nii.gz", b"", "the file is empty"),
        ("a.nii", b"no image", "cannot be read"),
        ("a.nii.gz", b"\x1f\x8b\x08", "cannot be read"),
        ("a.gif", b"x", "ending is not known"),
        (
            "a.mhd",
            b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = no.raw\n",
            "",
        ),
    ],
)
def test_useless_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name}: .*{message}"):
        read_image([tmp_path / name])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_geometry(tmp_path / "a.nii")


def test_4d_2d_rgb_and_complex_files(tmp_path: Path) -> None:
    write_nifti(tmp_path / "four.nii", np.c_[np.eye(3), [0, 0, 0]], shape=(3, 4, 5, 2))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5), np.uint8)), str(tmp_path / "two.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "rgb.nii"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.complex64)), str(tmp_path / "complex.nii"))
    for name, message in [
        ("four", "4D"),
        ("two", "2D"),
        ("rgb", "3 numbers per voxel"),
        ("complex", "has complex numbers"),
    ]:
        path = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(ImageError, match=message):
            read_geometry(path)


def test_error_can_be_pickled(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read_geometry(tmp_path / "a.nii")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_written_bytes_depend_on_the_arguments_only(tmp_path: Path) -> None:
    geometry, labels = geometry_with(), np.ones((2, 3, 4), np.uint8)
    for name in "ab":
        write_labels(tmp_path / name / "case.nii.gz", labels, geometry)
    assert (tmp_path / "a/case.nii.gz").read_bytes() == (tmp_path / "b/case.nii.gz").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["case.nii.gz"]


def test_write_bool_and_unknown_ending(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.mhd", np.ones((2, 3, 4), bool), geometry_with())
    assert read_labels(tmp_path / "a.mhd")[0].sum() == 24
    with pytest.raises(ImageError, match="known are"):
        write_labels(tmp_path / "a.gif", np.ones((2, 3, 4), np.uint8), geometry_with())


def test_dicom_series(shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    folder = shared_data / "robustness" / "dicom" / "hippocampus_crop"
    image, geometry = read_image([folder])
    assert image.shape == (1, 32, 51, 35)
    assert read_geometry(folder) == geometry
    write_labels(tmp_path / "a.nii.gz", (image[0] > 100).astype(np.uint8), geometry)
    assert read_geometry(tmp_path / "a.nii.gz").difference(geometry) is None


def test_two_series_in_a_folder(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "robustness" / "dicom" / "hippocampus_crop"
    for name in ("1.dcm", "2.dcm"):
        image = sitk.ReadImage(str(folder / name))
        image.SetMetaData("0020|000e", f"1.2.3.{name[0]}")
        sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(ImageError, match=r"holds 2 DICOM series: .*separate folder"):
        read_image([tmp_path])


def test_folder_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no DICOM"):
        read_geometry(tmp_path)


def test_real_volumes_come_back_exactly(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "robustness").rglob("*label*.n*"))
    assert paths
    for path in paths:
        labels, geometry = read_labels(path)
        write_labels(tmp_path / path.name, labels, geometry)
        before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / path.name))
        assert grid(after) == grid(before)
        assert np.array_equal(sitk.GetArrayViewFromImage(after), sitk.GetArrayViewFromImage(before))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_with_nan_are_refused(ending: str, dtype: type, tmp_path: Path) -> None:
    array = np.ones((3, 4, 5), dtype)
    array[0, 0, :2], array[2, 3, 4] = np.nan, -np.inf
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{ending}"))
    with pytest.raises(ImageError, match=f"a{ending}: 2 voxels are NaN and 1 are infinite; replace them"):
        read_image([tmp_path / f"a{ending}"])
    assert read_image([tmp_path / f"a{ending}"], check_finite=False)[0].shape == (1, 3, 4, 5)


@pytest.mark.parametrize("ending", [*ENDINGS, ".tif"])
def test_labels_with_nan_are_refused(ending: str, tmp_path: Path) -> None:
    array = np.ones((3, 4, 5), np.float32)
    array[0, 0, :2], array[2, 3, 4] = np.nan, np.inf
    path = tmp_path / f"a{ending}"
    if ending == ".tif":
        pages = [Image.fromarray(page) for page in array]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    with pytest.raises(ImageError, match=f"a{ending}: 2 voxels are NaN and 1 are infinite; give each voxel a label"):
        read_labels(path)


def test_an_mhd_is_never_an_old_header_with_new_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mhd"
    write_labels(path, np.ones((2, 3, 4), np.uint8), geometry_with())
    seen: list[bool] = []
    replace = Path.replace

    def watch(source: Path, target: Any) -> Path:
        if Path(target).suffix == ".zraw":
            seen.append(path.exists())
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_labels(path, np.zeros((2, 3, 4), np.uint8), geometry_with())
    assert seen == [False]
    assert not read_labels(path)[0].any()
