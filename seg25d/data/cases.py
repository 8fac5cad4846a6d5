"""Cases and the names of their files: CASE_0000.nii.gz is channel 0 of CASE."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from seg25d.core.records import Record

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
"""The endings of medical images, longest first where one ends like another."""
ONE_SLICE = (".png", ".bmp", ".jpg", ".jpeg")
"""The endings of pictures that have one slice."""
STACKS = (".tif", ".tiff")
"""The endings of pictures that may have several slices, with the spacing in a JSON file beside them."""
PICTURES = (*ONE_SLICE, *STACKS)
ENDINGS = (*VOLUMES, *PICTURES)
"""The endings of files that are read and written."""
LOSSY = (".jpg", ".jpeg")
"""The endings of pictures whose values are not those that were saved."""
LABEL_ENDINGS = dict.fromkeys(ONE_SLICE, ".png")
"""The ending of labels where it is not that of the images: labels cannot be compressed with losses."""
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


class Case(Record):
    """One case: its images in the order of the channels, and its label file if it has one.

    A folder of DICOM files stands for an image where it is the input of a prediction.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


def source_stamp(case: Case) -> list[tuple[str, int, int]]:
    """Name, size and modification time (ns) of every file of a case, to detect changes.

    Raises:
        OSError: If a file is missing.
    """
    files = [*case.images, *([case.label] if case.label else [])]
    # The voxels of a .mhd are in a second file, usually with one of these names.
    voxels = [path.with_suffix(ending) for path in files if path.suffix == ".mhd" for ending in (".raw", ".zraw")]
    voxels += [beside for path in files if path.suffix in STACKS for beside in spacing_files(path)]
    slices = [file for path in files if path.is_dir() for file in sorted(path.iterdir()) if file.is_file()]
    statistics = [(path.name, path.stat()) for path in [*files, *slices, *(path for path in voxels if path.is_file())]]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in statistics]


def split_ending(path: Path) -> tuple[str, str]:
    """The name of a file without its ending, and the ending; the ending is "" where it is not a known one."""
    name = path.name
    for ending in ENDINGS:
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending), ending
    return name, ""


def split_channel(stem: str) -> tuple[str, int | None]:
    """Case and channel of a name without its ending; the channel is None where the name has none."""
    match = _CHANNEL.fullmatch(stem)
    return (match["case"], int(match["channel"])) if match else (stem, None)


def spacing_files(path: Path) -> list[Path]:
    """The JSON files that may have the spacing of a TIFF file; the first that exists counts.

    It is `CASE.json`, also for images, whose names have a channel.
    """
    stem = split_ending(path)[0]
    return [path.with_name(f"{name}.json") for name in dict.fromkeys((stem, split_channel(stem)[0]))]


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its ending: PNG, BMP, JPEG or TIFF."""
    return split_ending(path)[1] in PICTURES


def image_files(folder: Path, *, pictures: bool = False) -> list[Path]:
    """Visible files with a known ending directly in a folder, sorted; an empty list if the folder does not exist.

    Args:
        folder: The folder.
        pictures: Which kind counts where there are both: pictures, or medical images. Beside medical images, pictures
            show something, such as a plot of each case.
    """
    files = all_image_files(folder)
    return [path for path in files if is_picture(path) == pictures] or files


def all_image_files(folder: Path) -> list[Path]:
    """Like `image_files`, but medical images and pictures."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # which knows what is a file without asking for each
        files = [folder / entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    return sorted(path for path in files if split_ending(path)[1])


def by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files by their name without the ending."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(split_ending(path)[0], []).append(path)
    return groups


DICOM_ENDINGS = (".dcm", ".ima")
"""Endings of files that are tried even without the DICOM mark, as old programs wrote them."""


SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations and label map segmentations (DICOM PS3.4, annex B.5)."""
_SOP_CLASS = b"\x02\x00\x02\x00UI"
"""Tag and type of Media Storage SOP Class UID in the file meta information, a length and the value behind it."""
_HEAD_BYTES = 1024


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM files: one ends in `.dcm` or `.ima`, or has the DICOM mark at byte 128."""
    if not folder.is_dir():
        return False
    names = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name.upper() != "DICOMDIR")
    files = sorted(path for path in names if path.is_file())
    if any(path.suffix.lower() in DICOM_ENDINGS for path in files):
        return True
    return any(has_dicom_mark(path) for path in files if not split_ending(path)[1])


def has_dicom_mark(path: Path) -> bool:
    """Whether a file has the mark of DICOM at byte 128; one that cannot be read has none."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_segmentations_only(folder: Path) -> bool:
    """Whether all DICOM files of a folder are segmentations: there are predictions, and no series."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    paths = [path for path in files if path.suffix.lower() in DICOM_ENDINGS or has_dicom_mark(path)]
    return bool(paths) and all(_is_segmentation(path) for path in paths)


def _is_segmentation(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    _, found, rest = head.partition(_SOP_CLASS)
    length = int.from_bytes(rest[:2], "little")
    return bool(found) and rest[2 : 2 + length].rstrip(b"\0 ").decode("ascii", "replace") in SEGMENTATIONS


def dicom_folders(source: Path) -> list[Path]:
    """The folders with DICOM files at any depth below a folder, itself included; hidden ones are left alone."""
    below = sorted(path for path in source.rglob("*") if path.is_dir() and not _is_hidden(path, source))
    return [folder for folder in (source, *below) if is_dicom_folder(folder)]


def name_of_folder(folder: Path, source: Path) -> str:
    """Name of what is in a folder below another: like the folder, with those above it as far as the other."""
    return "_".join(folder.relative_to(source).parts) or folder.resolve().name


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)
