"""Installing the models of an archive: all of them or none, and nothing that is there is lost unless that is wanted."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import check_writable, folder_lock, temporary_folder
from seg25d.core.workspace import Workspace
from seg25d.sharing.manifest import BEST, Manifest, runs_of
from seg25d.sharing.unpack import open_archive, unpack

_REPLACED = ".replaced"
"""Folder under `results/DATASET` of what is being replaced, until what replaces it is there."""


def install(workspace: Workspace, path: Path, *, overwrite: bool = False) -> Manifest:
    """Check an archive and put its runs under `results/DATASET`, and `best.json` last if it has one.

    The files are unpacked and checked beside their place, and renamed then. A process that is killed while it renames
    leaves runs that are complete, old or new; where it had taken an old one away and not yet brought the new one, the
    next `install` for this data set puts the old one back first.

    Args:
        workspace: Where to.
        path: The archive.
        overwrite: Replace runs and the `best.json` that are there as a whole, with all that is in them.

    Returns:
        What was installed.

    Raises:
        InputError: If the archive is not sound, or something of it is there already; nothing is written then.
        BusyError: If a run that is to be replaced is being trained.
    """
    with open_archive(path) as archive:
        manifest = archive.manifest
        target = workspace.results / manifest.dataset_name
        names = runs_of(manifest.paths) + [BEST] * (BEST in manifest.paths)
        check_writable(target)
        if not overwrite:
            _check_absent(target, names)
        with temporary_folder(target, "install") as folder:
            unpack(archive, folder)
            with folder_lock(target, "installing models"):
                _put_back(target)
                (_check_idle if overwrite else _check_absent)(target, names)
                _place(folder, target, names)
    return manifest


def _check_absent(target: Path, names: Sequence[str]) -> None:
    there = [name for name in names if (target / name).exists()]
    if there:
        raise InputError(
            f"{target} has {' and '.join(there)} already; --overwrite replaces the whole of it, with all folds, or "
            "rename it first"
        )


def _check_idle(target: Path, names: Sequence[str]) -> None:
    """Raise BusyError if a run that is to be replaced is being trained."""
    with ExitStack() as locks:
        for name in names:
            for fold in (target / name).glob("fold_*"):
                locks.enter_context(folder_lock(fold, "installing models"))


def _place(source: Path, target: Path, names: Sequence[str]) -> None:
    """Rename what is new to its place, and remove what was there before; after an error all is as it was."""
    replaced = target / _REPLACED
    placed = []
    try:
        for name in names:
            if (target / name).exists():
                replaced.mkdir(exist_ok=True)
                (target / name).rename(replaced / name)
            (source / name).rename(target / name)
            placed.append(name)
    except BaseException:
        for name in placed:
            (target / name).rename(source / name)
        raise
    finally:
        _put_back(target)


def _put_back(target: Path) -> None:
    """End a replacement: what has nothing in its place comes back, the rest goes."""
    replaced = target / _REPLACED
    if not replaced.is_dir():
        return
    for old in sorted(replaced.iterdir()):
        if not (target / old.name).exists():
            old.rename(target / old.name)
        elif old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    replaced.rmdir()
