"""Writing of an archive of models; the same models give the same bytes on every machine."""

import filecmp
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo, is_zipfile

from seg25d.core.errors import InputError
from seg25d.core.files import atomic_path, check_writable, read_json
from seg25d.core.locks import reading_lock
from seg25d.core.workspace import RunFolder
from seg25d.ensembling.load import files_of_model
from seg25d.planning.portable_model import header_of
from seg25d.sharing.choice import ChosenModels
from seg25d.sharing.content import check_content
from seg25d.sharing.manifest import (
    BEST,
    MANIFEST,
    ArchivedFile,
    Manifest,
    Subject,
    copy_content,
    is_allowed,
    usage,
)

logger = logging.getLogger(__name__)
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can store."""
_FINAL = re.compile(r"/model_final\.(safetensors|onnx)$")
_PATH = re.compile(r'"((?:/|~/|file:|[A-Za-z]:\\\\)[^"]+)"')
"""A JSON string that looks like an absolute path."""


def write_archive(
    path: Path, folder: Path, models: ChosenModels, licence: str | None = None, *, overwrite: bool = False
) -> Manifest:
    """Write an archive of models; it is complete or absent.

    Args:
        path: The archive.
        folder: `results/DATASET`.
        models: The models to export.
        licence: Text of their licence.
        overwrite: Whether to replace a file with other content.

    Returns:
        The manifest of the archive.

    Raises:
        InputError: If something is missing, damaged or does not belong together, or a file with other content is there
            and not to be replaced; nothing is written then.
    """
    other = check_place(path, overwrite=overwrite)
    with held(folder, models):
        return write_files(path, folder, list_files(folder, models), licence, None if overwrite else other)


def check_place(path: Path, *, overwrite: bool) -> InputError:
    """Check that an archive can be written to a place.

    Returns:
        The error for the case that another archive is there and not to be replaced.

    Raises:
        InputError: If something else is there, or the folder cannot be written into.
    """
    other = InputError(f"{path} exists already; choose another name" + (" or --overwrite" * path.is_file()))
    if path.exists() and not (path.is_file() and (overwrite or is_zipfile(path))):
        raise other
    check_writable(path.parent)
    return other


@contextmanager
def held(folder: Path, models: ChosenModels) -> Iterator[None]:
    """Keep models in `results/DATASET` from being trained in this block."""
    with ExitStack() as locks:
        for run, folds in models.folds.items():
            for fold in folds:
                locks.enter_context(reading_lock(RunFolder(root=folder / run).fold(fold).root, "exporting"))
        yield


def write_files(
    path: Path, folder: Path, files: Sequence[str], licence: str | None, other: InputError | None
) -> Manifest:
    """Write an archive of files, which are checked before.

    Args:
        path: The archive.
        folder: `results/DATASET`, or a folder with this layout.
        files: Names of files in it, sorted.
        licence: See `write_archive`.
        other: Is raised if a file with other content is there; None: that is replaced.
    """
    subject = Subject.of(header_of(next(folder / file for file in files if _FINAL.search(file))))
    check_content(folder, files, subject)
    with atomic_path(path) as temporary, ZipFile(temporary, "w") as archive:
        manifest = Manifest(
            **subject._asdict(),
            licence=licence,
            usage=usage(subject.dataset_name, files),
            files=tuple(_add(archive, name, folder / name) for name in files),
        )
        _write(archive, MANIFEST, io.BytesIO(_json_bytes(manifest.model_dump(mode="json"))))
        archive.close()
        if path.exists() and other is not None:
            if not filecmp.cmp(temporary, path, shallow=False):
                raise other
            logger.info("%s is there already, with the same content", path)
            modified = path.stat().st_mtime_ns
            os.utime(temporary, ns=(modified, modified))  # which identifies the models of predictions
    return manifest


def list_files(folder: Path, models: ChosenModels) -> list[str]:
    """The names of all files that an archive of models has beside its manifest, sorted.

    Raises:
        InputError: If a model is incomplete, or a name cannot be that of a file of an archive.
    """
    paths = [folder / BEST] if models.best else []
    for name, folds in models.folds.items():
        run = RunFolder(root=folder / name)
        paths += [run.plans, run.dataset]
        paths += [path for path in (run.fingerprint, run.crossval, run.predicted_dice) if path.exists()]
        paths += [path for fold in folds for path in files_of_model(run.fold(fold).model_final)]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    if wrong := [name for name in names if not is_allowed(name)]:
        raise InputError(
            f"{folder / wrong[0]} cannot be exported under this name; names of runs are letters, digits, - and _"
        )
    return names


def _add(archive: ZipFile, name: str, path: Path) -> ArchivedFile:
    if path.suffix == ".json":
        content = _read_portable(path)
        size, sha256 = _write(archive, name, io.BytesIO(content))
    else:
        with path.open("rb") as source:
            size, sha256 = _write(archive, name, source)
    return ArchivedFile(path=name, bytes=size, sha256=sha256)


def _read_portable(path: Path) -> bytes:
    """Read a JSON file without the paths of the data set's files, which are meaningless on other machines."""
    content = path.read_bytes()
    if path.name == "dataset.json" and "dataset" in (value := read_json(path)):
        content = _json_bytes({key: item for key, item in value.items() if key != "dataset"})
    if found := _PATH.search(content.decode("utf-8", errors="replace")):
        logger.warning("%s: the archive will contain what looks like a path of this machine: %s", path, found[1])
    return content


def _write(archive: ZipFile, name: str, source: IO[bytes]) -> tuple[int, str]:
    """Add a file; return its size and SHA-256."""
    entry = ZipInfo(name, _FIRST_DAY)
    entry.create_system = 3  # Unix, on all systems
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.compress_type = ZIP_DEFLATED if name.endswith(".json") else ZIP_STORED
    with archive.open(entry, "w", force_zip64=True) as target:
        return copy_content(source, target)


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
