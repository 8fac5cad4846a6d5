"""Splitting a 4D NIfTI file into its channels without decoding voxels; only the number of axes changes."""

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seg25d.core.files import atomic_path
from seg25d.data.image_bytes import open_maybe_compressed, truncated
from seg25d.data.image_headers import check_header, missing_bytes
from seg25d.data.image_nifti import read_nifti_header
from seg25d.data.problems import FileError

_SHORTEST_OFFSET = 352
"""Header and the four bytes that announce extensions (nifti1.h)."""
_DIMENSIONS = 40
_CHUNK = 1 << 20


def check_channels(path: Path, ending: str, num_channels: int) -> None:
    """Check that a NIfTI file is complete and has `num_channels` channels along its fourth axis.

    With one channel, the fourth axis may be missing.


    Raises:
        ImageError: If not.
    """
    check_header(path, ending)
    header = read_nifti_header(path)
    assert header is not None, f"{path} passed check_header"
    sizes = header.dimensions
    found = sizes[3] if len(sizes) > 3 else 1
    if len(sizes) < 3 or found != num_channels or any(size > 1 for size in sizes[4:]):
        shape = " x ".join(map(str, sizes))
        problem = f"the file is {shape}, expected is a volume with {num_channels} channel(s) along the fourth axis"
        raise FileError(path, problem, "correct `modality` in dataset.json or the file")
    if missing := missing_bytes(path, ending):
        raise truncated(path, missing)


def split_channels(source: Path, targets: Sequence[Path]) -> None:
    """Write each channel of a 4D NIfTI file to a separate file; the bytes of header and voxels are kept.

    NIfTI files store one channel after the other, so only a chunk is held in memory at a time.

    Args:
        source: A file that passed `check_channels`.
        targets: One file per channel; each is either complete or absent afterwards.

    Raises:
        ImageError: If the data are truncated or damaged.
    """
    header = read_nifti_header(source)
    assert header is not None, f"{source} was checked"
    offset = max(header.data_offset, _SHORTEST_OFFSET)
    with open_maybe_compressed(source) as stream:
        start = bytearray(stream.read(offset))
        struct.pack_into(f"{header.order}8h", start, _DIMENSIONS, 3, *header.dimensions[:3], 1, 1, 1, 1)
        length = (header.num_bytes - header.data_offset) // len(targets)
        for target in targets:
            with atomic_path(target) as temporary, _open_for_writing(temporary) as file:
                file.write(start)
                try:
                    _copy(stream, file, length)
                except (EOFError, gzip.BadGzipFile, zlib.error):
                    raise FileError(source, "its data are damaged", "download or export it again") from None


@contextmanager
def _open_for_writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed if the name ends in `.gz`; the bytes written depend only on the content."""
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as stream:
            yield stream  # type: ignore[misc]


def _copy(source: IO[bytes] | gzip.GzipFile, target: IO[bytes], length: int) -> None:
    while length > 0:
        chunk = source.read(min(_CHUNK, length))
        if not chunk:
            raise EOFError
        target.write(chunk)
        length -= len(chunk)
