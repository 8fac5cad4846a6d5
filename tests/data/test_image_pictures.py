"""Pictures: images as they are shown, labels as they are stored; all else is refused with the cure."""

import json
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from seg25d.core.errors import ImageError
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import count_channels, read_geometry, read_image, read_labels, write_channel, write_labels
from seg25d.data.image_pictures import MOST_PIXELS

VALUES = np.arange(20, dtype=np.uint8).reshape(4, 5) % 4
COLOURS = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
RAINBOW = [0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200]


def geometry_of(*shape: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    depth, height, width = shape
    return Geometry(
        shape=(depth, height, width),
        spacing_mm=spacing,
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


def with_palette(palette: list[int]) -> Image.Image:
    picture = Image.fromarray(VALUES)
    picture.putpalette(palette)
    return picture


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff"])
def test_grey_and_colours_are_channels_of_one_slice(ending: str, tmp_path: Path) -> None:
    grey, colours = tmp_path / f"grey{ending}", tmp_path / f"colours{ending}"
    Image.fromarray(VALUES).save(grey)
    Image.fromarray(COLOURS).save(colours)
    image, geometry = read_image([grey, colours])
    assert image.shape == (4, 1, 4, 5)
    np.testing.assert_array_equal(image[0, 0], VALUES)
    np.testing.assert_array_equal(image[1:, 0], np.moveaxis(COLOURS, -1, 0))
    assert (geometry.spacing_mm, geometry.orientation) == ((1.0, 1.0, 1.0), "LPS")
    assert read_geometry(colours) == geometry
    assert [count_channels([path]) for path in (grey, colours)] == [1, 3]
    np.testing.assert_array_equal(read_labels(grey)[0], VALUES[np.newaxis])
    with pytest.raises(ImageError, match=r"has colours.*save it as grey"):
        read_labels(colours)


def test_transparency_is_a_fourth_channel(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOURS, VALUES])).save(tmp_path / "a.png")
    image, _ = read_image([tmp_path / "a.png"])
    assert count_channels([tmp_path / "a.png"]) == len(image) == 4
    np.testing.assert_array_equal(image[3, 0], VALUES)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_kept(ending: str, tmp_path: Path) -> None:
    grey, colours = tmp_path / f"grey{ending}", tmp_path / f"colours{ending}"
    Image.fromarray(VALUES.astype(np.uint16) * 9001).save(grey)
    wide = COLOURS.astype(np.uint16) * 1001
    sitk.WriteImage(sitk.GetImageFromArray(wide, isVector=True), str(colours))
    np.testing.assert_array_equal(read_image([colours])[0][:, 0], np.moveaxis(wide, -1, 0))
    np.testing.assert_array_equal(read_image([grey])[0][0, 0], VALUES * 9001.0)
    np.testing.assert_array_equal(read_labels(grey)[0][0], VALUES.astype(np.uint16) * 9001)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_palettes_give_images_colours_and_labels_numbers(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    with_palette(RAINBOW).save(path)
    image, _ = read_image([path])
    np.testing.assert_array_equal(image[:, 0], np.moveaxis(np.reshape(RAINBOW, (4, 3))[VALUES], -1, 0))
    np.testing.assert_array_equal(read_labels(path)[0][0], VALUES)


def test_palettes_of_grey_values(tmp_path: Path) -> None:
    same, other = tmp_path / "same.png", tmp_path / "other.png"
    with_palette(np.repeat(range(4), 3).tolist()).save(same)
    with_palette(np.repeat([0, 85, 170, 255], 3).tolist()).save(other)
    np.testing.assert_array_equal(read_labels(same)[0][0], VALUES)
    np.testing.assert_array_equal(read_image([other])[0][0, 0], VALUES * 85.0)
    with pytest.raises(ImageError, match="ambiguous; save it as grey without a palette"):
        read_labels(other)


def test_one_two_and_four_bits(tmp_path: Path) -> None:
    Image.fromarray(VALUES > 1).save(tmp_path / "one.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "one.png")[0][0], VALUES > 1)
    np.testing.assert_array_equal(read_image([tmp_path / "one.png"])[0][0, 0], 255.0 * (VALUES > 1))
    for depth, scale in ((2, 85), (4, 17)):
        path = tmp_path / f"{depth}.png"
        path.write_bytes(png(2, 1, depth, 0, bytes([0, (3 << (8 - depth)) | (1 << (8 - 2 * depth))])))
        assert read_labels(path)[0].tolist() == [[[3, 1]]]
        assert read_image([path])[0].tolist() == [[[[3 * scale, scale]]]]


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (Image.fromarray(np.dstack([VALUES, VALUES])), {}, "the kind LA.*save it as grey or RGB"),
        (Image.fromarray(COLOURS), {"transparency": (0, 1, 2)}, "with transparency.*save it as grey or RGB"),
        (Image.fromarray(COLOURS), {"save_all": True, "append_images": [Image.fromarray(COLOURS + 9)]}, "2 pictures"),
    ],
)
def test_kinds_that_are_not_read(picture: Image.Image, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png", **options)
    for read in (read_geometry, lambda path: read_image([path])):
        with pytest.raises(ImageError, match=message):
            read(tmp_path / "a.png")


@pytest.mark.parametrize(("ending", "exif"), [(".jpg", True), (".png", True), (".tif", False)])
def test_pictures_to_be_turned_are_refused(ending: str, exif: bool, tmp_path: Path) -> None:
    marks: Any = Image.Exif() if exif else TiffImagePlugin.ImageFileDirectory_v2()
    marks[274] = 6
    path = tmp_path / f"a{ending}"
    Image.fromarray(COLOURS).save(path, **({"exif": marks} if exif else {"tiffinfo": marks}))
    with pytest.raises(ImageError, match=r"turned when it is shown \(orientation 6\); save it turned"):
        read_image([path])


def test_jpeg_is_for_images_only(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.jpg").read_bytes())
    Image.fromarray(VALUES).save(tmp_path / "c.tif", compression="jpeg")
    for name in ("a.jpg", "b.png", "c.tif"):
        assert read_image([tmp_path / name])[0].shape == (1, 1, 4, 5)
        with pytest.raises(ImageError, match="JPEG, which changes the values of labels; export"):
            read_labels(tmp_path / name)
    with pytest.raises(ImageError, match=r"choose \.png"):
        write_labels(tmp_path / "d.jpg", VALUES[np.newaxis], geometry_of(1, 4, 5))
    Image.fromarray(np.dstack([COLOURS, VALUES]), "CMYK").save(tmp_path / "e.jpg")
    with pytest.raises(ImageError, match="the kind CMYK"):
        read_geometry(tmp_path / "e.jpg")


def test_the_header_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000, 8, 2, b""))
    for read in (read_geometry, read_labels, lambda path: read_image([path])):
        with pytest.raises(ImageError, match=f"100000 x 100000 pixels, expected are at most {MOST_PIXELS}; cut it"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.tif", "stack.tif"])
def test_damaged_files_are_one_error(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype(np.uint8)
    path = tmp_path / name
    further = [Image.fromarray(page) for page in noise[1:]]
    more = {"save_all": True, "append_images": further} if name == "stack.tif" else {}
    Image.fromarray(noise[0]).save(path, **more)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 12, max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match="copy or export it again"):
            read_image([path])
    random = np.random.default_rng(1)
    for _ in range(100):
        changed = bytearray(whole)
        for place in random.integers(0, min(len(whole), 400), 4):
            changed[place] = random.integers(0, 256)
        path.write_bytes(changed)
        for read in (read_geometry, read_labels, lambda each: read_image([each])):
            with suppress(ImageError):  # and nothing else
                read(path)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read_geometry(path)


@pytest.mark.parametrize(
    ("ending", "values"),
    [
        (".png", [0, 1, 255]),
        (".png", [0, 1, 65535]),
        (".bmp", [0, 1, 255]),
        (".tif", [0, 1, 70_000]),
        (".tif", [-2, 0, 3]),
        (".tif", [0.25, 0.5, 1e6]),
    ],
)
def test_what_is_written_is_read(ending: str, values: list[float], tmp_path: Path) -> None:
    array: NDArray[Any] = np.array(values)[[0, 1, 2, 2, 1, 0]].reshape(1, 2, 3)
    path = tmp_path / "new" / f"a{ending}"
    write_channel(path, array, geometry_of(1, 2, 3))
    np.testing.assert_array_equal(read_labels(path)[0], array)
    left = {path.name for path in path.parent.iterdir()}
    assert left == {f"a{ending}", *(["a.json"] if ending == ".tif" else [])}
    write_labels(path, array > 0, geometry_of(1, 2, 3))
    np.testing.assert_array_equal(read_labels(path)[0], array > 0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.png", np.zeros((2, 3, 4), int), r"one slice, not 2; choose one of \.nii\.gz.*\.tif"),
        ("a.png", np.full((1, 3, 4), 65536), "up to 65535, not 65536 to 65536"),
        ("a.png", np.full((1, 3, 4), -1), "not -1 to -1"),
        ("a.png", np.full((1, 3, 4), 0.5), "whole numbers"),
        ("a.bmp", np.full((1, 3, 4), 256), "up to 255"),
        ("a.tif", np.full((1, 3, 4), 1 << 40), "choose one of .nii.gz"),
    ],
)
def test_what_a_format_cannot_hold(name: str, values: NDArray[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        write_channel(tmp_path / name, values, geometry_of(*values.shape))
    assert list(tmp_path.iterdir()) == []


def tiff(photometric: int, extra: int | None, pixels: NDArray[np.uint8]) -> bytes:
    """A TIFF file of pixels (y, x, samples) of 8 bits."""
    height, width, samples = pixels.shape
    tags = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: photometric,
        273: 0,
        277: samples,
        278: height,
        279: pixels.size,
    }
    tags |= {} if extra is None else {338: extra}
    after = 8 + 2 + 12 * len(tags) + 4
    bits = struct.pack(f"<{samples}H", *[8] * samples)
    entries = b""
    for tag, value in sorted(tags.items()):
        if tag == 258 and samples > 2:
            entries += struct.pack("<HHII", tag, 3, samples, after)
        else:
            entries += struct.pack("<HHIHH", tag, 3, 1, after + len(bits) if tag == 273 else value, 0)
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return start + bits + pixels.tobytes()


def test_further_numbers_per_pixel_are_neither_dropped_nor_divided(tmp_path: Path) -> None:
    wide = np.dstack([COLOURS, VALUES])
    path = tmp_path / "a.tif"
    for extra in (1, 2):
        path.write_bytes(tiff(2, extra, wide))
        np.testing.assert_array_equal(read_image([path])[0][:, 0], np.moveaxis(wide, -1, 0))
    path.write_bytes(tiff(2, 0, wide))
    with pytest.raises(ImageError, match=r"4 numbers per pixel.*or each channel by itself"):
        count_channels([path])


def test_labels_that_count_from_white_are_ambiguous(tmp_path: Path) -> None:
    for photometric in (0, 1):
        (tmp_path / f"{photometric}.tif").write_bytes(tiff(photometric, None, VALUES[..., np.newaxis]))
    np.testing.assert_array_equal(read_labels(tmp_path / "1.tif")[0][0], VALUES)
    with pytest.raises(ImageError, match="counts from white"):
        read_labels(tmp_path / "0.tif")


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
def test_images_that_count_from_white_have_their_stored_values(mode: str, compression: str, tmp_path: Path) -> None:
    """As for SimpleITK and tifffile, whatever the number of bits."""
    values = VALUES.astype(np.uint16) * 7 if mode == "I;16" else VALUES > 99 if mode == "1" else VALUES
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path, compression=compression)
    content = path.read_bytes()
    from_black = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert from_black in content
    path.write_bytes(content.replace(from_black, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    expected = values * np.uint8(255) if mode == "1" else values
    np.testing.assert_array_equal(read_image([path])[0][0, 0], expected)
    if mode != "1":
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), values)


def test_a_json_file_without_spacing_is_told(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.tif")
    (tmp_path / "a.json").write_text(json.dumps({"pixel": 3}))
    with pytest.raises(ImageError, match=r"a\.json says"):
        read_geometry(tmp_path / "a.tif")
