"""Checks of weights that come from a file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seg25d.core.errors import ModelError

KNOWN_TYPES = frozenset(
    (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
)


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Check that all weights are numbers; one pass over them, in which a sum says what a look at each would.

    Args:
        path: Their file, for the message.
        weights: By name.

    Raises:
        ModelError: If some are NaN or infinite; names the file and the first of them.
    """
    for name, weight in weights.items():
        if weight.dtype not in KNOWN_TYPES:
            raise ModelError(f"{path}: the weights {name} are of the type {weight.dtype}, which no model of seg25d has")
        # A sum of large numbers may be infinite, too.
        if not torch.isfinite(weight.sum(dtype=torch.float64)) and not torch.isfinite(weight).all():
            raise ModelError(
                f"{path}: the weights {name} are NaN or infinite, with which nothing can be predicted; copy the file "
                "again, or, if it is as it was trained, train it again with a lower learning rate"
            )
