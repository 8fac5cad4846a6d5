"""NRRD headers: checks, and the geometry lines, which are copied from input to output.

Fields, types and encodings are those of teem's definition of the format (teem.sourceforge.net/nrrd/format.html).
"""

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
    missing_gzip_data,
    not_of_format,
    truncated,
    whole_numbers,
)
from seg25d.data.problems import FileError

_GEOMETRY = (
    "space", "space dimension", "space units", "space directions", "space origin",
    "spacings", "thicknesses", "axis mins", "axismins", "axis maxs", "axismaxs", "centers", "centerings",
)  # fmt: skip
_VOXEL_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t",
        "ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t",
        "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"),
}  # fmt: skip
_SIZE_OF_TYPE = {name: size for size, names in _VOXEL_BYTES.items() for name in names}
_GZIP = ("gz", "gzip")
_TEXT = ("txt", "text", "ascii")
_ENCODINGS = ("raw", "hex", *_TEXT, *_GZIP)
_FIELDS = {
    *_GEOMETRY, "content", "number", "type", "block size", "blocksize", "dimension", "sizes", "kinds", "labels",
    "units", "min", "max", "old min", "oldmin", "old max", "oldmax", "endian", "encoding", "line skip", "lineskip",
    "byte skip", "byteskip", "sample units", "sampleunits", "measurement frame", "data file", "datafile",
}  # fmt: skip
"""All fields of the format: SimpleITK writes the name of an unknown one, and long values, past the end of a buffer."""
_MAX_TEXT = 1000
_MAX_WORD = 250
_MAX_AXES = 5
_MAX_LINES = 20_000
_MAX_NOTES = 5000
"""Lines `key:=value`; segmentations of Slicer have 9 for each segment. The library under SimpleITK compares each with
all others: 1 s for so many, 13 s for 18,000."""


class NrrdHeader(NamedTuple):
    """The fields of an NRRD header (names in small letters), its length in bytes, and the data files that it lists."""

    fields: dict[str, str]
    length: int
    listed: tuple[str, ...]

    @property
    def sizes(self) -> list[int]:
        """Voxels along the axes of the file."""
        return [int(size) for size in self.fields["sizes"].split()]

    @property
    def encoding(self) -> str:
        """How the data are written."""
        return self.fields["encoding"].lower()

    @property
    def skipped(self) -> int:
        """Bytes before the data, of the uncompressed ones; -1: the data are the last bytes."""
        return int(self.fields.get("byte skip", self.fields.get("byteskip", "0")))

    @property
    def num_bytes(self) -> int:
        """Bytes of the data, uncompressed; the fewest possible for numbers in words."""
        values = math.prod(self.sizes)
        if self.encoding in _TEXT:
            return 2 * values - 1
        return values * _SIZE_OF_TYPE[self.fields["type"].lower()] * (2 if self.encoding == "hex" else 1)


def check_nrrd(path: Path) -> None:
    """Check what an NRRD header says before SimpleITK believes it, and that its data files can hold the voxels.

    Raises:
        ImageError: If the header contradicts itself, names a data file that is not beside it, or data are missing.
    """
    header = read_nrrd_header(path)
    _check_fields(path, header)
    files = _files(path, header)
    compressed = header.encoding in _GZIP
    if len(files) > 1 and compressed:
        problem = "its data are compressed and in several files"
        raise FileError(path, problem, "convert it to one file (.nrrd, .nii.gz)")
    share = -(-header.num_bytes // len(files)) + max(0, header.skipped)
    for file in files:
        found = file.stat().st_size - (header.length if file == path else 0)
        if missing := cannot_hold(max(0, found), share, compressed=compressed):
            raise truncated(path, f"{missing} of data")


def missing_nrrd_bytes(path: Path) -> str | None:
    """What the data of a file that passed `check_nrrd` lack; compressed ones are uncompressed, so that damage shows."""
    header = read_nrrd_header(path)
    if header.encoding not in _GZIP:
        return None
    file_path = _files(path, header)[0]
    with file_path.open("rb") as file:
        file.seek(header.length if file_path == path else 0)
        for _ in range(_line_skip(header)):
            file.readline()
        return missing_gzip_data(file, header.num_bytes + max(0, header.skipped))


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Read the fields of an NRRD header.

    Raises:
        ImageError: If it is none.
    """
    lines = _read_lines(path)
    if not lines or not re.fullmatch(r"NRRD000[1-6]\s*", lines[0]):
        raise not_of_format(path, "an NRRD file")
    notes = sum(re.match(r"[^:]*:=", line) is not None for line in lines)
    if notes > _MAX_NOTES or len(lines) >= _MAX_LINES:
        said = f"it has {notes} lines `key:=value`" if notes > _MAX_NOTES else f"it has {len(lines)} lines or more"
        raise FileError(path, f"{said}, expected are at most {_MAX_NOTES}", "leave out what is no part of the image")
    fields: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 1):
        if line.startswith("#") or re.match(r"[^:]*:=", line):
            continue
        name, separator, value = line.partition(":")
        field = name.strip().lower()
        if not separator or field in fields:
            said = f"{field[:40]} stands in it twice" if separator else f"line {number + 1} is {line.strip()[:40]!r}"
            raise damaged_header(path, said)
        fields[field] = value.strip()
        if field in ("data file", "datafile") and value.upper().split()[:1] == ["LIST"]:
            listed = tuple(name.strip() for name in lines[number + 1 :])
            return NrrdHeader(fields, path.stat().st_size, listed)
    with path.open("rb") as file:
        file.seek(sum(len(line.encode("latin-1")) for line in lines))
        file.readline()
        return NrrdHeader(fields, file.tell(), ())


def read_nrrd_geometry(path: Path) -> tuple[str, ...] | None:
    """The geometry lines of an NRRD header in their order, or None if the file is not 3D."""
    lines = _read_lines(path)
    if not any(re.fullmatch(r"dimension: *3", line.strip()) for line in lines):
        return None
    return tuple(line.rstrip("\r\n") for line in lines if _field(line) in _GEOMETRY)


def patch_nrrd_geometry(path: Path, geometry: tuple[str, ...]) -> None:
    """Replace the geometry lines in the header of an NRRD file by stored ones."""
    header = _read_lines(path)
    with path.open("rb") as file:
        file.seek(sum(len(line.encode("latin-1")) for line in header))
        data = file.read()
    kept = [line for line in header if _field(line) not in _GEOMETRY]
    place = 1 + next(index for index, line in enumerate(kept) if _field(line) == "dimension")
    kept[place:place] = [f"{line}\n" for line in geometry]
    path.write_bytes("".join(kept).encode("latin-1") + data)


def _field(line: str) -> str:
    return line.partition(":")[0].strip().lower()


def _read_lines(path: Path) -> list[str]:
    """The lines before the first empty one, with their line ends."""
    lines: list[str] = []
    with path.open("rb") as file:
        while len(lines) < _MAX_LINES and (line := file.readline(CHUNK)).strip():
            lines.append(line.decode("latin-1"))
    return lines


def _line_skip(header: NrrdHeader) -> int:
    return int(header.fields.get("line skip", header.fields.get("lineskip", "0")))


def _files(path: Path, header: NrrdHeader) -> list[Path]:
    """The files with the data, in their order."""
    named = header.fields.get("data file", header.fields.get("datafile"))
    if named is None:
        return [path]
    files = [data_file(path, name) for name in header.listed] if header.listed else data_files(path, named)
    if len(files) > 1 and header.sizes[-1] % len(files):
        raise damaged_header(path, f"it names {len(files)} data files for {header.sizes[-1]} slices")
    return files


def _check_fields(path: Path, header: NrrdHeader) -> None:
    fields = header.fields
    axes = whole_numbers(path, fields, "dimension", 1, (1, 16))[0]
    if axes > _MAX_AXES:
        raise damaged_header(path, f"it has {axes} axes (dimension), expected are 3")
    sizes = whole_numbers(path, fields, "sizes", axes, (1, 2**31 - 1))
    for name, largest in (("byte skip", 2**31), ("byteskip", 2**31), ("line skip", 10_000), ("lineskip", 10_000)):
        if name in fields:
            whole_numbers(path, fields, name, 1, (-1 if name.startswith("byte") else 0, largest))
    if fields.get("type", "").lower() not in _SIZE_OF_TYPE:
        problem = f"the type of its voxels ({fields.get('type', 'none')[:40]}) is not known"
        raise FileError(path, problem, "save it with voxels of a usual type, such as short or float")
    if fields.get("encoding", "").lower() not in _ENCODINGS:
        problem = f"the encoding {fields.get('encoding', 'none')[:40]} of its data cannot be read"
        raise FileError(path, problem, "save it with the encoding gzip or raw")
    _check_lengths(path, fields)
    if "spacings" in fields:
        _check_spacings(path, fields["spacings"], sizes)
    for name in ("space directions", "space origin"):
        if name in fields:
            _check_vectors(path, fields, name, axes if name == "space directions" else 1)


def _check_lengths(path: Path, fields: dict[str, str]) -> None:
    for name, text in fields.items():
        longest = max(map(len, text.split()), default=0)
        if name not in _FIELDS or (name != "content" and (len(text) > _MAX_TEXT or longest > _MAX_WORD)):
            raise damaged_header(path, f"it has the field {name[:40]!r} with the value {text[:40]!r}")


def _check_spacings(path: Path, text: str, sizes: list[int]) -> None:
    words = text.split()
    spacings = [
        math.nan if word.lower() == "nan" else float(word)
        for word in words
        if re.fullmatch(f"nan|{NUMBER}", word, re.I)
    ]
    # Axes that are none of space, such as that of the channels, have NaN.
    if (
        len(words) != len(sizes)
        or len(spacings) != len(sizes)
        or sum(map(math.isnan, spacings)) > max(0, len(sizes) - 3)
    ):
        raise damaged_header(path, f"`spacings` is {text[:60]!r}, expected are {len(sizes)} finite numbers")
    if 0 in spacings:
        raise damaged_header(path, f"the spacing is {text[:60]} (`spacings`): no voxel is 0 mm large")


def _check_vectors(path: Path, fields: dict[str, str], name: str, count: int) -> None:
    vector = rf"\(\s*{NUMBER}\s*(?:,\s*{NUMBER}\s*){{0,3}}\)"
    found = re.findall(rf"none|{vector}", fields[name])
    if re.sub(rf"none|{vector}", "", fields[name]).strip() or len(found) != count:
        expected = "a vector of finite numbers" + (" per axis" if count > 1 else "")
        raise damaged_header(path, f"`{name}` is {fields[name][:80]!r}, expected is {expected}")
