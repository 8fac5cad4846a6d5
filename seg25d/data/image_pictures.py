"""Reading and writing PNG, BMP, JPEG and TIFF files with Pillow.

Images are read as they are shown, labels as they are stored: a palette gives images their colours, while the number of
a colour is the label.
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from seg25d.core.files import atomic_path
from seg25d.core.system_errors import check_room, refusal_to_read
from seg25d.core.types import Shape
from seg25d.data.cases import LOSSY, ONE_SLICE, STACKS, VOLUMES, split_ending
from seg25d.data.image_bytes import COPY_AGAIN
from seg25d.data.image_checks import check_file, check_memory
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_stacks import check_planes, check_stack, read_spacing, unknown_numbers, write_spacing
from seg25d.data.problems import FileError

MOST_PIXELS = 89_478_485
"""Pixels of a slice from which on Pillow warns of files that are made to fill the memory (Image.MAX_IMAGE_PIXELS)."""
_FORMATS: Mapping[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
}
"""The formats by the first bytes of a file. `Image.open` would do, but warns of large files and tries more formats."""
_DAMAGES = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    EOFError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for damaged files; a file whose header asks for more memory than there is, is damaged too."""
_CHANNELS = {"1": 1, "L": 1, "P": 3, "I;16": 1, "I;16B": 1, "I": 1, "F": 1, "RGB": 3, "RGBA": 4}
"""Channels by mode of Pillow."""
_SCALES = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies numbers of 2 and 4 bits by, so that they fill 8 bits."""
_FROM_WHITE = ("1;I", "L;2I", "L;4I", "L;I", "1;IR", "L;2IR", "L;4IR", "L;IR")
"""What Pillow reads so that black becomes 0, in TIFF files that count from white; with 16 and 32 bits it does not."""
_DIRECTION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_ORIENTATION, _PHOTOMETRIC, _SAMPLES, _PLANES, _SAMPLE_FORMAT = 274, 262, 277, 284, 339
"""Tags of TIFF 6.0; EXIF has the first one too."""
_UNSIGNED, _SIGNED = 1, 2
_NUMBER_BYTES = 4
"""Of a number at most, as Pillow has no others."""


def count_picture_channels(path: Path) -> int:
    """The channels of a picture, from its header: 1 for grey, 3 for colours, 4 for colours and alpha.

    Raises:
        ImageError: If it cannot be read or is of a kind that is not read.
    """
    with _opened(path) as picture:
        return _num_channels(picture)


def read_picture_geometry(path: Path) -> Geometry:
    """The grid of a picture, from its header.

    The spacing is that of the JSON file beside a TIFF file, else 1 mm along all axes. nnU-Net's 999 mm between slices
    would make volumes of structures a thousand times too large, and the rules here need no such mark: images of one
    slice are sliced along that axis whatever the spacing.

    Raises:
        ImageError: If it cannot be read or is of a kind that is not read.
    """
    with _opened(path) as picture:
        return _geometry(path, picture)


def read_picture(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a picture.

    Returns:
        The channels (C, z, y, x), and the grid.

    Raises:
        ImageError: If it cannot be read or is of a kind that is not read.
    """
    with _opened(path) as picture:
        geometry = _geometry(path, picture)
        check_memory(path, (*geometry.shape, _num_channels(picture)), _NUMBER_BYTES)
        if _would_change(picture):
            return _read_unchanged(path), geometry
        pages = _read_pages(path, picture, geometry.shape, _shown)
    return np.moveaxis(pages, -1, 0), geometry


def read_picture_labels(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a picture of labels.

    Returns:
        The values (z, y, x) as they are stored, in colours of a palette their numbers, and the grid.

    Raises:
        ImageError: If it cannot be read, has colours, is compressed with losses, or its values are ambiguous.
    """
    with _opened(path) as picture:
        geometry = _geometry(path, picture)
        check_memory(path, geometry.shape, _NUMBER_BYTES)
        _check_labels(path, picture)
        pages = _read_pages(path, picture, geometry.shape, _stored)
        if picture.mode == "P":
            _check_palette(path, picture, pages)
    return pages, geometry


def write_picture(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write one channel, or labels, as PNG, BMP or TIFF; a TIFF file gets its spacing in `CASE.json` beside it.

    Args:
        path: The file; its ending chooses the format.
        array: (z, y, x); whole numbers from 0 to 65535 for PNG, to 255 for BMP.
        geometry: Its grid.

    Raises:
        ImageError: If the format cannot hold the array, or the file cannot be written.
    """
    ending = split_ending(path)[1]
    array = _fitting(path, array, ending)
    pages = (Image.fromarray(page) for page in array)
    try:
        with atomic_path(path) as temporary:
            if ending in STACKS:
                write_spacing(path, geometry.spacing_mm)
                next(pages).save(
                    temporary, "TIFF", save_all=True, append_images=pages, compression="tiff_adobe_deflate"
                )
            else:
                next(pages).save(temporary)
            check_room(temporary)  # Pillow does not notice that only a part of a BMP file was written
    except OSError as error:
        problem = f"the file cannot be written ({error})"
        raise FileError(path, problem, "check free space and permissions of the folder") from None


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open a picture, with all checks that need only its header; errors of the reader become those of the file."""
    check_file(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # What cannot be read raises an error; the rest are remarks about texts and dates.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            start = file.read(8)
            plugin = next((each for mark, each in _FORMATS.items() if start.startswith(mark)), None)
            if plugin is None:
                raise FileError(path, "the file is no PNG, BMP, JPEG or TIFF file, or damaged", COPY_AGAIN)
            file.seek(0)
            with plugin(file, str(path)) as picture:
                _check(path, picture)
                yield picture
    except FileError:
        raise
    except _DAMAGES as error:
        if "unknown pixel mode" in str(error):
            raise unknown_numbers(path) from None
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        problem = f"the file cannot be read, it is truncated or damaged ({detail})"
        raise refusal_to_read(error, path) or FileError(path, problem, COPY_AGAIN) from None


def _check(path: Path, picture: ImageFile.ImageFile) -> None:
    """Check the kind of a picture, from its header."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        problem = f"the file has {width} x {height} pixels, expected are at most {MOST_PIXELS}"
        raise FileError(path, problem, "cut it into tiles, or copy it again if it should be smaller")
    # Without this test, a PNG file would be decoded to look for what may come behind its pixels.
    exif = picture.getexif() if "exif" in picture.info else {}
    orientation = exif.get(_ORIENTATION, 1) if picture.format != "TIFF" else _tag(picture, _ORIENTATION, 1)
    if orientation not in (0, 1):
        problem = f"the file is to be turned when it is shown (orientation {orientation})"
        raise FileError(path, problem, "save it turned, or remove this mark if it is wrong")
    num_bands = len(picture.getbands())
    num_samples = _tag(picture, _SAMPLES, num_bands) if picture.format == "TIFF" else num_bands
    see_through = "transparency" in picture.info and picture.mode != "P"
    if picture.mode not in _CHANNELS or num_samples != num_bands or see_through:
        kind = f"{num_samples} numbers per pixel" if num_samples != num_bands else f"the kind {picture.mode}"
        problem = f"the file has {kind}{', with transparency' * see_through}, expected is grey, RGB, RGBA or a palette"
        raise FileError(path, problem, "save it as grey or RGB, or each channel by itself: CASE_0000, CASE_0001 ...")
    num_pages = getattr(picture, "n_frames", 1)
    if picture.format == "TIFF":
        check_planes(path, _tag(picture, _PLANES, 1), num_samples, str(_tag(picture, 270, "")))
        check_stack(path, str(_tag(picture, 270, "")), (num_pages, height, width))
    elif num_pages > 1:
        raise FileError(path, f"the file has {num_pages} pictures, expected is one", "save each as a file of its own")
    if num_pages > 1 and _CHANNELS[picture.mode] > 1:
        problem = f"the file is a stack of {num_pages} slices with colours, expected are grey ones"
        raise FileError(path, problem, "save each channel as a stack of its own: CASE_0000, CASE_0001 ...")


def _tag(picture: ImageFile.ImageFile, number: int, default: Any) -> Any:
    value = getattr(picture, "tag_v2", {}).get(number, default)
    return value[0] if isinstance(value, tuple) else value


def _geometry(path: Path, picture: ImageFile.ImageFile) -> Geometry:
    return Geometry(
        shape=(getattr(picture, "n_frames", 1), picture.height, picture.width),
        spacing_mm=read_spacing(path) if split_ending(path)[1] in STACKS else (1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=_DIRECTION,
    )


def _num_channels(picture: ImageFile.ImageFile) -> int:
    return len(_shown_mode(picture)) if picture.mode in ("1", "P") else _CHANNELS[picture.mode]


def _shown_mode(picture: ImageFile.ImageFile) -> str:
    """The mode that shows the values of a picture: palettes and two values become grey or colours."""
    if picture.mode != "P":
        return "L" if picture.mode == "1" else picture.mode
    return "RGBA" if "transparency" in picture.info else "L" if _has_grey_palette(picture) else "RGB"


def _has_grey_palette(picture: ImageFile.ImageFile) -> bool:
    colours = _palette(picture)
    return bool((colours == colours[:, :1]).all())


def _palette(picture: ImageFile.ImageFile) -> NDArray[np.int64]:
    """The colours of a palette (colours, 3)."""
    return np.reshape(np.array(picture.getpalette() or [], np.int64), (-1, 3))


def _would_change(picture: ImageFile.ImageFile) -> bool:
    """Whether Pillow would cut colours of 16 bits to 8, or divide them by their alpha."""
    raw_mode = _raw_mode(picture)
    return picture.mode in ("RGB", "RGBA") and (";16" in raw_mode or raw_mode.startswith("RGBa"))


def _raw_mode(picture: ImageFile.ImageFile) -> str:
    arguments = picture.tile[0][3] if picture.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _read_unchanged(path: Path) -> NDArray[Any]:
    """The channels of a slice (C, 1, y, x) by SimpleITK."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("TIFFImageIO" if split_ending(path)[1] in STACKS else "PNGImageIO")
    reader.SetFileName(str(path))
    return np.moveaxis(sitk.GetArrayFromImage(reader.Execute()), -1, 0)[:, np.newaxis]


def _read_pages(
    path: Path, picture: ImageFile.ImageFile, shape: Shape, read: Callable[[ImageFile.ImageFile], NDArray[Any]]
) -> NDArray[Any]:
    """The pages of a picture as `read` gives each: (z, y, x, ...)."""
    first = _typed(picture, read(picture))
    pages = np.empty((shape[0], *first.shape), first.dtype)
    pages[0] = first
    kind = (picture.size, picture.mode)
    for page in range(1, shape[0]):
        picture.seek(page)
        if (picture.size, picture.mode) != kind:
            problem = f"slice {page} is {picture.size} of {picture.mode}, the first is {kind[0]} of {kind[1]}"
            raise FileError(path, problem, "save slices of one size and kind, without previews")
        pages[page] = _typed(picture, read(picture))
    return pages


def _shown(picture: ImageFile.ImageFile) -> NDArray[Any]:
    """The values that are shown (y, x, C), but those that are stored where they count from white."""
    mode, from_white = _shown_mode(picture), _raw_mode(picture) in _FROM_WHITE
    array = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    array = 255 - array if from_white else array
    return array.reshape(*array.shape[:2], -1)


def _stored(picture: ImageFile.ImageFile) -> NDArray[Any]:
    """The values that are stored (y, x)."""
    scale = _SCALES.get(_raw_mode(picture), 1)  # before the file is decoded
    array = np.asarray(picture)
    return array.astype(np.uint8) if array.dtype == np.bool_ else array // scale if scale > 1 else array


def _typed(picture: ImageFile.ImageFile, array: NDArray[Any]) -> NDArray[Any]:
    """The numbers of a TIFF file with their sign, which Pillow does not tell for 8 and 32 bits."""
    sample_format = _tag(picture, _SAMPLE_FORMAT, _UNSIGNED) if picture.format == "TIFF" else None
    if sample_format == _SIGNED and array.dtype == np.uint8:
        return array.view(np.int8)
    return array.view(np.uint32) if sample_format == _UNSIGNED and array.dtype == np.int32 else array


def _check_labels(path: Path, picture: ImageFile.ImageFile) -> None:
    if picture.format == "JPEG" or "jpeg" in str(picture.info.get("compression", "")):
        problem = "the file is compressed as JPEG, which changes the values of labels"
        raise FileError(path, problem, f"export the labels again as {_lossless(path)}; converting this file is no cure")
    if picture.mode in ("RGB", "RGBA"):
        problem = f"the file has colours ({picture.mode}), expected is one number per pixel: that of its label"
        raise FileError(path, problem, "save it as grey, with the values that dataset.json declares under labels")
    if picture.format == "TIFF" and _tag(picture, _PHOTOMETRIC, 1) == 0:
        problem = "the file counts from white (photometric interpretation 0), so that its labels are ambiguous"
        raise FileError(path, problem, "save it with black as 0")


def _lossless(path: Path) -> str:
    return "TIFF without JPEG" if split_ending(path)[1] in STACKS else "PNG"


def _check_palette(path: Path, picture: ImageFile.ImageFile, values: NDArray[Any]) -> None:
    """Check that the numbers of a palette are no other grey values than those that are shown."""
    used = np.unique(values)
    colours = _palette(picture)
    if not _has_grey_palette(picture) or ((used < len(colours)).all() and (colours[used, 0] == used).all()):
        return
    problem = "the file has a palette of grey values, whose numbers are others, so that its labels are ambiguous"
    raise FileError(path, problem, "save it as grey without a palette")


def _fitting(path: Path, array: NDArray[Any], ending: str) -> NDArray[Any]:
    """The array in the smallest type that the format has for its values."""
    if ending in ONE_SLICE and len(array) != 1:
        problem = f"{ending} has one slice, not {len(array)}"
        raise FileError(path, problem, f"choose one of {', '.join((*VOLUMES, *STACKS))}")
    if ending in LOSSY:
        raise FileError(path, "JPEG changes the values", "choose .png")
    if array.dtype.kind == "f" and ending in STACKS:
        return array.astype(np.float32)
    lowest, highest = array.min(), array.max()
    types = {".png": (np.uint8, np.uint16), ".bmp": (np.uint8,)}.get(ending, (np.uint8, np.uint16, np.int32))
    fitting = [each for each in types if np.iinfo(each).min <= lowest and highest <= np.iinfo(each).max]
    if array.dtype.kind == "f" or not fitting:
        problem = f"{ending} holds whole numbers up to {np.iinfo(types[-1]).max}, not {lowest:g} to {highest:g}"
        raise FileError(path, problem, f"choose one of {', '.join(VOLUMES)}")
    return array.astype(fitting[0])
