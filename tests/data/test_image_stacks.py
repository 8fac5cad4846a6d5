"""TIFF stacks: pages are slices, the spacing is in a JSON file beside them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from seg25d.core.errors import ImageError
from seg25d.data.cases import Case, source_stamp
from seg25d.data.image_io import read_geometry, read_image, read_labels, write_labels
from seg25d.data.image_spacing import spacing_note
from seg25d.data.image_stacks import check_stack
from tests.data.test_image_pictures import geometry_of

STACK = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
SPACING = (3.0, 0.5, 0.25)


def save(path: Path, array: Any = STACK, description: str | None = None) -> Path:
    marks = TiffImagePlugin.ImageFileDirectory_v2()
    if description is not None:
        marks[270] = description
    first, *others = [Image.fromarray(page) for page in array]
    first.save(path, save_all=True, append_images=others, tiffinfo=marks)
    return path


def test_images_and_labels_have_the_spacing_of_the_json_file_of_their_case(tmp_path: Path) -> None:
    image, label = save(tmp_path / "case_0001.tif"), save(tmp_path / "case.tif")
    assert read_geometry(image).spacing_mm == (1.0, 1.0, 1.0)
    assert spacing_note(image, 3) == "1 mm is taken along all axes, as there is no case.json beside it"
    assert spacing_note(image, 1) is None
    (tmp_path / "case.json").write_text(json.dumps({"spacing": SPACING}))
    assert spacing_note(image, 3) is None
    array, geometry = read_image([image])
    np.testing.assert_array_equal(array[0], STACK)
    assert geometry.spacing_mm == geometry.canonical_spacing_mm == SPACING
    assert read_labels(label)[1] == geometry
    (tmp_path / "case_0001.json").write_text(json.dumps({"spacing": [1, 2, 3]}))
    assert read_geometry(image).spacing_mm == (1, 2, 3), "the name without the ending comes first"


def test_a_changed_spacing_is_another_source(tmp_path: Path) -> None:
    case = Case(name="a", images=(save(tmp_path / "a_0000.tif"),))
    before = source_stamp(case)
    (tmp_path / "a.json").write_text("{}")
    assert source_stamp(case) != before


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.float32])
def test_types_keep_their_values(kind: type, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    limits = np.iinfo(kind) if np.dtype(kind).kind != "f" else np.finfo(kind)
    array = np.array([limits.min, 0, limits.max], kind).reshape(3, 1, 1).repeat(4, 1).repeat(5, 2)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.tif"))
    found, _ = read_labels(tmp_path / "a.tif")
    assert found.dtype == kind
    np.testing.assert_array_equal(found, array)


def test_predictions_are_stacks_with_their_json_file(tmp_path: Path) -> None:
    geometry = geometry_of(3, 4, 5, spacing=SPACING)
    write_labels(tmp_path / "a.tiff", STACK, geometry)
    assert json.loads((tmp_path / "a.json").read_text()) == {"spacing": list(SPACING)}
    found, other = read_labels(tmp_path / "a.tiff")
    np.testing.assert_array_equal(found, STACK)
    assert other == geometry


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 1, 1]",
        '{"spacing": [1, 1]}',
        '{"spacing": [1, 1, 0]}',
        '{"spacing": [1, 1, NaN]}',
        '{"spacing": [1, 1, 1e99]}',
        '{"spacing": [1, 1, true]}',
        '{"spacing": "1 1 1"}',
        '{"pixel": 1}',
    ],
)
def test_a_useless_json_file_is_named(content: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a_0000.tif")
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageError, match=r"a\.json.*; correct a\.json or remove it$"):
        read_geometry(path)


@pytest.mark.parametrize(
    ("description", "shape"),
    [
        ("", (3, 4, 5)),
        ("ImageJ=1.53\nimages=3\nslices=3\n", (3, 4, 5)),
        ("ImageJ=1.53\nimages=3\nframes=3\n", (3, 4, 5)),
        ("ImageJ=1.53\nimages=3\n", (3, 4, 5)),
        ('{"shape": [3, 4, 5]}', (3, 4, 5)),
        ('{"shape": [1, 3, 4, 5]}', (3, 4, 5)),
        ('{"shape": [4, 5, 3]}', (1, 4, 5)),
        ('<OME><Pixels SizeC="1" SizeT="1" SizeZ="3"/></OME>', (3, 4, 5)),
        ('<OME><Pixels SizeC="3" SizeT="1" SizeZ="1"><Channel SamplesPerPixel="3"/></OME>', (1, 4, 5)),
    ],
)
def test_one_volume(description: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    check_stack(save(tmp_path / "a.tif"), description, shape)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("ImageJ=1.53\nimages=6\nchannels=2\nslices=3\n", "2 channels, 1 times and 3 slices"),
        ("ImageJ=1.53\nimages=6\nframes=2\nslices=3\n", "1 channels, 2 times and 3 slices"),
        ('{"shape": [2, 3, 4, 5]}', "2 channels, 1 times and 3 slices"),
        ('<OME><Pixels SizeC="2" SizeT="1" SizeZ="3"/></OME>', "2 channels, 1 times and 3 slices"),
        ("ImageJ=1.53\nimages=9\nslices=9\n", "says that it has 9 slices, but only 6 are listed"),
        ('{"shape": [9, 4, 5], "truncated": true}', "says that it has 9 slices, but only 6 are listed"),
    ],
)
def test_several_volumes_or_fewer_slices(description: str, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.concatenate([STACK, STACK]), description)
    with pytest.raises(ImageError, match=message):
        read_geometry(path)


def test_colours_previews_and_announced_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.zeros((2, 4, 5, 3), np.uint8))
    with pytest.raises(ImageError, match=r"2 slices with colours.*each channel as a stack"):
        read_geometry(path)
    path = save(tmp_path / "b.tif", [STACK[0], STACK[1, :2]])
    with pytest.raises(ImageError, match=r"slice 1 is .*without previews"):
        read_image([path])
    with pytest.raises(ImageError, match=r"announces 9 x 90000 x 90000 voxels in \d+ bytes"):
        check_stack(path, "", (9, 90_000, 90_000))


def test_numbers_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", STACK.astype(np.float32))
    content = path.read_bytes()
    bits = struct.pack("<HHIHH", 258, 3, 1, 32, 0)
    assert bits in content
    path.write_bytes(content.replace(bits, struct.pack("<HHIHH", 258, 3, 1, 64, 0)))
    message = "the file has real numbers of 64 bits, expected are whole numbers of 8, 16 or 32 bits or real ones"
    with pytest.raises(ImageError, match=message):
        read_geometry(path)


@pytest.mark.parametrize("signed", [False, True])
def test_three_slices_as_planes_of_a_picture(signed: bool, tmp_path: Path) -> None:
    """tifffile.imwrite saves three slices so, unless it is told `photometric='minisblack'`."""
    path = tmp_path / "a.tif"
    marks = TiffImagePlugin.ImageFileDirectory_v2()
    marks[270] = '{"shape": [3, 4, 5]}'
    marks[339] = (2, 2, 2) if signed else (1, 1, 1)
    marks.tagtype[339] = 3
    Image.fromarray(np.moveaxis(STACK, 0, -1)).save(path, tiffinfo=marks)
    content = path.read_bytes()
    beside = struct.pack("<HHIHH", 284, 3, 1, 1, 0)
    assert beside in content
    path.write_bytes(content.replace(beside, struct.pack("<HHIHH", 284, 3, 1, 2, 0)))
    with pytest.raises(ImageError, match=r"the file holds 3 planes of .*save the slices as pages of"):
        read_geometry(path)
