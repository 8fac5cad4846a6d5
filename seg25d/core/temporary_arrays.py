"""Arrays that lie on a disk, in files without names, where they are too large for memory.

The system keeps parts of such files in memory as long as nobody needs that, and writes them when somebody does, so that
no more than the disk has to hold them: with 60 classes, the probabilities of a CT of 500 x 512 x 512 voxels in float16
take 15 GiB, thirty times the image in float32.
"""

import logging
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, Backend, move_axis
from seg25d.core.errors import InputError
from seg25d.core.memory import lack_of_memory

logger = logging.getLogger(__name__)
IN_MEMORY_BYTES = 640 << 20
"""Of an array that is in memory if that is free: five CTs of 128 x 512 x 512 voxels in float32."""
MOUNTS = Path("/proc/mounts")
LARGE_FILES = Path("/var/tmp")
"""For temporary files that may be large: it is on a disk where /tmp is in memory (file-hierarchy(7))."""
_FOLDER: ContextVar[Path | None] = ContextVar("folder for large arrays", default=None)


class TemporaryArray:
    """Zeros in a file without a name, which ends with the process.

    The file lies in the system's folder for temporary files, in `LARGE_FILES` or in that of `large_arrays_in`: in the
    first of them that is on a disk with room for it.

    Args:
        shape: Numbers along each axis.
        dtype: Of the numbers.

    Raises:
        OSError: If none of them has room; says why.
        AttributeError: If this is a system without such files.
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.memory = _map_file(np.dtype(dtype).itemsize * math.prod(shape))
        self.values: NDArray[Any] = np.frombuffer(self.memory, dtype).reshape(shape)

    def release(self) -> None:
        """Leave what was read and written to the system, which keeps or writes it as it sees fit (madvise(2))."""
        self.memory.madvise(mmap.MADV_DONTNEED)


@contextmanager
def large_arrays_in(folder: Path) -> Iterator[None]:
    """Let large arrays lie in a folder, or where it will be made, if those for temporary files have no room."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def file_if_large(shape: Sequence[int], dtype: str, most_bytes: float | None = None) -> TemporaryArray | None:
    """An array in a file, if it is too large for memory.

    Args:
        shape: Numbers along each axis.
        dtype: Of the numbers.
        most_bytes: That it may take in memory, if they are free; None: `IN_MEMORY_BYTES`.

    Returns:
        The array; None where it is to be in memory, also because there is no room for it elsewhere, which is logged.

    Raises:
        InputError: If neither memory nor disk has room.
    """
    itemsize = np.dtype(dtype).itemsize
    lack, most = lack_of_memory(shape, itemsize), IN_MEMORY_BYTES if most_bytes is None else most_bytes
    if lack is None and itemsize * math.prod(shape) <= most:
        return None
    reasons = ""
    try:
        return TemporaryArray(shape, dtype)
    except OSError as error:
        reasons = str(error)
    except AttributeError:  # a system without such files
        pass
    if lack is not None:
        raise InputError(
            f"the scores: {lack}; stop other programs, use a machine with more memory, or let TMPDIR name a folder "
            "on a disk with that much space"
        )
    if reasons:
        _warn(reasons)
    return None


def large_zeros(shape: Sequence[int], dtype: str, axis: int = 0) -> tuple[NDArray[Any], Callable[[], None]]:
    """Zeros in memory, or in a file if they are too large.

    Args:
        shape: Numbers along each axis.
        dtype: Of the numbers.
        axis: Along which they are written or read one after the other: a file has the planes across it in turn.

    Returns:
        The array, and a function that leaves what was written or read to the system if it is in a file.

    Raises:
        InputError: If neither memory nor disk has room.
    """
    others = [size for other, size in enumerate(shape) if other != axis]
    file = file_if_large([shape[axis], *others], dtype)
    if file is None:
        return np.zeros(shape, dtype), lambda: None
    return np.moveaxis(file.values, 0, axis), file.release


class LargeMaps:
    """Scores or probabilities (K, D, H, W) in float16, which are written plane by plane.

    Args:
        shape: (K, D, H, W).
        backend: The library of the planes.
    """

    def __init__(self, shape: Sequence[int], backend: Backend) -> None:
        self.shape = tuple(shape)
        self.backend = backend
        self._maps: Array = None
        self._release: Callable[[], None] = lambda: None

    @property
    def maps(self) -> Array:
        """(K, D, H, W) on the CPU; complete when all planes were written."""
        assert self._maps is not None, "there is at least one plane"
        return self._maps

    def write(self, axis: int, first: int, planes: Array) -> None:
        """Write planes.

        Args:
            axis: Perpendicular to them (0 D, 1 H, 2 W), the same for all.
            first: Index of the first one.
            planes: (n, K, h, w) on any device, in any precision.

        Raises:
            InputError: If neither memory nor disk has room for all of them.
        """
        if self._maps is None:
            array, self._release = large_zeros(self.shape, "float16", 1 + axis)
            self._maps = self.backend.from_numpy(array)
        move_axis(self._maps, 1 + axis, 0)[first : first + len(planes)] = planes
        self._release()


def _map_file(size: int) -> mmap.mmap:
    """Bytes in a file without a name, in the first folder that has room for them."""
    refusals = []
    for folder in _folders():
        try:
            if _is_memory(folder):
                raise OSError("its files are kept in memory")
            with tempfile.TemporaryFile(dir=folder) as file:
                # Without its place on the disk, a full disk would end the process (SIGBUS) instead of an error here.
                os.posix_fallocate(file.fileno(), 0, size)
                return mmap.mmap(file.fileno(), size)
        except OSError as error:
            refusals.append(f"{folder}: {error.strerror or error}")
    raise OSError("; ".join(refusals))


def _folders() -> Iterator[Path]:
    """Where files may lie, in the order in which they are tried."""
    yield Path(tempfile.gettempdir())
    yield LARGE_FILES
    if (folder := _FOLDER.get()) is not None:
        yield next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _is_memory(folder: Path) -> bool:
    """Whether files of a folder take memory instead of room on a disk (proc_mounts(5))."""
    mounts: dict[str, str] = {}
    with suppress(OSError):
        mounts = {each.split()[1]: each.split()[2] for each in MOUNTS.read_text(encoding="utf-8").splitlines()}
    folder = folder.resolve()
    nearest = next((str(each) for each in (folder, *folder.parents) if str(each) in mounts), None)
    return nearest is not None and mounts[nearest] in ("tmpfs", "ramfs")


@cache
def _warn(reasons: str) -> None:
    """Say once why large arrays are in memory."""
    logger.warning(
        "scores of more than %d MiB stay in memory, as no folder has room for them in a file (%s); let TMPDIR name a "
        "folder on a disk with more space",
        IN_MEMORY_BYTES >> 20,
        reasons,
    )
