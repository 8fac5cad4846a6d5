"""Conversion of folders of DICOM files to `CASE_0000.nii.gz`, with the same content that prediction would read."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.locks import folder_lock
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import digest, write_record
from seg25d.data.cases import dicom_folders, holds_segmentations_only, name_of_folder, split_channel
from seg25d.data.conversion import RECORD_NAME, Conversion, read_conversion, source_digest
from seg25d.data.dicom_options import DicomOptions
from seg25d.data.image_apart import read_apart
from seg25d.data.problems import FileError, Problem, raise_problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seg25d.data.dicom_series import DicomVolume
    from seg25d.data.image_geometry import Geometry

logger = logging.getLogger(__name__)
_ENDING = ".nii.gz"
_BYTES_PER_VOXEL = 24
"""Peak memory of a series: one copy in the file's axis order, one in canonical order, at most 8 bytes each, and the
compressed file."""
_LARGEST_SERIES = 512 * 512 * 600
"""In voxels; the size of a series is not known before it is read."""


class _Source(NamedTuple):
    """A folder of DICOM files, and the name of what comes of it."""

    folder: Path
    case: str
    channel: int

    def file(self, phase: str = "") -> str:
        """Name of the file of a phase."""
        return f"{self.case}{phase and f'_{phase}'}_{self.channel:04d}{_ENDING}"


class _Checked(NamedTuple):
    """Result of checking one folder."""

    problem: Problem | None
    left_out: tuple[str, ...] = ()
    """Files that are no images of the series."""
    changes: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - a tuple's default
    """Per phase what was changed, in sentences; "" where there is one phase."""


def convert_dicom(
    source: Path, out: Path, num_processes: int | None = None, options: DicomOptions | None = None
) -> list[Path]:
    """Convert every folder of DICOM files, one series per folder, into a file; existing files are kept.

    Args:
        source: A folder of DICOM files, or one with such folders in it, at any depth. A case is named after its
            folder and the folders above it up to `source`; a name ending in `_0001` gives the channel.
        out: Folder for the files.
        num_processes: Worker processes; None chooses.
        options: What is accepted of series that are no regular volume. What was changed is told, and stands in
            `conversion.json`.

    Returns:
        All files, including those that existed already.

    Raises:
        DatasetError: If folders cannot be read, hold several series, no regular volume, or share a name; lists all, and
            nothing is written.
        InputError: If there is nothing to convert, or an existing file was made from another source.
        BusyError: If another process converts into `out`.
    """
    with folder_lock(out, "converting"):
        return _convert_folders(source, out, num_processes, options or DicomOptions())


def _convert_folders(source: Path, out: Path, num_processes: int | None, options: DicomOptions) -> list[Path]:
    folders, empty = _find_series(source)
    sources = [_source(source, folder) for folder in folders]
    digests = {each.folder: _digest(each.folder, options) for each in sources}
    begun = read_conversion(out, "dicom")
    earlier = begun or Conversion(kind="dicom", files={})
    # How many phases a series has is known when it was read.
    todo = [each for each in sources if options.split_phases or not (out / each.file()).exists()]
    workers = choose_num_workers(num_processes, _LARGEST_SERIES * _BYTES_PER_VOXEL, len(todo))
    checks = map_cases(partial(_check_series, options), todo, name=lambda each: each.case, num_workers=workers)
    checked = {each.folder: result for each, result in track(checks, len(todo), "checking")}
    problems = [each.problem for each in checked.values() if each.problem]
    phases = {each.folder: checked[each.folder].changes if each.folder in checked else {"": ()} for each in sources}
    files, collisions = _name_files(sources, phases)
    missing, occupied = _what_is_left(out, files, digests, earlier.files)
    raise_problems(sorted(problems + collisions + occupied, key=lambda problem: problem.case), str(source))
    if not files:
        raise DatasetError(f"{source} holds no DICOM images; give a folder of DICOM files, or one with such folders")
    _tell(checked, empty, len(files) - len(missing), len(files))
    if missing:
        made = {name: digests[each.folder] for name, (each, _) in files.items()}
        changes = {name: phases[each.folder][phase] for name, (each, phase) in files.items() if name in missing}
        changes = earlier.changes | {name: each for name, each in changes.items() if each}
        write_record(out / RECORD_NAME, Conversion(kind="dicom", files={**earlier.files, **made}, changes=changes))
        _convert(out, {name: files[name] for name in missing}, options, workers)
    return [out / name for name in files]


def _find_series(source: Path) -> tuple[list[Path], list[Path]]:
    """Folders with DICOM files, and topmost folders that contain no DICOM files at any depth."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give a folder of DICOM files, or one with such folders in it")
    found = dicom_folders(source)
    # Segmentations are no series, unless somebody gives them alone.
    found = [folder for folder in found if not holds_segmentations_only(folder)] or found
    if not found:
        raise DatasetError(f"{source} holds no DICOM files; give a folder of DICOM files, or one with such folders")
    folders = sorted(path for path in source.rglob("*") if path.is_dir())
    empty = [folder for folder in folders if not any(each.is_relative_to(folder) for each in found)]
    return found, [folder for folder in empty if folder.parent not in empty]


def _source(root: Path, folder: Path) -> _Source:
    name = name_of_folder(folder, root)
    case, channel = split_channel(name)
    return _Source(folder, name, 0) if channel is None else _Source(folder, case, channel)


def _name_files(
    sources: Sequence[_Source], phases: Mapping[Path, Iterable[str]]
) -> tuple[dict[str, tuple[_Source, str]], list[Problem]]:
    """The folder and the phase per file to write."""
    files: dict[str, tuple[_Source, str]] = {}
    problems = []
    for source in sources:
        for phase in phases[source.folder]:
            name = source.file(phase)
            first, _ = files.setdefault(name, (source, phase))
            if first != source:
                problem = f"{source.folder} and {first.folder} would both become {name}"
                problems.append(Problem(case=source.case, problem=problem, cure="rename one of the two folders"))
    return files, problems


def _digest(folder: Path, options: DicomOptions) -> str:
    files = source_digest(sorted(path for path in folder.iterdir() if path.is_file()))
    wanted = [name for name, is_wanted in asdict(options).items() if is_wanted]
    return digest([files, wanted]) if wanted else files


def _what_is_left(
    out: Path, files: Mapping[str, tuple[_Source, str]], digests: Mapping[Path, str], earlier: Mapping[str, str]
) -> tuple[list[str], list[Problem]]:
    """The files that do not exist yet, and problems with existing files that were made from another source."""
    there = [name for name in files if (out / name).exists()]
    cure = "remove it, or choose another folder"
    occupied = [
        Problem(
            case=name,
            problem=f"{out / name} was not made from {files[name][0].folder} as it is now, with these options",
            cure=cure,
        )
        for name in there
        if earlier.get(name) != digests[files[name][0].folder]
    ]
    return [name for name in files if name not in there], occupied


def _tell(checked: Mapping[Path, _Checked], empty: Sequence[Path], num_kept: int, num_files: int) -> None:
    for folder, each in checked.items():
        if not each.changes and each.problem is None:
            logger.info("%s: skipped, there are no DICOM images in it", folder)
        if each.left_out:
            logger.info("%s: left out, not images of the series: %s", folder, ", ".join(each.left_out))
        for phase, changes in each.changes.items():
            for change in changes:
                logger.warning("%s%s: %s", folder, f" {phase}" if phase else "", change)
    for folder in empty:
        logger.info("%s: skipped, there are no DICOM images in it", folder)
    if num_kept:
        logger.info("%d of %d series are converted already", num_kept, num_files)


def _check_series(options: DicomOptions, source: _Source) -> _Checked:
    from seg25d.data.dicom_series import NoImagesError  # noqa: PLC0415 - loads pydicom
    from seg25d.data.image_dicom import find_volumes  # noqa: PLC0415 - loads SimpleITK

    try:
        volumes = find_volumes(source.folder, options)
        for volume in volumes:
            # Only reading tells whether compressed slices are whole.
            read_apart(_check_volume, source.folder, volume, options.suv)
    except NoImagesError:
        return _Checked(None)
    except FileError as error:
        return _Checked(Problem(case=source.case, problem=f"{error.path}: {error.problem}", cure=error.cure))
    images = {frame.path for volume in volumes for frame in volume.frames}
    others = sorted(path.name for path in source.folder.iterdir() if path.is_file() and path not in images)
    changes = {volume.phase: volume.changes for volume in volumes}
    if options.suv:
        changes = {phase: (*each, "standardised uptake values by body weight") for phase, each in changes.items()}
    return _Checked(None, tuple(name for name in others if not name.startswith(".")), changes)


def _convert(out: Path, files: Mapping[str, tuple[_Source, str]], options: DicomOptions, num_workers: int) -> None:
    items = [(name, each.folder, phase) for name, (each, phase) in files.items()]
    done = map_cases(
        partial(_convert_series, out, options), items, name=lambda item: item[1].name, num_workers=num_workers
    )
    for _ in track(done, len(files), "converting"):
        pass


def _check_volume(folder: Path, volume: "DicomVolume", suv: bool) -> None:
    from seg25d.data.image_dicom import read_volume  # noqa: PLC0415 - loads SimpleITK

    read_volume(volume, suv=suv)


def _read_phase(folder: Path, options: DicomOptions, phase: str) -> "tuple[NDArray[Any], Geometry]":
    from seg25d.data.image_dicom import find_volumes, read_volume  # noqa: PLC0415 - loads SimpleITK

    (volume,) = (each for each in find_volumes(folder, options) if each.phase == phase)
    return read_volume(volume, suv=options.suv)


def _convert_series(out: Path, options: DicomOptions, item: tuple[str, Path, str]) -> None:
    from seg25d.data.image_io import write_channel  # noqa: PLC0415 - loads SimpleITK

    name, folder, phase = item
    array, geometry = read_apart(_read_phase, folder, options, phase)
    write_channel(out / name, geometry.to_canonical(array), geometry)
