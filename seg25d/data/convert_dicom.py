"""Conversion of folders of DICOM files to `CASE_0000.nii.gz`, with the same content that prediction would read."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.files import folder_lock, remove_leftovers
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import write_record
from seg25d.data.cases import is_dicom_folder, split_channel
from seg25d.data.conversion import RECORD_NAME, Conversion, read_conversion, source_digest
from seg25d.data.problems import FileError, Problem, raise_problems

logger = logging.getLogger(__name__)
_ENDING = ".nii.gz"
_BYTES_PER_VOXEL = 24
"""Peak memory of a series: one copy in the file's axis order, one in canonical order, at most 8 bytes each, and the
compressed file."""
_LARGEST_SERIES = 512 * 512 * 600
"""In voxels; the size of a series is not known before it is read."""


class _Checked(NamedTuple):
    """Result of checking one folder."""

    problem: Problem | None
    left_out: tuple[str, ...]
    """Files that are not images of the series."""


def convert_dicom_folders(source: Path, out: Path, num_processes: int | None = None) -> list[Path]:
    """Convert every folder of DICOM files, one series per folder, into a file; existing files are kept.

    Args:
        source: A folder of DICOM files, or one with such folders in it, at any depth. A case is named after its
            folder and the folders above it up to `source`; a name ending in `_0001` gives the channel.
        out: Folder for the files.
        num_processes: Worker processes; None chooses.

    Returns:
        All files, including those that existed already.

    Raises:
        DatasetError: If folders cannot be read, hold several series or share a name; lists all, and nothing is written.
        InputError: If there is nothing to convert, or an existing file was made from another source.
    """
    folders, empty = _find_series(source)
    files, problems = _name_files(source, folders)
    digests = {name: _digest(folder) for name, folder in files.items()}
    begun = read_conversion(out, "dicom")
    earlier = begun.files if begun else {}
    todo, occupied = _select_unconverted(out, files, digests, earlier)
    problems += occupied
    workers = choose_num_workers(num_processes, _LARGEST_SERIES * _BYTES_PER_VOXEL)
    checks = map_cases(_check_series, [files[name] for name in todo], name=lambda path: path.name, num_workers=workers)
    for folder, checked in track(checks, len(todo), "checking"):
        problems += [checked.problem] if checked.problem else []
        if checked.left_out:
            logger.info("%s: left out, not images of the series: %s", folder, ", ".join(checked.left_out))
    raise_problems(sorted(problems, key=lambda problem: problem.case), str(source))
    for folder in empty:
        logger.info("%s: skipped, there are no DICOM images in it", folder)
    if len(todo) < len(files):
        logger.info("%d of %d series are converted already", len(files) - len(todo), len(files))
    if todo:
        with folder_lock(out, "converting"):
            write_record(out / RECORD_NAME, Conversion(kind="dicom", files={**earlier, **digests}))
            _convert(out, {name: files[name] for name in todo}, workers)
    return [out / name for name in files]


def _find_series(source: Path) -> tuple[list[Path], list[Path]]:
    """Folders with DICOM files, and topmost folders that contain no DICOM files at any depth."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give a folder of DICOM files, or one with such folders in it")
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir() and not _is_hidden(path, source))]
    found = [folder for folder in folders if is_dicom_folder(folder)]
    if not found:
        raise DatasetError(f"{source} holds no DICOM files; give a folder of DICOM files, or one with such folders")
    empty = [folder for folder in folders if not any(each.is_relative_to(folder) for each in found)]
    return found, [folder for folder in empty if folder.parent not in empty]


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _name_files(source: Path, folders: Sequence[Path]) -> tuple[dict[str, Path], list[Problem]]:
    """The source folder of each file to write, and the problems with names."""
    files: dict[str, Path] = {}
    problems = []
    for folder in folders:
        name = "_".join(folder.relative_to(source).parts) or folder.resolve().name
        file = f"{name}{_ENDING}" if split_channel(name)[1] is not None else f"{name}_0000{_ENDING}"
        first = files.setdefault(file, folder)
        if first != folder:
            problem = f"{folder} and {first} would both become {file}"
            problems.append(Problem(case=name, problem=problem, cure="rename one of the two folders"))
    return files, problems


def _digest(folder: Path) -> str:
    return source_digest(sorted(path for path in folder.iterdir() if path.is_file()))


def _select_unconverted(
    out: Path, files: dict[str, Path], digests: dict[str, str], earlier: dict[str, str]
) -> tuple[list[str], list[Problem]]:
    """The files that do not exist yet, and problems with existing files that were made from another source."""
    there = [name for name in files if (out / name).exists()]
    cure = "remove it, or choose another folder"
    occupied = [
        Problem(case=name, problem=f"{out / name} was not made from the current content of {files[name]}", cure=cure)
        for name in there
        if earlier.get(name) != digests[name]
    ]
    return [name for name in files if name not in there], occupied


def _check_series(folder: Path) -> _Checked:
    from seg25d.data.image_dicom import series_files  # noqa: PLC0415 - SimpleITK is not loaded for --help
    from seg25d.data.image_io import read_channel  # noqa: PLC0415

    try:
        images = {Path(file).name for file in series_files(folder)}
        # Only reading shows whether all slices fit together.
        read_channel(folder)
    except FileError as error:
        return _Checked(Problem(case=folder.name, problem=f"{folder}: {error.problem}", cure=error.cure), ())
    others = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in images)
    return _Checked(None, tuple(name for name in others if not name.startswith(".")))


def _convert(out: Path, files: dict[str, Path], num_workers: int) -> None:
    remove_leftovers(out)
    done = map_cases(
        partial(_convert_series, out), list(files.items()), name=lambda item: item[1].name, num_workers=num_workers
    )
    for _ in track(done, len(files), "converting"):
        pass


def _convert_series(out: Path, item: tuple[str, Path]) -> None:
    from seg25d.data.image_io import read_channel, write_channel  # noqa: PLC0415 - loads SimpleITK

    name, folder = item
    array, geometry = read_channel(folder)
    write_channel(out / name, array, geometry)
