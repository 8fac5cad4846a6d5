"""Hostile image files: one of each kind is refused in one sentence, and nothing but the file is read."""

import gzip
import os
from pathlib import Path

import pytest

from seg25d.core.errors import ImageError
from seg25d.data.image_io import read_image

VOXELS = bytes(range(64))
MHD = (
    "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
    "ElementDataFile = {}\n"
)
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nspace: left-posterior-superior\nencoding: {}\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n{}\n"
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside which no header lies."""
    path = tmp_path / "outside.raw"
    path.write_bytes(VOXELS)
    (tmp_path / "images").mkdir()
    return path


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image([path])
    return str(caught.value)


@pytest.mark.parametrize("ending", ["mhd", "nrrd"])
@pytest.mark.parametrize(
    "name", ["%n", "%s%s", "%d", "x%9999999999d.raw 1 4 1", "../outside.raw", "{outside}", "~a.raw", "LISTa", "-", ""]
)
def test_headers_name_nothing_but_files_beside_them(ending: str, name: str, outside: Path) -> None:
    path = outside.parent / "images" / f"a.{ending}"
    named = name.format(outside=outside)
    for beside in ("~a.raw", "LISTa", "-", "a.raw"):
        (path.parent / beside).write_bytes(VOXELS)
    header = MHD.format(named) if ending == "mhd" else NRRD.format("raw", f"data file: {named}")
    path.write_text(header + "\n" * (ending == "nrrd") + f"{outside}\n" * 4)
    assert "data file" in refused(path)


@pytest.mark.parametrize("ending", ["mhd", "nrrd"])
@pytest.mark.parametrize("kind", ["link", "linked folder", "device", "fifo", "folder", "loop"])
def test_data_files_are_files_beside_the_header(ending: str, kind: str, outside: Path) -> None:
    folder = outside.parent / "images"
    path, data = folder / f"a.{ending}", folder / "a.raw"
    named = "b/outside.raw" if kind == "linked folder" else "a.raw"
    make = {
        "link": lambda: data.symlink_to(outside),
        "linked folder": lambda: (folder / "b").symlink_to(outside.parent),
        "device": lambda: data.symlink_to("/dev/zero"),
        "fifo": lambda: os.mkfifo(data),
        "folder": data.mkdir,
        "loop": lambda: data.symlink_to(data),
    }
    make[kind]()
    path.write_text(MHD.format(named) if ending == "mhd" else NRRD.format("raw", f"data file: {named}"))
    assert "does not" in refused(path)


def test_a_list_in_the_header_names_nothing_elsewhere(outside: Path) -> None:
    path = outside.parent / "images" / "a.mhd"
    path.write_text(MHD.format("LIST") + f"{outside}\n" * 4)
    assert "expected is a file beside the header" in refused(path)


def test_other_letters_of_local_are_a_name(outside: Path) -> None:
    path = outside.parent / "images" / "a.mhd"
    path.write_bytes(MHD.format("LoCaL").encode() + VOXELS)
    assert "does not exist beside it" in refused(path)


def test_compressed_data_are_not_uncompressed_beyond_what_is_announced(outside: Path) -> None:
    path = outside.parent / "images" / "a.nrrd"
    path.write_bytes(NRRD.format("gzip", "").encode() + gzip.compress(bytes(1 << 24), 1))
    assert "more than the announced 64 bytes" in refused(path)


def test_names_that_are_no_text(outside: Path) -> None:
    path = outside.parent / "images" / os.fsdecode(b"\xff\xfe.nii.gz")
    path.write_bytes(gzip.compress(VOXELS))
    assert "is not UTF-8; rename it" in refused(path)
