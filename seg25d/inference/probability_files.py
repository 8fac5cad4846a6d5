"""Probabilities beside a segmentation, `CASE.npz` as nnU-Net writes it; written and read in pieces to spare memory.

Letters: K channels, z y x the file's grid, D H W the canonical grid, n planes.
"""

import math
import pickle
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import PART_BYTES, Windows
from seg25d.core.damage import damage_told
from seg25d.core.errors import InputError
from seg25d.core.files import atomic_path
from seg25d.core.memory import lack_of_memory
from seg25d.core.npz import NpyReader, npz_writer
from seg25d.data.cases import split_ending
from seg25d.data.image_geometry import Geometry

_NAME = "probabilities"
_DAMAGED = (KeyError, TypeError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, AttributeError)
"""What numpy's headers raise that are damaged, beside zip files; encrypted ones are a RuntimeError."""
NOT_QUITE_1 = 1e-3
"""By which probabilities may miss 0 .. 1: half precision rounds to 0.0005 below 1."""


def probabilities_path(target: Path) -> Path:
    """The file of the probabilities that belong to a segmentation."""
    return target.with_name(f"{split_ending(target)[0]}.npz")


def write_probabilities(target: Path, probabilities: Windows, geometry: Geometry, num_threads: int = 1) -> None:
    """Write `CASE.npz` and `CASE.pkl`, see `probabilities_writer`; one class after the other, some planes at a time.

    Args:
        target: The segmentation that they belong to.
        probabilities: (K, D, H, W) in canonical axes; the file has (K, z, y, x).
        geometry: Geometry of the segmentation.
        num_threads: Threads that compress.
    """
    depth, *plane = geometry.shape
    step = max(1, PART_BYTES // (4 * math.prod(plane)))
    with probabilities_writer(target, probabilities.shape[0], geometry, num_threads) as write:
        for channel in range(probabilities.shape[0]):
            for start in range(0, depth, step):
                window = geometry.canonical_window(start, min(start + step, depth))
                write(geometry.from_canonical(probabilities[(channel, *window)]))


@contextmanager
def probabilities_writer(
    target: Path, num_channels: int, geometry: Geometry, num_threads: int = 1
) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Write `CASE.npz`, and `CASE.pkl` with the properties that nnU-Net's `SimpleITKIO.write_seg` and ensembling need.

    Args:
        target: The segmentation that they belong to.
        num_channels: K.
        geometry: Geometry of the segmentation.
        num_threads: Threads that compress.

    Yields:
        Function that writes the next planes (n, y, x) of (K, z, y, x). The files come into being when the block ends.
    """
    path, shape = probabilities_path(target), (num_channels, *geometry.shape)
    with atomic_path(path) as temporary, npz_writer(temporary, _NAME, shape, num_threads) as write:
        yield write
    properties = {
        "sitk_stuff": {
            "spacing": geometry.spacing_mm[::-1],
            "origin": geometry.origin_mm,
            "direction": geometry.direction,
        },
        "spacing": list(geometry.spacing_mm),
        "shape_before_cropping": geometry.shape,
        "bbox_used_for_cropping": [[0, size] for size in geometry.shape],
        "shape_after_cropping_and_before_resampling": geometry.shape,
    }
    with atomic_path(path.with_suffix(".pkl")) as temporary:
        temporary.write_bytes(pickle.dumps(properties))


class ProbabilityFile:
    """`CASE.npz` of seg25d or nnU-Net, read one class after the other; without unpickling, so that it cannot run code.

    To be closed, as by `with`.

    Args:
        path: The file.

    Raises:
        InputError: Also on reading: if the file is missing or damaged, or holds something else than numbers from 0 to 1
            (K, z, y, x).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _damage_named(path), ExitStack() as stack:
            self._reader = NpyReader(stack.enter_context(zipfile.ZipFile(path)), _NAME)
            stack.callback(self._reader.close)
            self.shape, self.dtype = self._reader.shape, self._reader.dtype
            if len(self.shape) != 4 or self.dtype.kind != "f":
                raise ValueError(f"shape {self.shape} of {self.dtype}")
            self._opened = stack.pop_all()

    def planes(self, channel: int) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        """Read a class: the index of the first plane and planes (n, y, x), the same n for all files of a shape.

        Classes are read in ascending order; some may be left out.
        """
        if self._reader.fortran_order and (lack := lack_of_memory(self.shape, self.dtype.itemsize)):
            raise InputError(f"{self.path}: {lack}; use fewer --num-processes, or a machine with more memory")
        planes = self._reader.planes(channel)
        while True:
            with _damage_named(self.path):
                found = next(planes, None)
            if found is None:
                return
            if found[1].size:
                lowest, highest = float(found[1].min()), float(found[1].max())  # NaN if there is one
                if not -NOT_QUITE_1 <= lowest <= highest <= 1 + NOT_QUITE_1:
                    detail = f"values from {lowest:g} to {highest:g}, wanted 0 to 1"
                    raise InputError(_damage_message(self.path, detail))
            yield found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()


def read_probabilities(path: Path) -> NDArray[np.floating[Any]]:
    """Read all of `CASE.npz`, see `ProbabilityFile`.

    Returns:
        Probabilities (K, z, y, x) in the axes of the segmentation file.

    Raises:
        InputError: If the file is missing or damaged, holds something else than numbers from 0 to 1, or more of them
            than memory is free for.
    """
    with ProbabilityFile(path) as file:
        if lack := lack_of_memory(file.shape, file.dtype.itemsize):
            raise InputError(f"{path}: {lack}; use fewer --num-processes, or a machine with more memory")
        probabilities: NDArray[np.floating[Any]] = np.empty(file.shape, file.dtype)
        for channel, volume in enumerate(probabilities):
            for start, planes in file.planes(channel):
                volume[start : start + len(planes)] = planes
    return probabilities


def probabilities_shape(path: Path) -> tuple[int, ...]:
    """The shape of the probabilities in `CASE.npz`, (K, z, y, x), without reading them.

    Raises:
        InputError: If the file is damaged or holds something else.
    """
    with ProbabilityFile(path) as file:
        return file.shape


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise InputError for a file that is missing or damaged; errors of the disk are raised unchanged."""
    try:
        with damage_told(lambda error: InputError(_damage_message(path, error)), *_DAMAGED):
            yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; predict with --save-probabilities") from None


def _damage_message(path: Path, detail: object) -> str:
    return f"{path} is not a file with `probabilities` (K, z, y, x) ({detail}); predict the case again"
