"""Files of probabilities for tests, written at once."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.inference.probability_maps import write_probability_channels


def write_probability_map(path: Path, probabilities: NDArray[np.floating[Any]]) -> None:
    """Write (K, D, H, W) to `CASE.b2nd`."""
    write_probability_channels(path, probabilities.shape, probabilities)
