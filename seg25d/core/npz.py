"""Arrays in `.npz` files as numpy writes them, which are written and read in pieces, in the order of their numbers."""

import math
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES, SAMPLE_BYTES = 1 << 18, 1 << 14
"""What a thread compresses at a time, and what of it is tried."""
GAIN = 0.8
"""Repeated bytes are looked for where this leaves so little of the size: probabilities in float32 hardly have any but
runs of zeros. Made-up scores of 61 classes that are noisy, smooth, or smooth and sure: 19, 31 and 11 s a GiB and 0.95,
0.84 and 0.68 of the size; zlib alone, as numpy calls it: 45, 38 and 37 s, and 0.95, 0.84 and 0.61."""
BLOCK_BYTES = 1 << 23
"""Of what is read at a time: whole planes (at least one), as float32."""


@contextmanager
def npz_writer(
    path: Path, name: str, shape: Sequence[int], num_threads: int = 1
) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Write a compressed file with one float32 array.

    Args:
        path: The file, which is written in place: use `atomic_path`.
        name: Name of the array.
        shape: Its shape.
        num_threads: Threads that compress.

    Yields:
        Function that writes the next numbers, in C order.

    Raises:
        ValueError: If the numbers are not as many as the shape says.
    """
    compressor = _Deflate(num_threads)
    written = 0
    with (
        compressor,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        # zipfile has no setting for it. Where it has no such attribute one day, it compresses as it likes.
        member._compressor = compressor  # type: ignore[attr-defined]
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(member, header)

        def write(numbers: NDArray[np.float32]) -> None:
            nonlocal written
            written += numbers.size
            member.write(np.ascontiguousarray(numbers, "<f4").data.cast("B"))

        yield write
        if written != math.prod(shape):
            raise ValueError(f"expected {math.prod(shape)} numbers for an array {tuple(shape)}; got {written}")


class _Deflate:
    """A compressor with the methods of zlib's (RFC 1951), of pieces that are compressed at the same time."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads)
        self._waiting: deque[Future[bytes]] = deque()

    def compress(self, content: "bytes | memoryview") -> bytes:
        """Take some bytes; returns what is compressed by now."""
        done = []
        for start in range(0, len(content), PIECE_BYTES):
            piece = bytes(content[start : start + PIECE_BYTES])
            self._waiting.append(self._pool.submit(_deflate, piece))
            if len(self._waiting) > 2 * self.num_threads:
                done.append(self._waiting.popleft().result())
        return b"".join(done)

    def flush(self) -> bytes:
        """What is left, and the end."""
        done = [each.result() for each in self._waiting]
        self._waiting.clear()
        return b"".join((*done, zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def _deflate(piece: bytes) -> bytes:
    """Compress a piece; it ends at a whole byte and is not the last one."""
    middle = len(piece) // 2
    sample = piece[middle : middle + SAMPLE_BYTES]
    searches = len(_compressed(sample, level=1)) < GAIN * len(_compressed(sample, strategy=zlib.Z_RLE))
    return _compressed(piece, level=1) if searches else _compressed(piece, strategy=zlib.Z_RLE)


def _compressed(content: bytes, level: int = -1, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    compressor = zlib.compressobj(level, wbits=-zlib.MAX_WBITS, strategy=strategy)
    return compressor.compress(content) + compressor.flush(zlib.Z_SYNC_FLUSH)


class NpyReader:
    """An array (K, D, H, W) in an open `.npz` file, of which one channel after the other is read.

    One in Fortran's order, as numpy writes single transposed volumes, is read as a whole.

    Args:
        archive: The file.
        name: Name of the array.

    Raises:
        KeyError: If there is no such array.
        ValueError: If it is none, or is not as large as it says.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        member = f"{name}.npy"
        self._file: IO[bytes] = archive.open(member)
        first = np.lib.format.read_magic(self._file) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        self.shape: tuple[int, ...]
        self.dtype: np.dtype[Any]
        self.shape, self.fortran_order, self.dtype = read_header(self._file)
        size = archive.getinfo(member).file_size - self._file.tell()
        if self.dtype.hasobject or min(self.shape, default=0) < 0 or self._bytes(self.shape) != size:
            raise ValueError(f"shape {self.shape} of {self.dtype} in {size} bytes")
        self._next = 0

    def close(self) -> None:
        """Close it; the file stays open."""
        self._file.close()

    def planes(self, channel: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read a channel: the index of the first plane and some planes (n, H, W) at a time, of `BLOCK_BYTES`.

        Channels are read in ascending order; those between are skipped.

        Raises:
            EOFError: If the file ends before.
            zipfile.BadZipFile: If the content is damaged; told at its end.
        """
        assert channel >= self._next, "channels are read in order"
        while self._next <= channel:
            for each in self._planes():
                if self._next == channel:
                    yield each
            self._next += 1

    def _planes(self) -> Iterator[tuple[int, NDArray[Any]]]:
        depth, *plane = self.shape[1:]
        step = max(1, BLOCK_BYTES // max(1, 4 * math.prod(plane)))
        for start in range(0, depth, step):
            shape = (min(step, depth - start), *plane)
            if self.fortran_order:
                yield start, self._whole[self._next, start : start + step]
                continue
            content = self._file.read(self._bytes(shape))
            if len(content) < self._bytes(shape):
                raise EOFError("it ends too early")
            yield start, np.frombuffer(content, self.dtype).reshape(shape)

    @cached_property
    def _whole(self) -> NDArray[Any]:
        """All of an array whose channels are not one after the other."""
        return np.frombuffer(self._file.read(), self.dtype).reshape(self.shape, order="F")

    def _bytes(self, shape: Sequence[int]) -> int:
        return math.prod(shape) * self.dtype.itemsize
