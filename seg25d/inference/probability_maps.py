"""Files of probabilities of validation cases, from which ensembles are made, also of other programs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import StoredArray, write_array


def write_probability_map(path: Path, probabilities: NDArray[np.floating[Any]]) -> None:
    """Write the probabilities of a case in float16, which takes half of the space and has a step of 0.0005 below 1.

    Args:
        path: `CASE.b2nd`.
        probabilities: (K, D, H, W) on the canonical grid of the file: per class (they add up to 1) or per region.
    """
    write_array(path, probabilities.astype(np.float16, copy=False))


def open_probability_map(path: Path) -> StoredArray:
    """Open the probabilities (K, D, H, W) of a case in float16, to read parts of them.

    Raises:
        RecordError: Here or on reading, if the file is missing or damaged.
    """
    return StoredArray(path, f"delete {path} and run find_best_configuration, or the import, again")
