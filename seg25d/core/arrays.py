"""Arrays on disk: compressed, in chunks, so that any window can be read without the rest."""

import itertools
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, backend_of
from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.system_errors import refusal_to_read
from seg25d.core.types import BoundingBox, FloatArray

logger = logging.getLogger(__name__)
CHUNK = (32, 64, 64)
"""Voxels of a chunk along (D, H, W): 512 KiB of float32. Reading a window of this size out of 32 x 512 x 512 takes
0.3 ms, against 1.3 ms with one chunk per volume (measured, LZ4, one core)."""
BUFFER_BYTES = 1 << 27
"""Of planes that wait until they fill chunks: four planes of 61 classes x 512 x 512 in float16."""
GROUP_BYTES = 1 << 21
"""Of a chunk of planes, which may hold several channels, each in a block of its own. The index of a file is written
again with every chunk: 61 x 32 x 256 x 512 numbers took 8.0 s a GiB in chunks of 64 KiB, 0.9 s in chunks of 2 MiB."""
PART_BYTES = 1 << 26
"""Of a part of an array, in float32: several of them, and copies, are in memory together."""

_HEADER_BYTES = 512
_FRAME = re.compile(
    rb"\x9e\xa8b2frame\x00\xd2.{4}\xcf(?P<size>.{8})\xa4.{4}\xd3.{8}\xd3.{8}\xd2.{4}\xd2.{4}\xd2.{4}\xd1..\xd1..\xc2"
    rb"\xd8\x06.{16}"
    rb"\x93\xcd\x00\x11\xde\x00\x01\xa4b2nd\xd2.{4}\xdc\x00\x01\xc6.{4}\x97\x00[\x01-\x08]"
    rb"[\x91-\x98](\xd3.{8})+[\x91-\x98](\xd2.{4})+[\x91-\x98](\xd2.{4})+\x00\xdb.{4}[<|][fiub][1248]",
    re.DOTALL,
)
"""Header of a frame without variable-length metalayers (`c2`: false), whose only metalayer is that of the shape."""


class Windows(Protocol):
    """An array of which windows are read: in memory, on disk, or computed when it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers along each axis."""

    def __getitem__(self, key: Any) -> FloatArray:
        """A window."""


class StoredArray:
    """An array on disk of which any window can be read: `array[:, 3:19, 0:64, 0:64]`.

    Args:
        path: A `.b2nd` file.
        cure: What to do if it is missing or damaged, for the message.

    Raises:
        RecordError: Also on reading: if the file is missing or damaged.
        InputError: Also on reading: if the system refuses to read it.
    """

    def __init__(self, path: Path, cure: str) -> None:
        import blosc2  # noqa: PLC0415 - heavy

        self.path = path
        self.cure = cure
        try:
            _check_frame(path)
            self._array: Any = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            self.shape: tuple[int, ...] = tuple(self._array.shape)
            self.dtype: np.dtype[Any] = self._array.dtype
        except Exception as error:  # blosc2 raises whatever comes to it: SyntaxError, MemoryError, UnicodeDecodeError
            raise damaged(path, cure, error) from None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            window: NDArray[Any] = self._array[key]
        except Exception as error:
            raise damaged(self.path, self.cure, error) from None
        return window


def _check_frame(path: Path) -> None:
    """Check that a file says of itself what `write_array` writes: an array of numbers, and nothing beside it.

    A frame may also hold expressions and functions to compute its values with, which some versions of blosc2 run when
    the file is opened. The layout is that of c-blosc2's README_CFRAME_FORMAT.rst and README_B2ND_METALAYER.rst.

    Raises:
        ValueError: If not; says why.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        size = file.seek(0, os.SEEK_END)
    frame = _FRAME.match(head)
    if frame is None:
        raise ValueError("it is no array of numbers as seg25d writes them")
    if int.from_bytes(frame["size"]) != size:
        raise ValueError(f"it has {size} bytes and says {int.from_bytes(frame['size'])}")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array (..., D, H, W) to a `.b2nd` file, which is complete or absent, as long as there is power."""
    import blosc2  # noqa: PLC0415 - heavy

    channels = array.shape[:-3]
    volume: Sequence[int] = array.shape[-3:]
    # Chunks hold one channel, as channels may be read apart, and never reach beyond the volume.
    chunks = (*(1 for _ in channels), *(min(size, limit) for size, limit in zip(volume, CHUNK, strict=True)))
    settings = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, typesize=array.itemsize, nthreads=1)
    # To flush every array would take more than twice the time of small cases; reading tells if one is damaged.
    with atomic_path(path, durable=False) as temporary:
        # Without contiguous storage the urlpath would become a folder.
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            mode="w",
            chunks=chunks,
            cparams=settings,
            contiguous=True,
        )


class PlaneWriter:
    """Writes an array (K, D, H, W) to a `.b2nd` file plane by plane across any axis, in order.

    Planes wait in memory until they are as many as a chunk has, `BUFFER_BYTES` of them at the most (or one).

    Args:
        path: The file, which is written in place: use `atomic_path`.
        dtype: `float16` or `float32`.
        in_memory_bytes: Arrays that take no more than this are kept in memory, and no file is written.
        num_threads: Threads that compress.
    """

    def __init__(
        self, path: Path, dtype: type[np.float16 | np.float32], *, in_memory_bytes: int = 0, num_threads: int = 1
    ) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.in_memory_bytes = in_memory_bytes
        self.num_threads = num_threads

    def begin(self, shape: Sequence[int], axis: int, box: BoundingBox, fill: Sequence[float]) -> None:
        """Begin, or begin again with an empty file.

        Args:
            shape: (K, D, H, W).
            axis: 0 (D), 1 (H) or 2 (W), across which the planes lie.
            box: Half-open ranges along (D, H, W) that are written; all else has the values `fill`.
            fill: One value per channel.
        """
        self._axis, self._box, self._start = axis, box, 0
        self._size = shape[1 + axis]
        block = _plane_block(shape, axis, self.dtype.itemsize)
        group = max(1, min(shape[0], GROUP_BYTES // (math.prod(block) * self.dtype.itemsize)))
        num_bytes = math.prod(shape) * self.dtype.itemsize
        in_memory = num_bytes <= self.in_memory_bytes
        place = None if in_memory else self.path
        self.array = _empty(place, shape, self.dtype, ((group, *block), (1, *block)), self.num_threads)
        """What is written; to be read when it is finished."""
        if not in_memory:
            _warn_of_little_room(self.path.parent, num_bytes)
        buffer = list(shape)
        buffer[1 + axis] = block[axis]
        self._fill = np.array(fill, self.dtype).reshape(-1, 1, 1, 1)
        self._buffer = np.empty(buffer, self.dtype)
        self._buffer[...] = self._fill

    def add(self, index: int, plane: Array) -> None:
        """Add a plane (K, h, w) of the box, on any device; `index` counts from the start of the box."""
        place = self._box[self._axis][0] + index
        while place >= self._start + self._buffer.shape[1 + self._axis]:
            self._flush()
        rows, columns = (slice(*each) for axis, each in enumerate(self._box) if axis != self._axis)
        waiting = np.moveaxis(self._buffer, 1 + self._axis, 0)[place - self._start]
        backend_of(plane).write(waiting[:, rows, columns], plane)

    def finish(self) -> None:
        """Write what is left; `array` is then complete."""
        while self._start < self._size:
            self._flush()
        del self._buffer

    def _flush(self) -> None:
        stop = min(self._start + self._buffer.shape[1 + self._axis], self._size)
        before = (slice(None),) * (1 + self._axis)
        planes = self._buffer[(*before, slice(stop - self._start))]
        self.array[(*before, slice(self._start, stop))] = np.ascontiguousarray(planes)
        self._buffer[...] = self._fill
        self._start = stop


def _warn_of_little_room(folder: Path, num_bytes: int) -> None:
    """Say it before hours are spent; no error, as probabilities of trained networks compress well."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        logger.warning(
            "%s has %.1f GB left, and probabilities take up to %.1f GB, less as far as they can be compressed; make "
            "room if the disk gets full",
            folder,
            free / 2**30,
            num_bytes / 2**30,
        )


def write_channels(path: Path, shape: Sequence[int], dtype: Any, channels: Iterable[NDArray[Any]]) -> None:
    """Write an array (K, D, H, W) to a `.b2nd` file, one channel (D, H, W) after the other.

    The file is written in place: use `atomic_path`.
    """
    block = [min(size, limit) for size, limit in zip(shape[1:], CHUNK, strict=True)]
    chunk = [min(size, limit * times) for size, limit, times in zip(shape[1:], CHUNK, (1, 2, 4), strict=True)]
    array = _empty(path, shape, np.dtype(dtype), ((1, *chunk), (1, *block)))
    for number, channel in enumerate(channels):
        array[number] = np.ascontiguousarray(channel)


def _empty(
    path: Path | None,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    layout: tuple[tuple[int, ...], tuple[int, ...]],
    num_threads: int = 1,
) -> Any:
    """A new array for probabilities, in memory without a path; `layout`: what chunks and their blocks hold."""
    import blosc2  # noqa: PLC0415 - heavy

    settings = blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, typesize=dtype.itemsize, nthreads=num_threads)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    return blosc2.empty(
        tuple(shape),
        dtype=dtype,
        chunks=layout[0],
        blocks=layout[1],
        cparams=settings,
        dparams={"nthreads": 1},
        contiguous=True,
        **({} if path is None else {"urlpath": str(path), "mode": "w"}),
    )


def _plane_block(shape: Sequence[int], axis: int, itemsize: int) -> tuple[int, int, int]:
    """Voxels of a block: as of `CHUNK`, but with no more planes across an axis than the memory holds.

    It divides `CHUNK`, so that parts of whole chunks are parts of whole blocks, too.
    """
    block = [min(size, limit) for size, limit in zip(shape[1:], CHUNK, strict=True)]
    thickness = CHUNK[axis]
    while thickness > 1 and thickness * math.prod(shape) // shape[1 + axis] * itemsize > BUFFER_BYTES:
        thickness //= 2
    block[axis] = min(block[axis], thickness)
    return block[0], block[1], block[2]


def array_parts(shape: Sequence[int]) -> Iterator[tuple[slice, slice, slice]]:
    """Cut an array (K, D, H, W) into parts of whole chunks: slices along (D, H, W), in order.

    A part has all channels and, if `PART_BYTES` suffice, all of W.
    """
    of_a_chunk = 4 * shape[0] * math.prod(CHUNK)
    steps = (*CHUNK[:2], CHUNK[2] * max(1, PART_BYTES // of_a_chunk))
    starts = (range(0, size, step) for size, step in zip(shape[1:], steps, strict=True))
    for corner in itertools.product(*starts):
        depth, height, width = (slice(start, start + step) for start, step in zip(corner, steps, strict=True))
        yield depth, height, width


def damaged(path: Path, cure: str, error: Exception) -> InputError:
    """The error for a file that is missing or cannot be read."""
    if reason := refusal_to_read(error, path):
        return reason
    state = f"is damaged ({error})" if path.exists() else "is missing"
    return RecordError(f"{path} {state}; {cure}")
