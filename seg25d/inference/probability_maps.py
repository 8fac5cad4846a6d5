"""Files of probabilities of whole cases, written plane by plane: of validation cases to keep, of others for a while."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import PlaneWriter, StoredArray, write_channels
from seg25d.core.files import atomic_path
from seg25d.core.leftovers import temporary_name
from seg25d.core.system_errors import writing

IN_MEMORY_BYTES = 1 << 27
"""Probabilities that need no file for a while, as they take no more than this."""


def write_probability_channels(path: Path, shape: Sequence[int], channels: Iterable[NDArray[np.floating[Any]]]) -> None:
    """Write the probabilities of a case in float16, class by class: half of the space, and steps of 0.0005 below 1.

    Args:
        path: `CASE.b2nd`; it comes into being when the last class is written.
        shape: (K, D, H, W) on the canonical grid of the file.
        channels: The classes, which add up to 1, or the regions, each (D, H, W), in order; what is raised while they
            are computed leaves no file.
    """
    with atomic_path(path, durable=False) as temporary:
        write_channels(temporary, shape, np.float16, channels)


@contextmanager
def probability_map_writer(path: Path, num_threads: int = 1) -> Iterator[PlaneWriter]:
    """Write the same file plane by plane; it comes into being when the block ends without an error."""
    with atomic_path(path, durable=False) as temporary:
        yield PlaneWriter(temporary, np.float16, num_threads=num_threads)


@contextmanager
def passing_map_writer(folder: Path, num_threads: int = 1) -> Iterator[PlaneWriter]:
    """Write probabilities plane by plane in float32, which are gone when the block ends.

    `CASE.npz` and the labels of ensembles are made of them, so that no digit is lost.

    Args:
        folder: Where, if they do not fit into `IN_MEMORY_BYTES`; it is then made.
        num_threads: Threads that compress.
    """
    file = folder / temporary_name(f"{secrets.token_hex(4)}.b2nd")
    with writing(folder, file):  # the user knows the folder
        yield PlaneWriter(file, np.float32, in_memory_bytes=IN_MEMORY_BYTES, num_threads=num_threads)


def open_probability_map(path: Path) -> StoredArray:
    """Open the probabilities (K, D, H, W) of a case in float16, to read parts of them.

    Raises:
        RecordError: Here or on reading, if the file is missing or damaged.
    """
    return StoredArray(path, f"delete {path} and run find_best_configuration, or the import, again")
