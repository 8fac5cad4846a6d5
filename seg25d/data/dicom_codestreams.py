"""Sizes of what is compressed in DICOM files, before anything uncompresses it.

Decoders take memory by the size that stands in a JPEG or JPEG 2000 image, whatever the DICOM header says. Markers are
those of ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000). Files that are deflated as a whole say no size at all.
"""
# mypy: disallow-untyped-calls=False

import struct
import zlib
from pathlib import Path

import pydicom
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info

from seg25d.core.memory import lack_of_memory
from seg25d.data.image_bytes import CHUNK
from seg25d.data.problems import FileError

_FRAMES_OF_JPEG = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that announce the size: SOF0 to SOF15, and SOF55 of JPEG-LS."""
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Second bytes of markers without content."""
_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_BOX = b"\x00\x00\x00\x0cjP  "
"""Beginning of a JP2 file, in which some programs wrap the image."""
_SEARCHED = 1 << 16
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_START = 132 + 12
"""Bytes before the attributes of the file meta information whose length its first attribute says."""
_LONGEST_META = 2000
_COPIES = 3
"""Of the content while it is read: inflated, its voxels, its numbers."""


def check_codestreams(path: Path, dataset: pydicom.Dataset) -> None:
    """Check that every image in a compressed file has the size that the header says.

    Args:
        path: For messages.
        dataset: With PixelData.

    Raises:
        ImageError: If one has another size, or is none that is known.
    """
    wanted = (int(dataset.Rows), int(dataset.Columns), 1)
    num_frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    for index, content in enumerate(generate_frames(dataset.PixelData, number_of_frames=num_frames)):
        found = announced_size(content)
        if found is None:
            problem = f"image {index + 1} in it is no JPEG or JPEG 2000 image, or is damaged"
            raise FileError(path, problem, "copy or export it again, without compression if it was another one")
        if found != wanted:
            said = "{} x {} pixels of {} number(s)"
            problem = f"its header announces {said.format(*wanted)}, image {index + 1} in it has {said.format(*found)}"
            raise FileError(path, problem, "copy or export it again")


def check_deflated(path: Path) -> None:
    """Check that a file that is deflated as a whole inflates to no more than the memory can hold.

    Raises:
        ImageError: If it does.
    """
    with path.open("rb") as file:
        if _DEFLATED not in file.read(_LONGEST_META):
            return
        meta = read_file_meta_info(path)
        if meta.TransferSyntaxUID != _DEFLATED.decode():
            return
        file.seek(_META_START + int(meta.FileMetaInformationGroupLength))
        stream, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not stream.eof and (chunk := stream.unconsumed_tail or file.read(CHUNK)):
            found += len(stream.decompress(chunk, CHUNK))
            if lack_of_memory((found,), _COPIES):
                problem = f"its compressed content takes {_COPIES} times {found >> 20} MB or more, which are not free"
                raise FileError(path, problem, "export it without compression, or use a machine with more memory")


def announced_size(content: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and numbers per pixel as a JPEG or JPEG 2000 image announces them; None if it is neither."""
    try:
        if content.startswith(_JPEG):
            return _size_of_jpeg(content)
        start = content.find(_JPEG_2000, 0, _SEARCHED) if content.startswith(_BOX) else 0
        if start >= 0 and content[start:].startswith(_JPEG_2000):
            right, lower, left, upper = struct.unpack_from(">4I", content, start + 8)
            (components,) = struct.unpack_from(">H", content, start + 40)
            return lower - upper, right - left, components
    except struct.error:
        pass
    return None


def _size_of_jpeg(content: bytes) -> tuple[int, int, int] | None:
    place = 2
    while True:
        mark, kind = struct.unpack_from(">2B", content, place)
        if mark != 0xFF:
            return None
        if kind == 0xFF:  # fill bytes
            place += 1
        elif kind in _ALONE:
            place += 2
        elif kind in _FRAMES_OF_JPEG:
            rows, columns, components = struct.unpack_from(">2HB", content, place + 5)
            return rows, columns, components
        else:
            place += 2 + max(2, struct.unpack_from(">H", content, place + 2)[0])
