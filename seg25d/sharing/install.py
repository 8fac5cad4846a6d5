"""Installation of an archive's models: all of them or none, without overwriting existing ones unless requested."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import temporary_folder
from seg25d.core.locks import folder_lock
from seg25d.core.workspace import Workspace
from seg25d.sharing.manifest import BEST, ArchivedFile, Manifest, runs_of
from seg25d.sharing.unpack import open_archive, unpack

logger = logging.getLogger(__name__)
_REPLACED = ".replaced"
"""Folder in `results/DATASET` for replaced models, until the new ones are in place."""


def install(workspace: Workspace, path: Path, *, overwrite: bool = False) -> Manifest:
    """Check an archive and install its runs in `results/DATASET`, and `best.json` last if it has one.

    The files are unpacked and checked in a temporary folder there, and then renamed. A process that is killed while
    renaming leaves complete runs, old or new; if it had moved an old one away before moving the new one in, the next
    `install` for this data set restores the old one first.

    Args:
        workspace: The workspace to install into.
        path: The archive.
        overwrite: Replace existing runs with everything in them, and an existing `best.json`.

    Returns:
        The manifest of the installed models.

    What is there with the same content already, as of an earlier call that was killed, stays.

    Raises:
        InputError: If the archive is invalid, or other models are in the place of its own; nothing is written then.
        BusyError: If a run to be replaced is being trained.
    """
    with open_archive(path) as archive:
        manifest = archive.manifest
        if manifest.is_portable:
            raise InputError(
                f"{path} holds graphs, which are used as they are: seg25d predict -i IN -o OUT -m {path}; expected an "
                "archive that export_model wrote without --format"
            )
        target = workspace.results / manifest.dataset_name
        names = runs_of(manifest.paths) + [BEST] * (BEST in manifest.paths)
        with folder_lock(target, "installing models"):
            _finish_replacement(target, manifest)
            wanted = names if overwrite else _absent(manifest, target, names)
            if not wanted:
                logger.info("%s are installed already, with the same content", " and ".join(names))
                return manifest
            with temporary_folder(target, "install") as folder:
                unpack(archive, folder)
                with _idle(target, wanted):
                    # Something may have come while the files were unpacked.
                    wanted = wanted if overwrite else _absent(manifest, target, wanted)
                    _place(folder, target, wanted, manifest)
    return manifest


def _absent(manifest: Manifest, target: Path, names: Sequence[str]) -> list[str]:
    """What is not there yet; what an earlier call has put in place is not done again.

    Raises:
        InputError: If something else is in the place of a part.
    """
    there = [name for name in names if (target / name).exists()]
    different = [name for name in there if not all(_is_same(target, file) for file in _files_of(manifest, name))]
    if different:
        raise InputError(
            f"{target} has {' and '.join(different)} already; --overwrite replaces it completely, with all folds, or "
            "rename it first"
        )
    return [name for name in names if name not in there]


def _files_of(manifest: Manifest, name: str) -> list[ArchivedFile]:
    """The files of a run, or `best.json`."""
    return [file for file in manifest.files if file.path.split("/")[0] == name]


def _is_same(target: Path, file: ArchivedFile) -> bool:
    path = target / file.path
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


@contextmanager
def _idle(target: Path, names: Sequence[str]) -> Iterator[None]:
    """Keep runs that are replaced in this block from being trained.

    Raises:
        BusyError: If one is.
    """
    with ExitStack() as locks:
        for name in names:
            for fold in (target / name).glob("fold_*"):
                locks.enter_context(folder_lock(fold, "installing models"))
        if os.name == "nt":  # there nothing can be moved that is open
            locks.close()
        yield


def _place(source: Path, target: Path, names: Sequence[str], manifest: Manifest) -> None:
    """Move new runs into place and remove the old ones; after an error the old ones are restored."""
    replaced = target / _REPLACED
    placed = []
    try:
        for name in names:
            if (target / name).exists():
                replaced.mkdir(exist_ok=True)
                if (replaced / name).exists():
                    raise InputError(f"{replaced / name} is in the way; move it elsewhere, or remove it")
                (target / name).rename(replaced / name)
            (source / name).rename(target / name)
            placed.append(name)
    except BaseException:
        for name in placed:
            (target / name).rename(source / name)
        raise
    finally:
        _finish_replacement(target, manifest)


def _finish_replacement(target: Path, manifest: Manifest) -> None:
    """Finish a replacement: remove old runs whose new one is in place, and restore those that have none.

    One that has something else in its place, as after a kill and a training since, stays, which is told.
    """
    replaced = target / _REPLACED
    if not replaced.is_dir():
        return
    for old in sorted(replaced.iterdir()):
        if not (target / old.name).exists():
            old.rename(target / old.name)
        elif (files := _files_of(manifest, old.name)) and all(_is_same(target, file) for file in files):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            logger.warning("%s is from a replacement that was cut off; move it elsewhere, or remove it", old)
    with suppress(OSError):  # something stays
        replaced.rmdir()
