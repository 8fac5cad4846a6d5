"""MetaImage headers (`.mha`, `.mhd`): checks, and whether the data are complete."""

import math
import re
from pathlib import Path
from typing import NamedTuple

from seg25d.data.image_bytes import (
    CHUNK,
    NUMBER,
    cannot_hold,
    damaged_header,
    data_file,
    data_files,
    missing_zlib_data,
    not_of_format,
    truncated,
    whole_numbers,
)
from seg25d.data.problems import FileError

_VOXEL_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
                "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
_YES = ("true", "t", "1")
_MAX_LINES = 2000
_MAX_LINE = 100_000
_MAX_NAME = 200
_MAX_SIZE = 2**31 - 1
_MAX_BYTES = 2**62
_MAX_AXES = 4
_MATRICES = ("TransformMatrix", "Orientation", "Rotation")
_POINTS = ("Offset", "Origin", "Position", "CenterOfRotation")
_SPACINGS = ("ElementSpacing", "ElementSize")
_LAST = "ElementDataFile"
_SAME_FILE = ("LOCAL", "Local", "local")
"""What stands for the file itself; to SimpleITK, any other letters are the name of a file."""
_COUNTING = {
    "NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "CompressedData", "CompressedDataSize", "HeaderSize",
    "BinaryData", *_MATRICES, *_POINTS, *_SPACINGS,
}  # fmt: skip
"""Fields that say where the voxels are; all others are notes."""


class MetaHeader(NamedTuple):
    """The fields of a MetaImage header and its length in bytes; lists of data files are part of the header."""

    fields: dict[str, str]
    length: int
    listed: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether the data are in the same file."""
        return self.fields[_LAST] in _SAME_FILE

    @property
    def is_compressed(self) -> bool:
        """Whether the data are."""
        return self.fields.get("CompressedData", "").lower() in _YES

    @property
    def is_text(self) -> bool:
        """Whether the data are numbers in words."""
        return self.fields.get("BinaryData", "True").lower() in ("false", "f", "0")

    @property
    def num_bytes(self) -> int:
        """Bytes of the data, uncompressed; the fewest possible for numbers in words."""
        sizes = [int(size) for size in self.fields["DimSize"].split()]
        values = math.prod(sizes) * int(self.fields.get("ElementNumberOfChannels", "1"))
        return 2 * values - 1 if self.is_text else values * _VOXEL_BYTES[_voxel_type(self.fields)]

    @property
    def skipped(self) -> int:
        """Bytes before the data in a data file; -1: the data are the last bytes."""
        return int(self.fields.get("HeaderSize", "0"))


def check_meta(path: Path) -> None:
    """Check what a MetaImage header says before SimpleITK believes it, and that its data files can hold the voxels.

    Raises:
        ImageError: If the header contradicts itself, names a data file that is not beside it, or data are missing.
    """
    header = read_meta_header(path)
    _check_fields(path, header.fields)
    files = _files(path, header)
    share = -(-header.num_bytes // len(files))
    if len(files) > 1 and header.is_compressed:
        problem = "its data are compressed and in several files"
        raise FileError(path, problem, "convert it to one file (.mha, .nii.gz)")
    for file in files:
        start = header.length if header.is_local else 0
        found = file.stat().st_size - start - max(0, header.skipped)
        if missing := cannot_hold(max(0, found), share, compressed=header.is_compressed):
            raise truncated(path, f"{missing} of data")


def missing_meta_bytes(path: Path) -> str | None:
    """What the data of a file that passed `check_meta` lack; compressed ones are uncompressed, so that damage shows."""
    header = read_meta_header(path)
    if not header.is_compressed:
        return None
    file_path = _files(path, header)[0]
    with file_path.open("rb") as file:
        file.seek((header.length if header.is_local else 0) + max(0, header.skipped))
        length = int(header.fields.get("CompressedDataSize", "0")) or file_path.stat().st_size
        return missing_zlib_data(file, length, header.num_bytes)


def read_meta_header(path: Path) -> MetaHeader:
    """Read the fields of a MetaImage header.

    Raises:
        ImageError: If it is none.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(_MAX_LINES):
            line = file.readline(_MAX_LINE).decode("latin-1")
            name, separator, value = (part.strip() for part in line.partition("="))
            if not line or len(name) > _MAX_NAME or (name == _LAST and not separator):
                break
            if name in fields and name in _COUNTING:
                raise damaged_header(path, f"{name} stands in it twice")
            if not separator and set(name.split()) & _COUNTING:
                raise damaged_header(path, f"the line {name[:60]!r} has no value")
            if separator:
                fields[name] = value
            if name == _LAST:
                listed = _listed(file.read(CHUNK)) if value.upper().split()[:1] == ["LIST"] else ()
                return MetaHeader(fields, file.tell(), listed)
    if "NDims" in fields and "DimSize" in fields:
        raise damaged_header(path, f"{_LAST} is missing, or the line before it is damaged")
    raise not_of_format(path, "a MetaImage file")


def split_meta_file(path: Path, header_path: Path, data_path: Path, data_name: str) -> None:
    """Split a `.mha` file into the header and the data file of a `.mhd`.

    Args:
        path: The `.mha` file.
        header_path: The header to write.
        data_path: The data file to write.
        data_name: Name of the data file to put into the header.
    """
    length = read_meta_header(path).length
    with path.open("rb") as source, header_path.open("wb") as header, data_path.open("wb") as data:
        text = source.read(length)
        header.write(re.sub(rb"ElementDataFile *= *LOCAL", lambda _: b"ElementDataFile = " + data_name.encode(), text))
        while chunk := source.read(CHUNK):
            data.write(chunk)


def _listed(content: bytes) -> tuple[str, ...]:
    return tuple(name.strip() for name in content.decode("latin-1").splitlines() if name.strip())


def _files(path: Path, header: MetaHeader) -> list[Path]:
    """The files with the data, in their order."""
    if header.is_local:
        return [path]
    named = header.fields[_LAST]
    if named.upper().split()[:1] != ["LIST"]:
        files = data_files(path, named)
    else:
        files = [data_file(path, name) for name in header.listed]
    num_slices = int(header.fields["DimSize"].split()[-1])
    if len(files) not in (1, num_slices):
        raise damaged_header(path, f"it names {len(files)} data files for {num_slices} slices")
    return files


def _voxel_type(fields: dict[str, str]) -> str:
    return fields.get("ElementType", "").removeprefix("MET_")


def _check_fields(path: Path, fields: dict[str, str]) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise FileError(path, f"the file holds a {fields['ObjectType'][:40]}, expected is an Image", "export the image")
    axes = whole_numbers(path, fields, "NDims", 1, (1, _MAX_SIZE))[0]
    if axes > _MAX_AXES:
        raise damaged_header(path, f"it has {axes} axes (NDims), expected are 3")
    sizes = whole_numbers(path, fields, "DimSize", axes, (1, _MAX_SIZE))
    if _voxel_type(fields) not in _VOXEL_BYTES:
        problem = f"the type of its voxels (ElementType {fields.get('ElementType', '')[:40]}) is not known"
        raise FileError(path, problem, "save it with voxels of a usual type, such as MET_SHORT or MET_FLOAT")
    for name, smallest in (("ElementNumberOfChannels", 1), ("CompressedDataSize", 0), ("HeaderSize", -1)):
        if name in fields:
            whole_numbers(path, fields, name, 1, (smallest, _MAX_BYTES))
    _check_local(path, fields)
    for names, count in ((_MATRICES, axes * axes), (_POINTS, axes), (_SPACINGS, axes)):
        for name in names:
            if name in fields:
                _check_numbers(path, fields, name, count, sizes if names is _SPACINGS else ())


def _check_local(path: Path, fields: dict[str, str]) -> None:
    """Check the fields that say where the voxels begin and end, if they follow the header in the same file."""
    if fields[_LAST] not in _SAME_FILE:
        return
    if int(fields.get("HeaderSize", "0")) > 0:
        said = fields["HeaderSize"][:20]
        problem = f"HeaderSize is {said}, though its voxels follow the header in the same file (LOCAL)"
        cure = "remove HeaderSize from the header, or make it -1 if the voxels are the last bytes of the file"
        raise FileError(path, problem, cure)
    if fields.get("CompressedData", "").lower() in _YES:
        whole_numbers(path, fields, "CompressedDataSize", 1, (1, _MAX_BYTES))


def _check_numbers(path: Path, fields: dict[str, str], name: str, count: int, sizes: list[int] | tuple[()]) -> None:
    words = fields[name].split()
    numbers = [float(word) for word in words if re.fullmatch(NUMBER, word)]
    if len(words) != count or len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise damaged_header(path, f"{name} is {fields[name][:60]!r}, expected are {count} finite numbers")
    if sizes and 0 in numbers:
        raise damaged_header(path, f"the spacing is {fields[name][:60]} ({name}): no voxel is 0 mm large")
