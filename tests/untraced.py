"""Plans whose memory is reckoned instead of traced, for tests of what is decided, said and done beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import pytest

from seg25d.planning import search
from seg25d.planning.memory import MemoryUse
from seg25d.planning.search import Fit, Limits


@contextmanager
def untraced() -> Iterator[None]:
    """Every network takes 100 bytes for a voxel while this lasts, so that torch's compiler is not loaded either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_trace", _reckoned)
        yield


def _reckoned(item: Any, batch_size: int, limits: Limits, position: int) -> Fit:
    del limits
    representation, window, network = item
    used = 100 * batch_size * prod(window)
    memory = MemoryUse(parameters=0, gradients=0, optimizer=0, activations=used, num_parameters=0)
    values = {"representation": representation, "window": window, "network": network, "position": position}
    return Fit(**values, batch_size=batch_size, memory=memory)
