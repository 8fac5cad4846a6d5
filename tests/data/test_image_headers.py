"""Headers are checked before SimpleITK reads a file, and say in one sentence what is wrong and what to do."""
# mypy: disallow-untyped-calls=False

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.core.errors import ImageError
from seg25d.data.image_io import read_geometry, read_image, read_labels, write_labels

ARRAY = np.arange(3 * 4 * 5).reshape(3, 4, 5)
GRID = ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")


def save(path: Path, dtype: type = np.int16, compress: bool = False) -> Path:
    image = sitk.GetImageFromArray(ARRAY.astype(dtype))
    image.SetSpacing((1, 1.5, 2))
    image.SetOrigin((10, 20, 30))
    sitk.WriteImage(image, str(path), compress)
    return path


def put(path: Path, fields: str, offset: int, *values: float) -> Path:
    """Change a field of a NIfTI header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(fields, content, offset, *values)
    path.write_bytes(content)
    return path


def replace(path: Path, old: str, new: str) -> Path:
    """Change words of a header."""
    assert old.encode() in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    return path


def assert_as_by_hand(path: Path, tmp_path: Path) -> None:
    """The file is read as SimpleITK does it, and a result gets its geometry."""
    image, geometry = read_image([path])
    by_hand = sitk.ReadImage(str(path))
    assert np.array_equal(image[0], sitk.GetArrayFromImage(sitk.DICOMOrient(by_hand, "LPS")))
    for ending in (path.suffix, ".nii.gz"):
        result = tmp_path / f"result{ending}"
        write_labels(result, (image[0] % 2).astype(np.uint8), geometry)
        written = sitk.ReadImage(str(result))
        for name in GRID:
            assert getattr(written, name)() == pytest.approx(getattr(by_hand, name)(), abs=1e-6)
        assert np.array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(by_hand) % 2)


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("ending", ["nii", "mha", "nrrd"])
def test_negative_spacing_is_read_as_simpleitk_does_it(ending: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{ending}")
    spacing = [value * (-1 if axis in axes else 1) for axis, value in enumerate((1, 1.5, 2))]
    said = " ".join(map(str, spacing))
    if ending == "nii":
        put(path, "<3f", 80, *spacing)
    elif ending == "mha":
        replace(path, "ElementSpacing = 1 1.5 2", f"ElementSpacing = {said}")
    else:
        replace(path, "space directions: (1,0,0) (0,1.5,0) (0,0,2)", f"spacings: {said}")
        replace(path, "space: left-posterior-superior\n", "")
        replace(path, "space origin: (10,20,30)\n", "")
    assert_as_by_hand(path, tmp_path)
    assert min(read_geometry(path).spacing_mm) > 0


def nifti_2() -> bytes:
    header = bytearray(544)
    struct.pack_into("<i8s", header, 0, 540, b"n+2\0\r\n\x1a\n")
    return bytes(header) + bytes(200)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nii", nifti_2(), "is NIfTI-2, which SimpleITK cannot read.*nibabel.Nifti1Image"),
        ("a.nii.gz", gzip.compress(nifti_2(), mtime=0), "is NIfTI-2"),
        ("a.nii", gzip.compress(bytes(500), mtime=0), "of a gzip archive, as .nii.gz files are.*rename it"),
        ("a.nii.gz", b"NRRD0004\ntype: short\n", "of an NRRD file, not of a NIfTI file; rename it"),
        ("a.nrrd", b"ObjectType = Image\nNDims = 3\n", "of a MetaImage file, not of an NRRD file"),
        ("a.mha", bytes(128) + b"DICM" + bytes(300), "of a DICOM file, not of a MetaImage file"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "of Git LFS"),
        ("a.nii.gz", b"<!DOCTYPE html>", "of a web page"),
        ("a.mha", b"ObjectType = Image\nNDims = 3\n", "it is not a MetaImage file, or its header is truncated"),
        ("a.nii.gz", b"\x1f\x8b\x08\x00", "compressed data are damaged"),
    ],
)
def test_files_of_another_format(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name}: .*{message}"):
        read_geometry(tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "offset", "values", "message"),
    [
        ("<h", 40, (9,), r"it has 9 axes \(dim\[0\]\), expected are 1 to 7; copy or export it again"),
        ("<h", 42, (-5,), r"its size is -5 x 4 x 3 \(dim\)"),
        ("<h", 42, (32767,), "the file is truncated: 472 of 786760 bytes are there"),
        ("<h", 70, (1,), r"the type of its voxels \(datatype 1\) is not known"),
        ("<f", 108, (0.0,), r"the voxels begin at byte 0 \(vox_offset\)"),
        ("<f", 108, (np.nan,), r"the voxels begin at byte nan"),
        ("<f", 84, (np.inf,), r"the spacing along y is inf \(pixdim\)"),
        ("<f", 84, (0.0,), r"the spacing along y is 0 \(pixdim\)"),
        ("<f", 84, (1e-20,), r"the spacing is 2 x 1e-20 x 1 mm \(z, y, x\), expected is 1e-06 to 10000 mm"),
        ("<f", 256, (np.nan,), "its qform holds numbers that are not finite"),
        ("<f", 300, (np.inf,), "its sform holds numbers that are not finite"),
        ("<i", 344, (0,), "lacks the mark of NIfTI"),
        ("<2h24x12f", 252, (0, 1, *[0] * 12), r"its sform \(code 1\) is zero, and it has no qform; write the right"),
        ("<2h24x12f", 252, (0, 2, 1, 0, 0, 5, 1, 0, 0, 5, 0, 0, 2, 5), r"code 2\) is .* do not span a volume"),
    ],
)
def test_nifti_headers(fields: str, offset: int, values: tuple[float, ...], message: str, tmp_path: Path) -> None:
    path = put(save(tmp_path / "a.nii"), fields, offset, *values)
    with pytest.raises(ImageError, match=f"a.nii: .*{message}"):
        read_geometry(path)


@pytest.mark.parametrize("compress", [False, True])
def test_thousands_of_extensions_are_refused(compress: bool, tmp_path: Path) -> None:
    """The library under SimpleITK copies the list of them for each: 2 KB of gzip data took 11 s."""
    good = save(tmp_path / "good.nii").read_bytes()
    for number, many in ((1000, False), (1001, True)):
        header = bytearray(good[:348])
        struct.pack_into("<f", header, 108, 352 + 16 * number)
        content = bytes(header) + b"\1\0\0\0" + struct.pack("<2i8x", 16, 4) * number + good[352:]
        path = tmp_path / ("a.nii.gz" if compress else "a.nii")
        path.write_bytes(gzip.compress(content) if compress else content)
        if many:
            with pytest.raises(ImageError, match="it has more than 1000 extensions"):
                read_geometry(path)
        else:
            assert np.array_equal(read_image([path])[0], read_image([tmp_path / "good.nii"])[0])


def test_bits_per_voxel_do_not_count(tmp_path: Path) -> None:
    """The library under SimpleITK goes by `datatype` alone, and so does the check of the length."""
    path = put(save(tmp_path / "a.nii"), "<h", 72, 1)
    assert_as_by_hand(path, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match="471 of 472 bytes are there"):
        read_geometry(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NDims = 3", "NDims = 300", "it has 300 axes"),
        ("DimSize = 5 4 3", "DimSize = 5 4", "`DimSize` is '5 4', expected are 3 whole numbers from 1 to 2147483647"),
        ("DimSize = 5 4 3", "DimSize = 5 4 3000", "the file is truncated: 120 of 120000 bytes are there of data"),
        ("ElementType = MET_SHORT", "ElementType = MET_STRING", "ElementType MET_STRING"),
        ("ElementSpacing = 1 1.5 2", "ElementSpacing = 1 1.5 0", "the spacing is 1 1.5 0"),
        ("ElementSpacing = 1 1.5 2", "ElementSpacing = 1 nan 2", "expected are 3 finite numbers"),
        ("Offset = 10 20 30", "Offset = 1e9 20 30", "the first voxel is at 1e[+]09 x 20 x 30 mm"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 9 0 0 0 1", "not of length 1"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 1 0 0 0 0 1", "point the same way"),
        ("ElementDataFile = LOCAL", "ElementDataFile = /dev/zero", "names '/dev/zero' as its data file"),
        ("ElementDataFile = LOCAL", "ElementDataFile = ../a.raw", "put the data file beside the header"),
        ("ElementDataFile = LOCAL", f"ElementDataFile = {'b' * 400}", "does not exist beside it"),
        ("ElementDataFile = LOCAL", "ElementDataFile = %s.raw 1 9 1", "as its data file"),
        ("ElementDataFile = LOCAL", "Comment = x", "ElementDataFile is missing"),
        ("ObjectType = Image", "ObjectType = Tube", "holds a Tube, expected is an Image"),
        ("CompressedData = False", "CompressedData False", "the line 'CompressedData False' has no value"),
        ("NDims = 3", "NDims = 3\nNDims = 3", "NDims stands in it twice"),
        ("NDims = 3", "NDims = 3\nHeaderSize = 4", "HeaderSize is 4, though .* remove HeaderSize from the header, or"),
    ],
)
def test_metaimage_headers(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = replace(save(tmp_path / "a.mha"), old, new)
    with pytest.raises(ImageError, match=f"a.mha: .*{message}"):
        read_geometry(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: 5 4 3", "sizes: 5 4 -3", "`sizes` is '5 4 -3', expected are 3 whole numbers from 1 to"),
        ("sizes: 5 4 3", "sizes: 5 4 3000", "the file is truncated: 120 of 120000 bytes"),
        ("dimension: 3", "dimension: 12", "it has 12 axes"),
        ("dimension: 3\n", "", "`dimension` is missing"),
        ("type: short", "type: block", r"the type of its voxels \(block\)"),
        ("encoding: raw", "encoding: bzip2", "the encoding bzip2 .* save it with the encoding gzip or raw"),
        ("encoding: raw", f"encoding: raw\n{'b' * 3000}: 1", "it has the field 'bbb"),
        ("kinds: domain", f"kinds: {'b' * 3000}", "it has the field 'kinds'"),
        ("encoding: raw", "encoding: raw\ndata file: /dev/zero", "names '/dev/zero' as its data file"),
        ("(1,0,0)", "(nan,0,0)", "`space directions` is"),
        ("(1,0,0)", "(1e30,0,0)", "the spacing is"),
        ("type: short", "type: short\ntype: short", "type stands in it twice"),
        ("type: short", "type: short" + "\na:=b" * 5001, "it has 5001 lines `key:=value`, expected are at most 5000"),
        ("type: short", "type: short" + "\n# b" * 20000, "it has 20000 lines or more"),
    ],
    ids=lambda text: text[:40],
)
def test_nrrd_headers(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = replace(save(tmp_path / "a.nrrd"), old, new)
    with pytest.raises(ImageError, match=f"a.nrrd: .*{message}"):
        read_geometry(path)


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii.gz"])
def test_every_damage_of_compressed_data_is_found(ending: str, tmp_path: Path) -> None:
    """SimpleITK by hand reads such MetaImage files without an error, with other voxels."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 9, (9, 10, 11)).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"), True)
    good = (tmp_path / f"a.{ending}").read_bytes()
    for place in range(len(good) - 300, len(good) - 20, 40):
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        (tmp_path / f"b.{ending}").write_bytes(damaged)
        with pytest.raises(ImageError, match="damaged"):
            read_image([tmp_path / f"b.{ending}"])


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii.gz"])
def test_announced_sizes_take_no_memory(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / f"a.{ending}", compress=True)
    if ending == "nii.gz":
        content = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into("<3h", content, 42, 32767, 32767, 32767)
        path.write_bytes(gzip.compress(content))
    else:
        replace(
            path, "= 5 4 3" if ending == "mha" else ": 5 4 3", f"{'=' if ending == 'mha' else ':'} 32767 32767 32767"
        )
    monkeypatch.setattr(sitk.ImageFileReader, "ReadImageInformation", None)
    with pytest.raises(ImageError, match="compressed bytes cannot hold"):
        read_geometry(path)


def by_hand(path: Path) -> None:
    assert np.array_equal(read_labels(path)[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert np.array_equal(read_labels(path)[0], ARRAY)


def slices(folder: Path, suffix: str) -> list[str]:
    for index, plane in enumerate(ARRAY.astype("<i2"), 1):
        (folder / f"slice{index}{suffix}").write_bytes(plane.tobytes())
    return [f"slice{index}{suffix}" for index in range(1, len(ARRAY) + 1)]


def meta_list(folder: Path) -> Path:
    return replace(save(folder / "a.mhd"), "= a.raw", "= LIST\n" + "\n".join(slices(folder, ".raw")))


def meta_pattern(folder: Path) -> Path:
    slices(folder, ".raw")
    return replace(save(folder / "a.mhd"), "= a.raw", "= slice%d.raw 1 3 1")


def meta_text(folder: Path) -> Path:
    path = replace(save(folder / "a.mhd"), "BinaryData = True", "BinaryData = False")
    (folder / "a.raw").write_text(" ".join(map(str, ARRAY.ravel())) + "\n")
    return path


def nrrd_beside(folder: Path) -> Path:
    path = save(folder / "a.nrrd")
    header = path.read_bytes().partition(b"\n\n")[0]
    (folder / "a.raw").write_bytes(ARRAY.astype("<i2").tobytes())
    path.write_bytes(header + b"\ndata file: a.raw\n")
    return path


def nrrd_list(folder: Path) -> Path:
    path = nrrd_beside(folder)
    return replace(path, "data file: a.raw", "data file: LIST\n" + "\n".join(slices(folder, ".raw")))


def nrrd_pattern(folder: Path) -> Path:
    slices(folder, ".raw")
    return replace(nrrd_beside(folder), "data file: a.raw", "data file: slice%d.raw 1 3 1")


def nrrd_text(folder: Path) -> Path:
    path = replace(nrrd_beside(folder), "encoding: raw", "encoding: ascii")
    (folder / "a.raw").write_text(" ".join(map(str, ARRAY.ravel())) + "\n")
    return path


def nrrd_hex(folder: Path) -> Path:
    path = replace(nrrd_beside(folder), "encoding: raw", "encoding: hex")
    (folder / "a.raw").write_text(ARRAY.astype("<i2").tobytes().hex())
    return path


def nrrd_skip(folder: Path) -> Path:
    path = replace(nrrd_beside(folder), "data file:", "byte skip: 7\ndata file:")
    (folder / "a.raw").write_bytes(bytes(7) + ARRAY.astype("<i2").tobytes())
    return path


def meta_gzip(folder: Path) -> Path:
    path = save(folder / "a.mhd")
    data = zlib.compress(ARRAY.astype("<i2").tobytes())
    (folder / "a.raw").write_bytes(data)
    return replace(path, "CompressedData = False", f"CompressedData = True\nCompressedDataSize = {len(data)}")


@pytest.mark.parametrize(
    "make",
    [
        meta_list, meta_pattern, meta_text, meta_gzip, nrrd_beside, nrrd_list, nrrd_pattern, nrrd_text, nrrd_hex,
        nrrd_skip,
    ],
)  # fmt: skip
def test_all_ways_to_store_data_are_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    by_hand(path)
    for file in tmp_path.glob("*.raw"):
        file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 4])
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read_labels(path)


@pytest.mark.parametrize("case", ["x.nii", "x.nii.gz", "x.img", "x.hdr", "50%d", "x.mha", "ä b"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_case_names_of_any_ending(ending: str, case: str, tmp_path: Path) -> None:
    _, geometry = read_image([save(tmp_path / "source.nii")])
    out = tmp_path / "out"
    write_labels(out / f"{case}{ending}", ARRAY.astype(np.uint8), geometry)
    names = {path.name for path in out.iterdir()}
    assert {name for name in names if not name.endswith("zraw")} == {f"{case}{ending}"}
    assert np.array_equal(read_labels(out / f"{case}{ending}")[0], ARRAY)
