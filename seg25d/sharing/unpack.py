"""Reading of an archive of models, which is not trusted: nothing is used before everything has been checked."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from zipfile import ZipFile

from seg25d.core.damage import damage_told
from seg25d.core.errors import InputError, RecordError, Seg25dError
from seg25d.core.files import MAX_JSON_BYTES, atomic_path, temporary_folder
from seg25d.core.records import parse_record
from seg25d.sharing.content import check_content
from seg25d.sharing.entries import entry_problems, manifest_problems, overlap_problems
from seg25d.sharing.manifest import MANIFEST, ArchivedFile, Manifest, copy_content

_NUM_SHOWN = 10


class Archive(NamedTuple):
    """An open archive whose entries agree with its manifest; the content of its files is not checked yet."""

    path: Path
    file: ZipFile
    manifest: Manifest


def is_archive(path: Path) -> bool:
    """Whether a path is that of an archive, not of a run's folder."""
    return not path.is_dir() and (path.is_file() or path.suffix.lower() == ".zip")


@contextmanager
def opened_archive(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Check an archive and unpack it for the duration of the block.

    Args:
        path: The archive.
        place: Folder for the temporary folder, from which leftovers of killed processes are removed; None: the
            system's folder for temporary files.

    Yields:
        A temporary folder with the layout of `results/`.

    Raises:
        InputError: If the archive is invalid; names the problem. Errors of the block name the archive, too.
    """
    with (
        open_archive(path) as archive,
        TemporaryDirectory(prefix="seg25d-") if place is None else temporary_folder(place, "models") as name,
    ):
        results = Path(name)
        folder = results / archive.manifest.dataset_name
        unpack(archive, folder, durable=False)
        try:
            yield results
        except Seg25dError as error:
            if str(results) in str(error) and len(error.args) == 1:
                error.args = (_without_folder(path, folder, error),)
            raise


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive, with all checks that do not need unpacking.

    Raises:
        InputError: If the archive is invalid; names the problem.
    """
    with _open(path) as file:
        yield Archive(path, file, _read_manifest(path, file))


def unpack(archive: Archive, folder: Path, *, durable: bool = True) -> None:
    """Unpack an archive into a folder and check the files: sizes, hashes and content.

    The files get the archive's time of modification, which identifies the model of predictions.

    Args:
        archive: The archive.
        folder: A new folder, valid only if there is no error; it gets the layout of `results/DATASET`.
        durable: See `atomic_path`.

    Raises:
        InputError: If there is not enough space, or a file does not agree with the manifest or its name; names it.
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
        raise InputError(_without_folder(archive.path, folder, error)) from None


def _without_folder(path: Path, folder: Path, error: Exception) -> str:
    """What an error says of files of an archive, in place of the folder in which they are unpacked."""
    text = str(error).replace(f"{folder}{os.sep}", "").replace(f"{folder.parent}{os.sep}", "")
    return f"{path}: {text.replace(str(folder.parent), 'it')}"


def _open(path: Path) -> ZipFile:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is a folder; expected an archive of models (.zip)")
    with _damage_told(f"{path} is not a zip file, or only a part of one"):
        return ZipFile(path)


def _damage_told(what: str) -> AbstractContextManager[None]:
    return damage_told(lambda error: InputError(f"{what} ({error}); download the archive again"))


def _read_manifest(path: Path, file: ZipFile) -> Manifest:
    entries = file.infolist()
    _refuse(path, entry_problems(entries, path.stat().st_size) or overlap_problems(entries))
    with _damage_told(f"{path}: {MANIFEST} is damaged"), file.open(MANIFEST) as source:
        value = json.loads(source.read(MAX_JSON_BYTES))
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > 1:
        raise RecordError(f"{path} was written by a newer seg25d (schema {version}, this one reads 1); update seg25d")
    manifest = parse_record(value, Manifest, f"{path}: {MANIFEST}")
    _refuse(path, manifest_problems(entries, manifest))
    return manifest


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        shown = [*problems[:_NUM_SHOWN], *(["..."] if len(problems) > _NUM_SHOWN else [])]
        raise InputError(
            f"{path} is not an archive of models that can be used; get it again from somebody you trust:\n"
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
                f"{archive.path}: {file.path} is not the file of the manifest, size or SHA-256 differ; download "
                "the archive again"
            )
        os.utime(temporary, ns=(modified, modified))
