"""The number of bytes of an image file, to be compared with the number that its header announces.

SimpleITK allocates the memory that a header announces before it reads the data, reads damaged compressed MetaImage data
without an error, and opens any path that a header names. Therefore all of this is checked before it gets a file.
"""

import gzip
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from seg25d.data.problems import FileError

CHUNK = 1 << 20
_MAX_NAME = 255
"""Longest name of a file that systems allow."""
_DEFLATE_RATIO = 1032
"""Most bytes that a byte of DEFLATE data can become (zlib, "Technical Details": 1032 to 1)."""
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
COPY_AGAIN = "copy or export it again"
_FOREIGN = (
    (0, b"\x1f\x8b", "of a gzip archive, as .nii.gz files are"),
    (0, b"NRRD00", "of an NRRD file"),
    (0, b"ObjectType", "of a MetaImage file"),
    (0, b"NDims", "of a MetaImage file"),
    (128, b"DICM", "of a DICOM file"),
    (344, b"n+1\0", "of a NIfTI file"),
    (0, b"\x89PNG", "of a PNG picture"),
    (0, b"PK\x03\x04", "of a ZIP archive"),
    (0, b"version https://git-lfs", "of a pointer of Git LFS (`git lfs pull` fetches the file)"),
    (0, b"<", "of a web page"),
)
"""Place and first bytes of content that is found under the wrong name."""


NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?"
"""A number in the text of a header."""


def whole_numbers(path: Path, fields: Mapping[str, str], name: str, count: int, bounds: tuple[int, int]) -> list[int]:
    """The whole numbers of a field of a header in words.

    Args:
        path: The file, for messages.
        fields: All fields by name.
        name: The field.
        count: How many numbers it has.
        bounds: The smallest and the largest that is possible.

    Raises:
        ImageError: If it has something else.
    """
    words = fields.get(name, "").split()
    numbers = [int(word) for word in words if re.fullmatch(r"[+-]?\d{1,18}", word)]
    if len(words) == count == len(numbers) and all(bounds[0] <= number <= bounds[1] for number in numbers):
        return numbers
    said = f"`{name}` is {fields[name][:60]!r}" if name in fields else f"`{name}` is missing"
    expected = "is a whole number" if count == 1 else f"are {count} whole numbers"
    raise damaged_header(path, f"{said}, expected {expected} from {bounds[0]} to {bounds[1]}")


def damaged_header(path: Path, detail: str) -> FileError:
    """The error for a header that cannot be meant so."""
    return FileError(path, f"its header is damaged: {detail}", COPY_AGAIN)


def truncated(path: Path, missing: str) -> FileError:
    """The error for a file that ends before its data do."""
    return FileError(path, f"the file is truncated: {missing}", COPY_AGAIN)


def not_of_format(path: Path, format_name: str) -> FileError:
    """The error for a file whose content does not go with its ending."""
    with path.open("rb") as file:
        start = file.read(400)
    for offset, mark, kind in _FOREIGN:
        if start[offset:].startswith(mark) and not kind.endswith(format_name):
            problem = f"the file cannot be read: its content is that {kind}, not of {format_name}"
            return FileError(path, problem, "rename it to the ending of its format, or convert it")
    problem = f"the file cannot be read: it is not {format_name}, or its header is truncated or damaged"
    return FileError(path, problem, COPY_AGAIN)


def is_compressed(path: Path) -> bool:
    """Whether a file begins as gzip data do."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_maybe_compressed(path: Path) -> gzip.GzipFile:
    """Open a file for reading; gzip files are decompressed while reading."""
    return gzip.open(path, "rb") if is_compressed(path) else path.open("rb")  # type: ignore[return-value]


def cannot_hold(num_bytes: int, wanted: int, *, compressed: bool) -> str | None:
    """Why so many bytes of a file are too few for the data that are announced, told without uncompressing them."""
    if num_bytes * (_DEFLATE_RATIO if compressed else 1) >= wanted:
        return None
    return f"{num_bytes} {'compressed bytes cannot hold' if compressed else 'of'} {wanted} bytes" + (
        "" if compressed else " are there"
    )


def missing_gzip_bytes(path: Path, wanted: int) -> str | None:
    """What a file that is one gzip stream, or not compressed at all, lacks of its announced size.

    The last four bytes of a gzip file say its size (modulo 2^32); only where they disagree the bytes are counted.
    """
    size = path.stat().st_size
    if not is_compressed(path):
        return cannot_hold(size, wanted, compressed=False)
    with path.open("rb") as file:
        file.seek(-min(4, size), 2)
        if int.from_bytes(file.read(4), "little") == wanted % (1 << 32):
            return cannot_hold(size, wanted, compressed=True)
    try:
        with gzip.open(path, "rb") as stream:
            return _counted(stream, wanted)
    except _DAMAGED:
        return "its compressed data are truncated or damaged"


def missing_gzip_data(file: IO[bytes], wanted: int) -> str | None:
    """What gzip data from here to the end of a file lack, or that they are more than is announced.

    They are uncompressed, so that damage shows, but never more of them than is announced.
    """
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            missing = _counted(stream, wanted)
            if missing is None and stream.read(CHUNK) and stream.read(1):
                return f"more than the announced {wanted} bytes are there"
            return missing
    except _DAMAGED:
        return "its compressed data are truncated or damaged"


def missing_zlib_data(file: IO[bytes], length: int, wanted: int) -> str | None:
    """What `length` bytes of zlib or gzip data from here on lack of the announced size, or that they are damaged."""
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    found = 0
    try:
        while length > 0 and not stream.eof and (chunk := file.read(min(CHUNK, length))):
            length -= len(chunk)
            while chunk and found <= wanted:
                found += len(stream.decompress(chunk, CHUNK))
                chunk = stream.unconsumed_tail
    except zlib.error:
        return "its compressed data are damaged"
    if found < wanted:
        return f"{found} of {wanted} bytes of data are there"
    return None if stream.eof else "its compressed data are truncated or damaged"


def data_files(path: Path, named: str) -> list[Path]:
    """The data files that a header names: one, or as many as a pattern such as `slice%03d.raw 1 20 1` stands for.

    Raises:
        ImageError: If one does not lie beside the header, or does not exist.
    """
    pattern = re.fullmatch(r"([^%]*%0?\d?[du][^%]*?)\s+(\d{1,6})\s+(\d{1,6})\s+([1-9]\d{0,5})(\s+\d)?", named)
    if pattern is not None:
        numbers = range(int(pattern[2]), int(pattern[3]) + 1, int(pattern[4]))
        names = [pattern[1] % number for number in numbers]
    else:
        names = [named]
    return [data_file(path, name) for name in names]


def data_file(path: Path, name: str) -> Path:
    """The data file of this name, read as Latin-1, beside a header.

    Raises:
        ImageError: If it does not lie beside the header or below it, also by way of a link, or does not exist.
    """
    other_meaning = not name or "\0" in name or "%" in name or name[0] in "~-" or name[:4].upper() == "LIST"
    if other_meaning or Path(name).is_absolute() or ".." in Path(name).parts:
        problem = f"its header names {name[:80]!r} as its data file, expected is a file beside the header"
        raise FileError(path, problem, "put the data file beside the header, and its name into the header")
    found = path.parent / os.fsdecode(name.encode("latin-1"))
    if len(name) > _MAX_NAME or not found.is_file():
        cure = "copy it there, or convert the image to one file (.nii.gz, .mha)"
        raise FileError(path, f"its data file {name[:80]} does not exist beside it", cure)
    if not found.resolve().is_relative_to(path.parent.resolve()):
        cure = "copy the file itself there, or convert the image to one file (.nii.gz, .mha)"
        raise FileError(path, f"its data file {name[:80]} is a link to a file that does not lie beside it", cure)
    return found


def _counted(stream: IO[bytes] | gzip.GzipFile, wanted: int) -> str | None:
    found = 0
    while found < wanted and (chunk := stream.read(CHUNK)):
        found += len(chunk)
    return None if found >= wanted else f"{found} of {wanted} bytes are there"
