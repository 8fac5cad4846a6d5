"""TIFF stacks: their spacing, in a JSON file beside them, and checks that their pages are the slices of one volume."""

import math
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import TiffImagePlugin

from seg25d.core.errors import RecordError
from seg25d.core.files import read_json, write_json
from seg25d.core.types import Shape, Spacing
from seg25d.data.cases import spacing_files, split_ending
from seg25d.data.image_bytes import COPY_AGAIN
from seg25d.data.image_geometry import LARGEST_MM, SMALLEST_MM
from seg25d.data.problems import FileError

_MOST_COMPRESSED = 2000
"""Deflate stores at most 1032 bytes in one (zlib, technical details), LZW somewhat more."""
_KINDS = {1: "whole numbers", 2: "signed numbers", 3: "real numbers", 5: "complex numbers", 6: "complex numbers"}
"""By the tag SampleFormat (TIFF 6.0, section 19, and its supplement)."""
_MINISBLACK = (
    "save the slices as pages of their own (tifffile does with photometric='minisblack'), or the picture with its "
    "colours side by side (planarconfig='contig')"
)
_COUNTS = re.compile(r"^(images|channels|frames|slices)=(\d+)\s*$", re.MULTILINE)
"""Lines of the description that ImageJ writes."""
_SIZES = re.compile(r"\b(Size[CTZ]|SamplesPerPixel)=\"([1-9]\d*)\"")
"""Attributes of the description of OME-TIFF."""
_TIFFFILE = re.compile(r'\{"shape": \[((?:\d+, )+\d+)\].*\}')
"""The description that tifffile writes."""


def read_spacing(path: Path) -> Spacing:
    """The spacing (z, y, x) of a TIFF file in mm, 1 mm along all axes if there is no JSON file beside it.

    The file is that of nnU-Net's `Tiff3DIO`: `{"spacing": [z, y, x]}` in `CASE.json`, for image and label.

    Raises:
        ImageError: If the JSON file does not say three numbers that can be sizes of voxels.
    """
    beside = spacing_file(path)
    if beside is None:
        return (1.0, 1.0, 1.0)
    try:
        value = read_json(beside)
    except (RecordError, OSError) as error:
        raise FileError(path, f"its spacing cannot be read ({error})", f"correct {beside.name} or remove it") from None
    spacing = value.get("spacing") if isinstance(value, dict) else None
    if isinstance(spacing, list) and len(spacing) == 3 and all(map(_is_size, spacing)):
        depth, height, width = map(float, spacing)
        return depth, height, width
    problem = f'{beside.name} says {_show(value)}, expected is {{"spacing": [z, y, x]}} in mm, each above 0'
    raise FileError(path, problem, f"correct {beside.name} or remove it")


def spacing_file(path: Path) -> Path | None:
    """The JSON file beside a TIFF file that has its spacing; None if there is none."""
    return next((beside for beside in spacing_files(path) if beside.is_file()), None)


def write_spacing(path: Path, spacing_mm: Spacing) -> None:
    """Write the spacing of a TIFF file as `CASE.json` beside it."""
    write_json(path.with_name(f"{split_ending(path)[0]}.json"), {"spacing": list(spacing_mm)})


def check_planes(path: Path, planes: int, num_samples: int, description: str) -> None:
    """Check that slices were not saved as the planes of one picture in colours, as tifffile does with 3 or 4 slices.

    Args:
        path: The file.
        planes: Its tag PlanarConfiguration; 2: the samples of all pixels one after the other.
        num_samples: Numbers per pixel.
        description: Its tag ImageDescription.

    Raises:
        ImageError: If it may be both.
    """
    if planes == 2 and num_samples > 1 and _TIFFFILE.match(description):
        problem = f"the file holds {num_samples} planes of one picture in colours, as tifffile saves so few slices"
        raise FileError(path, problem, _MINISBLACK)


def unknown_numbers(path: Path) -> FileError:
    """The error for a TIFF file whose pixels are of a kind that Pillow does not know."""
    kind, planes, bits, samples = "", 1, (1,), 1
    with suppress(OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error), path.open("rb") as file:
        start = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(start + (file.read(8) if start[2:4] in (b"+\0", b"\0+") else b""))
        file.seek(tags.next)
        tags.load(file)
        bits, samples, planes = tags.get(258, (1,)), tags.get(277, 1), tags.get(284, 1)
        kind = f" {_KINDS.get(tags.get(339, (1,))[0], 'numbers of an unknown kind')} of {bits[0]} bits"
    if planes == 2 and samples > 1:
        problem = f"the file holds {samples} planes of{kind}, expected are slices in pages of their own"
        return FileError(path, problem, _MINISBLACK)
    if not kind:
        return FileError(path, "the file cannot be read, it is truncated or damaged (unknown pixel mode)", COPY_AGAIN)
    many = f", {samples} per pixel" if samples > 1 else ""
    problem = f"the file has{kind}{many}, expected are whole numbers of 8, 16 or 32 bits"
    cure = "save it with one of these types, for instance as float32 or int16"
    return FileError(path, f"{problem} or real ones of 32", cure)


def check_stack(path: Path, description: str, shape: Shape) -> None:
    """Check that the pages of a TIFF file are the slices of one volume, and no more than the file can hold.

    Args:
        path: The file.
        description: Its tag ImageDescription, in which ImageJ, tifffile and OME-TIFF say what the pages are.
        shape: Pages and their size (z, y, x).

    Raises:
        ImageError: If there are several volumes in it, pages are missing, or it is damaged.
    """
    num_pages = shape[0]
    if num_pages > 1 and math.prod(shape) > 8 * _MOST_COMPRESSED * path.stat().st_size:
        problem = (
            f"the file announces {' x '.join(map(str, shape))} voxels in {path.stat().st_size} bytes: it is damaged"
        )
        raise FileError(path, problem, f"{COPY_AGAIN}, with deflate or LZW if it was compressed otherwise")
    channels, frames, slices = _said_counts(description, shape[1:])
    if channels > 1 or min(frames, slices) > 1:
        problem = f"the file holds {channels} channels, {frames} times and {slices} slices, expected is one volume"
        raise FileError(path, problem, "save each volume as a file of its own: CASE_0000, CASE_0001 ...")
    if frames * slices > num_pages:
        problem = f"the file says that it has {frames * slices} slices, but only {num_pages} are listed in it"
        raise FileError(path, problem, "save it again as a TIFF file that lists each slice (a directory per page)")


def _said_counts(description: str, size: tuple[int, int]) -> tuple[int, int, int]:
    """Channels, times and slices as far as ImageJ, OME-TIFF or tifffile tell; 1 where they do not."""
    if description.startswith("ImageJ="):
        found = {name: int(count) for name, count in _COUNTS.findall(description)}
        slices = found.get("slices", 1 if {"channels", "frames"} & set(found) else found.get("images", 1))
        return found.get("channels", 1), found.get("frames", 1), slices
    if "<OME" in description:
        sizes = {name: int(count) for name, count in _SIZES.findall(description)}
        channels = sizes.get("SizeC", 1) // sizes.get("SamplesPerPixel", 1)
        return channels, sizes.get("SizeT", 1), sizes.get("SizeZ", 1)
    if shape := _TIFFFILE.fullmatch(description):
        *before, height, width = map(int, shape[1].split(","))
        many = [count for count in before if count > 1]
        if (height, width) == size and len(many) > 1:
            return math.prod(many[:-1]), 1, many[-1]
        return 1, 1, many[0] if (height, width) == size and many else 1
    return 1, 1, 1


def _is_size(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and SMALLEST_MM <= value <= LARGEST_MM


def _show(value: Any) -> str:
    return repr(value)[:80]
