"""Damage of zip files, and of what lies in them, as an error that names the file."""

import errno
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from seg25d.core.errors import InputError

_DAMAGED = (
    *(BadZipFile, EOFError, NotImplementedError, OverflowError, RecursionError, ValueError),
    *(struct.error, zlib.error),
)
"""What zip files raise that are damaged, and JSON files in them."""


@contextmanager
def damage_told(tell: Callable[[Exception], InputError], *further: type[Exception]) -> Iterator[None]:
    """Read a zip file in this block; errors of the disk are raised unchanged.

    Args:
        tell: The error for a file that is damaged, given what was raised.
        further: What else is raised for damage by what the block reads.

    Raises:
        InputError: What `tell` gives.
    """
    told: tuple[type[Exception], ...] = (*_DAMAGED, *further, OSError)
    try:
        yield
    except told as error:
        # EINVAL: an entry's position is outside the file.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise tell(error) from None
