"""Arrays on disk: compressed, in chunks, so that any window can be read without the rest."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.system_errors import refusal_to_read

CHUNK = (32, 64, 64)
"""Voxels of a chunk along (D, H, W): 512 KiB of float32. Reading a window of this size out of 32 x 512 x 512 takes
0.3 ms, against 1.3 ms with one chunk per volume (measured, LZ4, one core)."""

_HEADER_BYTES = 512
_FRAME = re.compile(
    rb"\x9e\xa8b2frame\x00\xd2.{4}\xcf(?P<size>.{8})\xa4.{4}\xd3.{8}\xd3.{8}\xd2.{4}\xd2.{4}\xd2.{4}\xd1..\xd1..\xc2"
    rb"\xd8\x06.{16}"
    rb"\x93\xcd\x00\x11\xde\x00\x01\xa4b2nd\xd2.{4}\xdc\x00\x01\xc6.{4}\x97\x00[\x01-\x08]"
    rb"[\x91-\x98](\xd3.{8})+[\x91-\x98](\xd2.{4})+[\x91-\x98](\xd2.{4})+\x00\xdb.{4}[<|][fiub][1248]",
    re.DOTALL,
)
"""Header of a frame without variable-length metalayers (`c2`: false), whose only metalayer is that of the shape."""


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


def damaged(path: Path, cure: str, error: Exception) -> InputError:
    """The error for a file that is missing or cannot be read."""
    if reason := refusal_to_read(error, path):
        return reason
    state = f"is damaged ({error})" if path.exists() else "is missing"
    return RecordError(f"{path} {state}; {cure}")
