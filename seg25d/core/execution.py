"""How models compute: what prediction asks of it, with torch (`device.Execution`) and without."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import HOST, Array, Device


class AnyExecution(Protocol):
    """A device, and how models compute there."""

    @property
    def device(self) -> Device:
        """Where they compute."""

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which they compute."""

    def ready(self, models: Sequence[Any]) -> list[Any]:
        """The models, ready to predict on the device."""

    def array(self, values: NDArray[np.float32]) -> Array:
        """An array on the CPU, of the library that the models take."""

    def lacks_memory(self, error: RuntimeError) -> bool:
        """Whether an operation failed for lack of memory on the device, so that less at a time may help."""

    def give_freed_memory_back(self) -> None:
        """Return memory that was kept for work that is finished."""


@dataclass(frozen=True)
class HostExecution:
    """Functions of numpy's arrays on the CPU, such as graphs without torch."""

    device: Device = HOST

    def autocast(self) -> AbstractContextManager[object]:
        """Nothing is changed."""
        return nullcontext()

    def ready(self, models: Sequence[Any]) -> list[Any]:
        """As they are."""
        return list(models)

    def array(self, values: NDArray[np.float32]) -> Array:
        """As it is."""
        return values

    def lacks_memory(self, error: RuntimeError) -> bool:
        """Never: where the memory of a CPU runs out, smaller batches hardly help, as they are small already."""
        del error
        return False

    def give_freed_memory_back(self) -> None:
        """Numpy keeps none."""
