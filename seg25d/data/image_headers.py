"""File headers read and written without SimpleITK: NIfTI geometry bytes, NRRD geometry lines, expected file sizes.

SimpleITK recomputes NIfTI and NRRD geometry when it writes, so the last digits can change. Copying the geometry fields
of the input's header makes the output's geometry equal to the last digit. SimpleITK also reads truncated NIfTI files
without an error.
"""

import base64
import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_HEADER_SIZE = 348
# Fields of the NIfTI-1 header (nifti1.h): format letters for `struct`, and the offset. `pixdim[0]` is the handedness of
# the quaternion; xyzt_units scales the spacing; all fields from qform_code to srow_z are geometry.
_GEOMETRY_FIELDS = (("4f", 76), ("B", 123), ("2h18f", 252))
_NRRD_GEOMETRY = (
    "space", "space dimension", "space units", "space directions", "space origin",
    "spacings", "thicknesses", "axis mins", "axismins", "axis maxs", "axismaxs", "centers", "centerings",
)  # fmt: skip
_META_SIZES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
               "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
_FLOAT_TYPES = {16: "f4", 64: "f8"}
_CHUNK = 1 << 20


class NiftiHeader(NamedTuple):
    """The 348 bytes of a NIfTI-1 header and its byte order as `struct` names it."""

    content: bytes
    order: str

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Voxels along the axes of the file, x first; volumes of several channels have a fourth axis."""
        sizes: tuple[int, ...] = struct.unpack_from(f"{self.order}8h", self.content, 40)
        return sizes[1 : 1 + sizes[0]]

    @property
    def num_bytes(self) -> int:
        """Size of the whole uncompressed file in bytes, according to the header."""
        bits = struct.unpack_from(f"{self.order}h", self.content, 72)[0]
        return self.data_offset + math.prod(self.dimensions) * int(bits) // 8

    @property
    def data_offset(self) -> int:
        """Offset of the voxels in the uncompressed file, in bytes."""
        return int(struct.unpack_from(f"{self.order}f", self.content, 108)[0])

    @property
    def float_type(self) -> np.dtype[Any] | None:
        """The type of the voxels if it can hold NaN, else None."""
        name = _FLOAT_TYPES.get(struct.unpack_from(f"{self.order}h", self.content, 70)[0])
        return None if name is None else np.dtype(self.order + name)

    def geometry(self) -> str:
        """The geometry fields, little-endian, as base64 text."""
        packed = b"".join(
            struct.pack(f"<{fields}", *struct.unpack_from(self.order + fields, self.content, offset))
            for fields, offset in _GEOMETRY_FIELDS
        )
        return base64.b64encode(packed).decode("ascii")


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """The header of a `.nii` or `.nii.gz` file, or None if it is not NIfTI-1 or is truncated."""
    try:
        with open_maybe_compressed(path) as file:
            content = file.read(_HEADER_SIZE)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None
    for order in "<>":
        if len(content) == _HEADER_SIZE and struct.unpack_from(f"{order}i", content)[0] == _HEADER_SIZE:
            return NiftiHeader(content, order)
    return None


def patch_nifti_geometry(path: Path, geometry: str) -> None:
    """Put stored geometry fields into the header of an uncompressed NIfTI file."""
    header = read_nifti_header(path)
    assert header is not None, f"{path} was just written as NIfTI"
    packed = base64.b64decode(geometry)
    with path.open("r+b") as file:
        for fields, offset in _GEOMETRY_FIELDS:
            size = struct.calcsize(f"<{fields}")
            field, packed = packed[:size], packed[size:]
            file.seek(offset)
            file.write(struct.pack(header.order + fields, *struct.unpack(f"<{fields}", field)))


def count_bad_voxels(path: Path) -> tuple[int, int]:
    """Count the voxels of a NIfTI file that are NaN and those that are infinite.

    The library used by SimpleITK silently replaces them by 0 (`nifti_read_buffer` of nifti1_io.c), so they have to be
    searched for in the file.
    """
    header = read_nifti_header(path)
    float_type = header.float_type if header else None
    if header is None or float_type is None:
        return 0, 0
    num_nan = num_infinite = 0
    remaining = header.num_bytes - header.data_offset
    with open_maybe_compressed(path) as file:
        file.seek(header.data_offset)
        while remaining > 0 and (content := file.read(min(_CHUNK, remaining))):
            remaining -= len(content)
            values = np.frombuffer(content[: len(content) // float_type.itemsize * float_type.itemsize], float_type)
            num_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
            found = int(np.count_nonzero(np.isnan(values))) if num_bad else 0
            num_nan += found
            num_infinite += num_bad - found
    return num_nan, num_infinite


def missing_bytes(path: Path, ending: str) -> str | None:
    """Describe how much of a truncated file is missing.

    Args:
        path: An image file.
        ending: Its ending; formats whose reader detects truncation (NRRD) are not checked.

    Returns:
        A description, or None if the file is complete or its header gives no size.
    """
    if ending in (".nii", ".nii.gz"):
        header = read_nifti_header(path)
        if header is None:
            return None
        found = _nifti_size(path, header.num_bytes)
        if found is None:
            return "its compressed data are truncated or damaged"
        return None if found >= header.num_bytes else f"the file has {found} of {header.num_bytes} bytes"
    if ending in (".mha", ".mhd"):
        return _missing_meta_bytes(path)
    return None


def open_maybe_compressed(path: Path) -> gzip.GzipFile:
    """Open a file for reading; gzip files are decompressed while reading."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _nifti_size(path: Path, wanted: int) -> int | None:
    """Uncompressed size in bytes, None if the file cannot be decompressed.

    The last four bytes of a gzip file give it (modulo 2^32); the bytes are counted only if these differ from `wanted`.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size
        file.seek(-4, 2)
        if int.from_bytes(file.read(4), "little") == wanted % (1 << 32):
            return wanted
    count = 0
    try:
        with gzip.open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                count += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None
    return count


def _missing_meta_bytes(path: Path) -> str | None:
    fields, length = _read_meta_header(path)
    data = fields.get("ElementDataFile", "")
    local = data.upper() == "LOCAL"
    data_path = path if local else path.parent / data
    if not local and not data_path.is_file():
        return None if "%" in data or data.upper().startswith("LIST") else f"its data file {data} does not exist"
    found = data_path.stat().st_size - (length if local else 0)
    if fields.get("CompressedData", "").lower() == "true":
        wanted = int(fields.get("CompressedDataSize", "0"))
    else:
        voxels = math.prod(int(size) for size in fields.get("DimSize", "0").split())
        size = _META_SIZES.get(fields.get("ElementType", "").removeprefix("MET_"), 0)
        wanted = voxels * size * int(fields.get("ElementNumberOfChannels", "1"))
    return None if found >= wanted else f"the file has {found} of {wanted} bytes of data"


def _read_meta_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a MetaImage header and its length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(200):
            name, _, value = file.readline(10_000).decode("latin-1").partition("=")
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                break
        return fields, file.tell()


def split_meta_file(path: Path, header_path: Path, data_path: Path, data_name: str) -> None:
    """Split a `.mha` file into the header and the data file of a `.mhd`.

    Args:
        path: The `.mha` file.
        header_path: The header to write.
        data_path: The data file to write.
        data_name: Name of the data file to put into the header.
    """
    _, length = _read_meta_header(path)
    with path.open("rb") as source, header_path.open("wb") as header, data_path.open("wb") as data:
        text = source.read(length)
        header.write(re.sub(rb"ElementDataFile *= *LOCAL", b"ElementDataFile = " + data_name.encode(), text))
        while chunk := source.read(_CHUNK):
            data.write(chunk)


def read_nrrd_geometry(path: Path) -> tuple[str, ...] | None:
    """The geometry lines of an NRRD header in their order, or None if the file is not 3D."""
    lines = _read_nrrd_header(path)
    if not any(re.fullmatch(r"dimension: *3", line.strip()) for line in lines):
        return None
    return tuple(line.rstrip("\r\n") for line in lines if _nrrd_field(line) in _NRRD_GEOMETRY)


def patch_nrrd_geometry(path: Path, geometry: tuple[str, ...]) -> None:
    """Replace the geometry lines in the header of an NRRD file by stored ones."""
    header = _read_nrrd_header(path)
    with path.open("rb") as file:
        file.seek(sum(len(line.encode("latin-1")) for line in header))
        data = file.read()
    kept = [line for line in header if _nrrd_field(line) not in _NRRD_GEOMETRY]
    place = 1 + next(index for index, line in enumerate(kept) if _nrrd_field(line) == "dimension")
    kept[place:place] = [f"{line}\n" for line in geometry]
    path.write_bytes("".join(kept).encode("latin-1") + data)


def _nrrd_field(line: str) -> str:
    return line.partition(":")[0].strip().lower()


def _read_nrrd_header(path: Path) -> list[str]:
    """The lines before the first empty one, with their line ends."""
    lines: list[str] = []
    with path.open("rb") as file:
        while (line := file.readline(_CHUNK)).strip():
            lines.append(line.decode("latin-1"))
    return lines
