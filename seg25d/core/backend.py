"""What prediction asks of arrays beyond what numpy and torch have in common, so that one code serves both.

Arrays of both libraries are sliced, added, multiplied and compared alike. What differs has a method here for numpy,
which computes on CPUs where torch is not installed, and the same method in `torch_backend.py` for torch, which computes
wherever its models do. `backend_of` finds the one that an array belongs to.

Letters: K scores, h w an image, n planes.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg25d.core.parallel import available_cores

Array: TypeAlias = Any
"""An array of numpy or of torch."""
FindPositions: TypeAlias = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]
"""From sizes before and after to the old pixels around each new one's centre, and how far it is from the first."""


class Device(Protocol):
    """Where arrays are: torch's device, or `HOST`."""

    @property
    def type(self) -> str:
        """`cpu`, `cuda` or `mps`."""


@dataclass(frozen=True)
class Host:
    """The CPU, where numpy's arrays are."""

    type: str = "cpu"

    def __str__(self) -> str:
        """As torch calls it."""
        return self.type


HOST = Host()


class Backend:
    """Numpy's way; `TorchBackend` has the same methods."""

    cpu: Device = HOST
    """The device of arrays that are in the memory of this process."""

    def from_numpy(self, values: NDArray[Any], device: Device = HOST) -> Array:
        """An array of this library, which shares the memory on CPUs."""
        del device
        return values

    def to_numpy(self, values: Array) -> NDArray[Any]:
        """An array of numpy's, which shares the memory on CPUs."""
        array: NDArray[Any] = values
        return array

    def device(self, values: Array) -> Device:
        """Where an array is."""
        del values
        return HOST

    def device_of(self, model: Any) -> Device:
        """Where a model computes."""
        del model
        return HOST

    def num_parameters(self, model: Any) -> int:
        """How many weights a model has."""
        number: int = model.num_parameters
        return number

    def moved(self, values: Array, device: Device) -> Array:
        """The array on a device; the same where it is there."""
        del device
        return values

    def send(self, values: Array, device: Device) -> Array:
        """The same, without waiting for what the device does meanwhile."""
        del device
        return values

    def float32(self, values: Array) -> Array:
        """The array in float32; the same if it is."""
        return values.astype(np.float32, copy=False)

    def half(self, values: Array) -> Array:
        """The array in float16; the same if it is."""
        return values.astype(np.float16, copy=False)

    def is_float32(self, values: Array, device: Device) -> bool:
        """Whether an array is in float32 and on a device."""
        del device
        return bool(values.dtype == np.float32)

    def are_alike(self, first: Array, second: Array) -> bool:
        """Whether arrays have one type and one device."""
        return bool(first.dtype == second.dtype)

    def empty(self, shape: Sequence[int], dtype: str = "float32", device: Device = HOST) -> Array:
        """A new array with any content."""
        del device
        return np.empty(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: str = "float32", device: Device = HOST) -> Array:
        """A new array of zeros."""
        del device
        return np.zeros(shape, dtype)

    def copy(self, values: Array) -> Array:
        """A copy."""
        return values.copy()

    def write(self, target: NDArray[Any], values: Array) -> None:
        """Copy an array, wherever it is, into one of numpy's, which decides about the type."""
        target[...] = values

    def stack(self, arrays: Sequence[Array]) -> Array:
        """Arrays of one shape along a new first axis."""
        return np.stack(arrays)

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """Arrays one after the other along an axis."""
        return np.concatenate(arrays, axis)

    def flip(self, values: Array, axes: Sequence[int]) -> Array:
        """The array, mirrored along axes."""
        return np.flip(values, tuple(axes))

    def pad(self, values: Array, before: Sequence[int], after: Sequence[int]) -> Array:
        """Put so many zeros around an array (C, D, H, W), along D, H and W."""
        return np.pad(values, [(0, 0), *zip(before, after, strict=True)])

    def between(
        self, values: Array, axis: int, low: NDArray[np.int64], high: NDArray[np.int64], fraction: NDArray[np.float64]
    ) -> Array:
        """Interpolate images (K, h, w) along an axis, 1 or 2: between rows `low` and `high`, at `fraction`."""
        chosen = np.take(values, low, axis)
        if fraction.any():
            further = np.take(values, high, axis)
            further -= chosen
            further *= fraction.astype(values.dtype).reshape(-1, *(1,) * (2 - axis))
            chosen += further
        return chosen

    def lowest(self, values: Array) -> Array:
        """The lowest value of each channel of (C, D, H, W) as (C, 1, 1, 1)."""
        return values.min((1, 2, 3), keepdims=True)

    def highest(self, values: Array) -> Array:
        """The highest values along the first axis."""
        return values.max(0)

    def add_scaled(self, total: Array, part: Array, share: float) -> None:
        """Add `part` times a number to `total`, in its place."""
        total += part * np.float32(share)

    def add_product(self, total: Array, part: Array, weight: Array) -> None:
        """Add `part` times `weight` to `total`, in its place; both are like `total`."""
        total += part * weight

    def add_converted(self, total: Array, part: Array) -> None:
        """Add `part` to `total`, which may have another type and be elsewhere, in its place."""
        total += part.astype(total.dtype)

    def lerp(self, first: Array, second: Array, share: float, out: Array | None = None) -> Array:
        """Interpolate between arrays: `share` 0 is the first, 1 the second; in the memory of `out`, if given."""
        between = np.subtract(second, first, out=out)
        between *= np.float32(share)
        between += first
        return between

    def interpolate(
        self, scores: Array, shape: Sequence[int], positions: FindPositions, out: Array | None = None
    ) -> Array:
        """Images (K, h, w) of another size, bilinear; in the memory of `out`, if given.

        `positions` says where new pixels lie on the old ones.
        """
        for axis, size in enumerate(shape, 1):
            if scores.shape[axis] != size:
                scores = self.between(scores, axis, *positions(scores.shape[axis], size))
        if out is None:
            return scores
        out[...] = scores
        return out

    def sigmoid(self, scores: Array, out: Array | None = None) -> Array:
        """1 / (1 + exp(-scores))."""
        with np.errstate(over="ignore"):  # exp is infinite then, and the result 0
            powers = np.exp(np.negative(scores, out=out), out=out)
        powers += 1
        return np.reciprocal(powers, out=powers)

    def softmax(self, scores: Array) -> Array:
        """Softmax along the first axis."""
        return self.quick_softmax(scores, None)

    def quick_softmax(self, scores: Array, out: Array | None) -> Array:
        """The same up to rounding, in the memory of `out`, if that is given."""
        powers = np.subtract(scores, scores.max(0), out=out)
        np.exp(powers, out=powers)
        powers /= powers.sum(0)
        return powers

    def is_finite(self, planes: Array) -> bool:
        """Whether all numbers of planes (n, ...) are finite."""
        # A sum tells it in one pass, unless numbers are so large that it is infinite itself.
        with np.errstate(over="ignore", invalid="ignore"):
            return all(np.isfinite(plane.sum(dtype=np.float32)) or np.isfinite(plane).all() for plane in planes)

    def no_gradients(self) -> AbstractContextManager[object]:
        """The context of work that nothing is differentiated by."""
        return nullcontext()


NUMPY = Backend()


def backend_of(values: Array) -> Backend:
    """The library of an array."""
    if isinstance(values, np.ndarray):
        return NUMPY
    from seg25d.core.torch_backend import TORCH  # noqa: PLC0415 - loads torch

    return TORCH


def backend_at(device: Device) -> Backend:
    """The library whose device it is."""
    if isinstance(device, Host):
        return NUMPY
    from seg25d.core.torch_backend import TORCH  # noqa: PLC0415 - loads torch

    return TORCH


def cpu_like(device: Device) -> Device:
    """The CPU as the library of a device calls it."""
    return device if device.type == "cpu" else type(device)("cpu")  # type: ignore[call-arg] # torch's has a name, too


def move_axis(values: Array, source: int, target: int) -> Array:
    """A view of an array with an axis at another place, the others in their order."""
    step = 1 if target > source else -1
    for place in range(source, target, step):
        values = values.swapaxes(place, place + step)
    return values


def split(values: Array, size: int, axis: int = 0) -> list[Array]:
    """Views of an array, so many along an axis in each, the rest in the last."""
    before = (slice(None),) * axis
    return [values[(*before, slice(first, first + size))] for first in range(0, values.shape[axis], size)]


def num_threads() -> int:
    """Threads of one computation: torch's where it is loaded, else OMP_NUM_THREADS, as it has them, or one per core."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else available_cores()
