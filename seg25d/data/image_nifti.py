"""NIfTI headers: checks, and the geometry fields, which are copied from input to output.

SimpleITK recomputes NIfTI geometry when it writes, so the last digits can change. Copying the geometry fields of the
input's header makes the output's geometry equal to the last digit. Field offsets and codes are those of nifti1.h.
"""

import base64
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seg25d.data.image_bytes import (
    CHUNK,
    COPY_AGAIN,
    cannot_hold,
    damaged_header,
    is_compressed,
    not_of_format,
    open_maybe_compressed,
    truncated,
)
from seg25d.data.problems import FileError

_HEADER_SIZE = 348
_NIFTI_2_SIZE = 540
_SHORTEST_OFFSET = 352
"""Where voxels begin at the earliest: after the header and four bytes that announce extensions."""
_LONGEST_OFFSET = 1 << 24
"""Up to here the field, a float of 32 bits, can say every byte."""
_SHORTEST_EXTENSION = 16
_MAX_EXTENSIONS = 1000
"""Files have a few. The library under SimpleITK copies the list of them for each: 60,000, which make 2 KB of gzip data,
take 11 s."""
# Format letters for `struct`, and the offset. `pixdim[0]` is the handedness of the quaternion; xyzt_units scales the
# spacing; all fields from qform_code to srow_z are geometry.
_GEOMETRY_FIELDS = (("4f", 76), ("B", 123), ("2h18f", 252))
_MARK = slice(344, 348)
_VOXEL_BYTES = {
    2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1792: 16, 2304: 4,
}  # fmt: skip
"""Bytes per voxel by `datatype`; the library under SimpleITK goes by it, not by `bitpix`. Single bits (1) and 128-bit
floats (1536, 2048) are left out: it reads neither."""
_FLOAT_TYPES = {16: "f4", 64: "f8"}


class NiftiHeader(NamedTuple):
    """The 348 bytes of a NIfTI-1 header and its byte order as `struct` names it."""

    content: bytes
    order: str

    def unpack(self, fields: str, offset: int) -> tuple[Any, ...]:
        """The values of fields, as `struct` describes them, from this offset on."""
        return struct.unpack_from(self.order + fields, self.content, offset)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Voxels along the axes of the file, x first; volumes of several channels have a fourth axis."""
        sizes = self.unpack("8h", 40)
        return sizes[1 : 1 + sizes[0]]

    @property
    def num_bytes(self) -> int:
        """Size of the whole uncompressed file in bytes, according to the header."""
        return self.data_offset + math.prod(self.dimensions) * _VOXEL_BYTES[self.unpack("h", 70)[0]]

    @property
    def data_offset(self) -> int:
        """Offset of the voxels in the uncompressed file, in bytes."""
        return int(self.unpack("f", 108)[0])

    @property
    def float_type(self) -> np.dtype[Any] | None:
        """The type of the voxels if it can hold NaN, else None."""
        name = _FLOAT_TYPES.get(self.unpack("h", 70)[0])
        return None if name is None else np.dtype(self.order + name)

    def geometry(self) -> str:
        """The geometry fields, little-endian, as base64 text."""
        packed = b"".join(
            struct.pack(f"<{fields}", *self.unpack(fields, offset)) for fields, offset in _GEOMETRY_FIELDS
        )
        return base64.b64encode(packed).decode("ascii")


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """The header of a `.nii` or `.nii.gz` file, or None if it is not NIfTI-1 or is truncated."""
    content = _start(path)
    for order in "<>":
        if len(content) == _HEADER_SIZE and struct.unpack_from(f"{order}i", content)[0] == _HEADER_SIZE:
            return NiftiHeader(content, order)
    return None


def check_nifti(path: Path, ending: str) -> None:
    """Check what a NIfTI header says before SimpleITK believes it.

    Raises:
        ImageError: If the file is no NIfTI-1 file, its header contradicts itself, or it is too short for its voxels.
    """
    header = read_nifti_header(path)
    compressed = is_compressed(path)
    if header is None:
        raise _no_nifti_1(path, compressed)
    if compressed and ending == ".nii":
        raise not_of_format(path, "a NIfTI file that is not compressed")
    _check_fields(path, header)
    _check_sform(path, header)
    if missing := cannot_hold(path.stat().st_size, header.num_bytes, compressed=compressed):
        raise truncated(path, missing)
    if _count_extensions(path, header) > _MAX_EXTENSIONS:
        raise damaged_header(path, f"it has more than {_MAX_EXTENSIONS} extensions")


def patch_nifti_geometry(path: Path, geometry: str) -> None:
    """Put stored geometry fields into the header of an uncompressed NIfTI file."""
    header = read_nifti_header(path)
    assert header is not None, f"{path} was just written as NIfTI"
    with path.open("r+b") as file:
        for (fields, offset), values in zip(_GEOMETRY_FIELDS, unpack_geometry(geometry), strict=True):
            file.seek(offset)
            file.write(struct.pack(header.order + fields, *values))


def unpack_geometry(geometry: str) -> list[tuple[Any, ...]]:
    """The values of stored geometry fields: pixdim[0..3]; xyzt_units; codes and numbers of qform and sform."""
    packed = base64.b64decode(geometry)
    values = []
    for fields, _ in _GEOMETRY_FIELDS:
        size = struct.calcsize(f"<{fields}")
        values.append(struct.unpack(f"<{fields}", packed[:size]))
        packed = packed[size:]
    return values


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
        while remaining > 0 and (content := file.read(min(CHUNK, remaining))):
            remaining -= len(content)
            values = np.frombuffer(content[: len(content) // float_type.itemsize * float_type.itemsize], float_type)
            num_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
            found = int(np.count_nonzero(np.isnan(values))) if num_bad else 0
            num_nan += found
            num_infinite += num_bad - found
    return num_nan, num_infinite


def _start(path: Path) -> bytes:
    """The bytes where a header would be; none where compressed data are damaged."""
    try:
        with open_maybe_compressed(path) as file:
            return file.read(_HEADER_SIZE)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def _count_extensions(path: Path, header: NiftiHeader) -> int:
    """The extensions between header and voxels, as far as one more than are possible."""
    if header.data_offset <= _SHORTEST_OFFSET + _SHORTEST_EXTENSION * _MAX_EXTENSIONS:
        return 0  # or few
    try:
        with open_maybe_compressed(path) as file:
            content = file.read(header.data_offset)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return 0  # which is told when the voxels are read
    has_some = content[_HEADER_SIZE : _HEADER_SIZE + 1] != b"\0"
    count, place = 0, _SHORTEST_OFFSET
    while has_some and count <= _MAX_EXTENSIONS and place + 4 <= len(content):
        (size,) = struct.unpack_from(f"{header.order}i", content, place)
        if size < _SHORTEST_EXTENSION:
            break
        count, place = count + 1, place + size
    return count


def _no_nifti_1(path: Path, compressed: bool) -> FileError:
    start = _start(path)
    if any(len(start) >= 4 and struct.unpack_from(f"{order}i", start)[0] == _NIFTI_2_SIZE for order in "<>"):
        cure = (
            "convert it, for instance in Python with nibabel: image = nibabel.load(OLD); "
            "nibabel.save(nibabel.Nifti1Image(image.dataobj, image.affine), NEW)"
        )
        return FileError(path, "the file is NIfTI-2, which SimpleITK cannot read; expected is NIfTI-1", cure)
    if compressed and not start:
        return FileError(path, "the file cannot be read, its compressed data are damaged", COPY_AGAIN)
    return not_of_format(path, "a NIfTI file")


def _check_fields(path: Path, header: NiftiHeader) -> None:
    if (mark := header.content[_MARK]) != b"n+1\0":
        kind = "the header of a pair .hdr and .img" if mark == b"ni1\0" else "an ANALYZE file, or its header is damaged"
        problem = f"the file cannot be read: it lacks the mark of NIfTI, n+1, at byte {_MARK.start}; it is {kind}"
        raise FileError(path, problem, "convert it to .nii.gz with a program that knows its orientation")
    sizes = header.unpack("8h", 40)
    if not 1 <= sizes[0] <= 7:
        raise damaged_header(path, f"it has {sizes[0]} axes (dim[0]), expected are 1 to 7")
    if min(header.dimensions) < 1:
        raise damaged_header(path, f"its size is {' x '.join(map(str, header.dimensions))} (dim)")
    datatype = header.unpack("h", 70)[0]
    if datatype not in _VOXEL_BYTES:
        problem = f"the type of its voxels (datatype {datatype}) is not known"
        raise FileError(path, problem, "save it with voxels of a usual type, such as int16 or float32")
    offset = header.unpack("f", 108)[0]
    if not _SHORTEST_OFFSET <= offset <= _LONGEST_OFFSET:
        expected = f"{_SHORTEST_OFFSET} or more, up to {_LONGEST_OFFSET}"
        problem = f"the voxels begin at byte {offset:g} (vox_offset), expected is {expected}"
        raise damaged_header(path, problem)
    codes = header.unpack("2h", 252)
    for name, code, numbers in zip(
        ("qform", "sform"), codes, (header.unpack("6f", 256), header.unpack("12f", 280)), strict=True
    ):
        if code > 0 and not all(map(math.isfinite, numbers)):
            raise damaged_header(path, f"its {name} holds numbers that are not finite")
    for axis, (size, spacing) in enumerate(zip(header.dimensions[:3], header.unpack("3f", 80), strict=False)):
        if not math.isfinite(spacing) or (spacing == 0 and size > 1):
            raise damaged_header(path, f"the spacing along {'xyz'[axis]} is {spacing:g} (pixdim)")


def _check_sform(path: Path, header: NiftiHeader) -> None:
    """Check that the sform can be inverted where it alone says how the voxels lie; else SimpleITK takes the qform."""
    qform_code, sform_code = header.unpack("2h", 252)
    axes = np.reshape(header.unpack("12f", 280), (3, 4))[:, :3]
    if qform_code > 0 or sform_code <= 0 or len(header.dimensions) < 3 or np.linalg.matrix_rank(axes) == 3:
        return
    what = "zero" if not axes.any() else f"{axes.tolist()}, whose axes do not span a volume"
    cure = (
        "write the right affine into it, for instance in Python with nibabel: image = nibabel.load(FILE); "
        "image.set_sform(AFFINE, 1); nibabel.save(image, NEW)"
    )
    raise FileError(path, f"its sform (code {sform_code}) is {what}, and it has no qform", cure)
