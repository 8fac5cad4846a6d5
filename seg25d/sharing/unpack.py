"""Reading an archive of models: nothing of it is trusted, and nothing is used before all of it is checked."""

import errno
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import atomic_path, temporary_folder
from seg25d.core.records import parse_record
from seg25d.sharing.content import check_content
from seg25d.sharing.entries import MAX_JSON_BYTES, entry_problems, manifest_problems
from seg25d.sharing.manifest import MANIFEST, ArchivedFile, Manifest, copy_content

_DAMAGED = (
    *(BadZipFile, EOFError, NotImplementedError, OverflowError, RecursionError, ValueError),
    *(struct.error, zlib.error),
)
"""What reading a damaged zip file, or a JSON file in it, can raise."""
_NUM_SHOWN = 10


class Archive(NamedTuple):
    """An open archive whose list of entries agrees with its manifest; its files are not yet checked."""

    path: Path
    file: ZipFile
    manifest: Manifest


def is_archive(path: Path) -> bool:
    """Whether a path is meant to be an archive, not the folder of a run."""
    return not path.is_dir() and (path.is_file() or path.suffix.lower() == ".zip")


@contextmanager
def opened_archive(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Check an archive and unpack it for as long as the block lasts.

    Args:
        path: The archive.
        place: Where to make the folder, and to remove what killed processes left there; None: where the system has
            temporary files.

    Yields:
        A temporary folder with the layout of `results/`.

    Raises:
        InputError: If anything about the archive is not sound; says what.
    """
    with (
        open_archive(path) as archive,
        TemporaryDirectory(prefix="seg25d-") if place is None else temporary_folder(place, "models") as name,
    ):
        results = Path(name)
        unpack(archive, results / archive.manifest.dataset_name, durable=False)
        yield results


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive, and check all that can be checked without unpacking it.

    Raises:
        InputError: If anything is not sound; says what.
    """
    with _open(path) as file:
        yield Archive(path, file, _checked_manifest(path, file))


def unpack(archive: Archive, folder: Path, *, durable: bool = True) -> None:
    """Write the files of an archive into a folder and check them: sizes, hashes, and what they are.

    The files get the archive's time of modification, which is how predictions of one model are told from another's.

    Args:
        archive: What to unpack.
        folder: A new folder, to be used only if there is no error; it gets the layout of `results/DATASET`.
        durable: See `atomic_path`.

    Raises:
        InputError: If there is not enough room, or a file is not what the manifest or its name says; names it.
    """
    folder.mkdir(exist_ok=True)
    needed, free = archive.manifest.num_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{archive.path} needs {needed / 1e9:.2f} GB in {folder.parent}, where {free / 1e9:.2f} GB are free; make "
            "room, or choose another place (--workspace, or -o of predict)"
        )
    for file in archive.manifest.files:
        _unpack_file(archive, file, folder / file.path, durable=durable)
    try:
        check_content(folder, archive.manifest.paths, archive.manifest.subject)
    except InputError as error:
        raise InputError(f"{archive.path}: {str(error).replace(f'{folder}{os.sep}', '')}") from None


def _open(path: Path) -> ZipFile:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is a folder; wanted an archive of models (.zip)")
    with _damage_told(f"{path} is not a zip file, or only a part of one"):
        return ZipFile(path)


@contextmanager
def _damage_told(what: str) -> Iterator[None]:
    """Raise InputError for what reading a damaged zip file raises; a disk that is full stays one."""
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        # EINVAL: the list of entries speaks of a place that is not in the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise InputError(f"{what} ({error}); fetch the archive again") from None


def _checked_manifest(path: Path, file: ZipFile) -> Manifest:
    entries = file.infolist()
    _refuse(path, entry_problems(entries, path.stat().st_size))
    with _damage_told(f"{path}: {MANIFEST} is damaged"), file.open(MANIFEST) as source:
        value = json.loads(source.read(MAX_JSON_BYTES))
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > 1:
        raise RecordError(f"{path} was written by a newer seg25d (schema {version}, this one knows 1); update seg25d")
    manifest = parse_record(value, Manifest, f"{path}: {MANIFEST}")
    _refuse(path, manifest_problems(entries, manifest))
    return manifest


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        shown = [*problems[:_NUM_SHOWN], *(["..."] if len(problems) > _NUM_SHOWN else [])]
        raise InputError(
            f"{path} is not an archive of models that can be used; fetch it again from somebody you trust:\n"
            + "\n".join(f"  {problem}" for problem in shown)
        )


def _unpack_file(archive: Archive, file: ArchivedFile, target: Path, *, durable: bool) -> None:
    modified = archive.path.stat().st_mtime_ns
    with atomic_path(target, durable) as temporary:
        damaged = f"{archive.path}: {file.path} is damaged"
        with _damage_told(damaged), archive.file.open(file.path) as source, temporary.open("wb") as copy:
            found = copy_content(source, copy, file.bytes)
        if found != (file.bytes, file.sha256):
            raise InputError(
                f"{archive.path}: {file.path} is not the file of the manifest, size or SHA-256 differ; fetch the "
                "archive again"
            )
        os.utime(temporary, ns=(modified, modified))
