"""Comparison of what an array needs with the memory that is free, before any is taken."""

import math
from collections.abc import Sequence

from seg25d.core.parallel import available_memory_bytes

_GB = 2**30


def lack_of_memory(shape: Sequence[int], bytes_per_voxel: float, extra_bytes: int = 0) -> str | None:
    """Say that a grid needs more memory than is free.

    Args:
        shape: Voxels along the axes.
        bytes_per_voxel: That all arrays take together which are there at one time.
        extra_bytes: Beside them.

    Returns:
        What is asked for, what is free and what would fit; None if there is enough.
    """
    wanted = math.prod(shape) * bytes_per_voxel + extra_bytes
    if wanted <= (free := available_memory_bytes()):
        return None
    share = (free / wanted) ** (1 / len(shape))
    fitting = " x ".join(str(max(1, int(size * share))) for size in shape)
    return f"{' x '.join(map(str, shape))} numbers take {needed_and_free(wanted, free)}: {fitting} would fit"


def needed_and_free(needed: float, free: float) -> str:
    """Bytes that are needed and that are free, as the end of a clause that something "takes" them."""
    return f"{needed / _GB:,.1f} GB of memory, {free / _GB:,.1f} GB are free"
