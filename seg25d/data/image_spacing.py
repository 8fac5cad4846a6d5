"""Spacing that a file leaves open, or gives in other units than mm: SimpleITK says nothing of either."""

import re
from collections.abc import Mapping
from pathlib import Path

from seg25d.data.cases import STACKS, spacing_files, split_ending
from seg25d.data.image_meta import read_meta_header
from seg25d.data.image_nrrd import read_nrrd_header

_SPACINGS = {
    ".mha": ("ElementSpacing", "ElementSize"),
    ".mhd": ("ElementSpacing", "ElementSize"),
    ".nrrd": ("spacings", "space directions"),
}
"""The fields of headers that give the spacing."""
_UNITS = ("DistanceUnits", "space units", "units")
_NO_OTHER = ("", "?", "???", "none", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "s", "ms")
"""Units that are those of lengths here, that are not known, or that are of time."""


def spacing_note(path: Path, num_slices: int) -> str | None:
    """Say what is taken for the spacing of an image where its file does not say it, or in other units.

    Args:
        path: The file, which passed all checks, or a folder of DICOM files.
        num_slices: Its slices; one slice of TIFF has no spacing, as other pictures have none.

    Returns:
        Words that go on with "CASE: "; None if the spacing is what the file says.
    """
    ending = split_ending(path)[1]
    if ending in STACKS and num_slices > 1 and not any(beside.is_file() for beside in spacing_files(path)):
        return f"1 mm is taken along all axes, as there is no {spacing_files(path)[-1].name} beside it"
    if ending not in _SPACINGS:
        return None
    fields = read_nrrd_header(path).fields if ending == ".nrrd" else read_meta_header(path).fields
    if not set(_SPACINGS[ending]) & set(fields):
        return f"1 mm is taken along all axes, as its header has neither {' nor '.join(_SPACINGS[ending])}"
    return _other_units(fields)


def _other_units(fields: Mapping[str, str]) -> str | None:
    for name in _UNITS:
        units = re.findall(r"[^\s\"]+", fields.get(name, ""))
        if others := [unit for unit in units if unit.lower() not in _NO_OTHER]:
            return (
                f"its lengths are taken as mm, as SimpleITK does, though `{name}` of its header says {others[0][:20]}"
            )
    return None
