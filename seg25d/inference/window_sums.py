"""Weighted sums of the scores of windows, over the planes that further windows may still overlap.

They are where the models are if they fit there, else on the CPU, in memory up to `PLANES_BYTES`, and in a temporary
file beyond that: with 61 classes and windows of 128 x 128 x 128, the open planes of 500 x 512 x 512 voxels take 4 GiB,
eight times the volume.

Letters: K scores, n planes, h w the plane's axes in the order (D, H, W).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, Device, backend_at, backend_of, cpu_like, move_axis
from seg25d.core.temporary_arrays import IN_MEMORY_BYTES, TemporaryArray, file_if_large
from seg25d.core.types import Shape
from seg25d.inference.scoring import SCORES_BYTES

PLANES_BYTES = IN_MEMORY_BYTES
"""Planes that would take more memory than this in float32 are kept in float16, and those that take more in float16 as
well, in a temporary file where they are not on a GPU. As weights sum to one, nothing overflows, and the rounding (one
part in 2000) hardly ever changes labels."""
TERM_BYTES = 16 << 20
"""Approximate size of the portions in which weighted scores are added."""
RESIDENT_BYTES = 128 << 20
"""Approximate size of the part of a temporary file that is in this process's memory."""


class WindowSums:
    """Weighted sums of scores over the current planes.

    Args:
        axis: Perpendicular to the planes (0 D, 1 H, 2 W).
        shape: (n, K, h, w): planes that are kept at a time, scores and voxels.
        weights: Of the windows' voxels by start, for each axis; see `sliding_window.axis_weights`.
        device: Where the models compute.
        on_cpu: Whether the sums stay on the CPU even if they fit on the device.

    Raises:
        InputError: If neither memory nor disk has room for them.
    """

    def __init__(
        self,
        axis: int,
        shape: tuple[int, int, int, int],
        weights: Sequence[dict[int, NDArray[np.float32]]],
        device: Device,
        *,
        on_cpu: bool,
    ) -> None:
        self.axis = axis
        self.first = 0
        self.backend = backend_at(device)
        self.window = [len(next(iter(along.values()))) for along in weights]
        self.weights = [
            {start: self.backend.from_numpy(each, device) for start, each in along.items()} for along in weights
        ]
        self.file: TemporaryArray | None = None
        dtype = "float32" if 4 * math.prod(shape) <= PLANES_BYTES else "float16"
        num_bytes = np.dtype(dtype).itemsize * math.prod(shape)
        place = cpu_like(device) if on_cpu else buffer_device(device, num_bytes)
        if place.type == "cpu":
            self.file = file_if_large(shape, dtype, PLANES_BYTES)
        self.planes: Array = (
            self.backend.zeros(shape, dtype, place)
            if self.file is None
            else self.backend.from_numpy(self.file.values, cpu_like(device))
        )
        """(n, K, h, w) in float32 or float16, from `first` on."""
        gathered_bytes = 4 * shape[1] * math.prod(self.window)
        self.gathers = place != device and not on_cpu and gathered_bytes <= SCORES_BYTES
        """Whether the mirrorings of a window are summed up on the device, which takes memory there, so that the CPU
        gets and adds one of up to eight."""
        self._start: Shape | None = None
        self._gathered: Array = None

    def add(self, start: Shape, mirror: Sequence[int], scores: Array, share: float, first: int = 0) -> None:
        """Add the scores of a window.

        Args:
            start: First voxel of the window along (D, H, W).
            mirror: Axes (0 D, 1 H, 2 W) along which it was mirrored.
            scores: (K, d, h, w) on the device of the models, or some of its planes along D.
            share: Of this pass in the average.
            first: Of those planes in the mirrored window.
        """
        if 0 in mirror:
            first = self.window[0] - first - scores.shape[1]
        if not self.gathers:
            self._add(start, mirror, scores, share, first)
            return
        backend = self.backend
        if start != self._start:
            self._add_gathered()
            self._start = start
            self._gathered = backend.zeros((len(scores), *self.window), device=backend.device(scores))
        gathered = self._gathered[:, first : first + scores.shape[1]]
        for portion, part in _portions(scores, mirror):
            backend.add_scaled(gathered[portion], part, share)

    def _add_gathered(self) -> None:
        if self._start is not None:
            with self.backend.no_gradients():
                self._add(self._start, (), self._gathered, 1.0, 0)
        self._start = None

    def _add(self, start: Shape, mirror: Sequence[int], scores: Array, share: float, first: int) -> None:
        backend = self.backend
        depth, height, width = (self.weights[axis][begin] for axis, begin in enumerate(start))
        weight = depth[first : first + scores.shape[1], None, None] * height[:, None] * width * share
        sums = self._region((start[0] + first, start[1], start[2]), scores.shape[1:])
        for portion, part in _portions(scores, mirror):
            if backend.are_alike(sums, part):
                backend.add_product(sums[portion], part, weight)
            else:
                backend.add_converted(sums[portion], part * weight)
            self._release()

    def finished(self, stop: int) -> Iterator[tuple[int, Array]]:
        """The planes before `stop` as the first one's place and planes; those in a file a few at a time."""
        self._add_gathered()
        portion = stop - self.first
        if self.file is not None:
            portion = max(1, RESIDENT_BYTES // self.planes[0].nbytes)
        for first in range(self.first, stop, portion):
            yield first, self.planes[first - self.first : min(first + portion, stop) - self.first]
            self._release()

    def advance(self, first: int) -> None:
        """Drop the planes before `first` and add as many new ones at the end."""
        shift = first - self.first
        with self.backend.no_gradients():
            for index, plane in enumerate(self.planes):
                plane[...] = self.planes[index + shift] if index + shift < len(self.planes) else 0
                self._release()
        self.first = first

    def _region(self, start: Shape, size: Sequence[int]) -> Array:
        """The sums (K, d, h, w) of a window."""
        places = [slice(begin, begin + number) for begin, number in zip(start, size, strict=True)]
        across = slice(start[self.axis] - self.first, start[self.axis] - self.first + size[self.axis])
        rows, columns = (places[axis] for axis in other_axes(self.axis))
        return move_axis(self.planes[across, :, rows, columns], 0, 1 + self.axis)

    def _release(self) -> None:
        if self.file is not None:
            self.file.release()


def _portions(scores: Array, mirror: Sequence[int]) -> Iterator[tuple[slice, Array]]:
    """Scores (K, d, h, w) in float32 as they were before mirroring, a few classes at a time."""
    backend = backend_of(scores)
    size = max(1, TERM_BYTES // (4 * math.prod(scores.shape[1:])))
    mirrored_axes = [1 + axis for axis in mirror]
    for first in range(0, len(scores), size):
        part = backend.float32(scores[first : first + size])
        yield slice(first, first + size), backend.flip(part, mirrored_axes) if mirrored_axes else part


def other_axes(axis: int) -> tuple[int, ...]:
    """The two other axes, in ascending order."""
    return tuple(other for other in range(3) if other != axis)


def buffer_device(device: Device, num_bytes: int, share: float = 0.5) -> Device:
    """The models' device, if so many bytes take at most a share of its free memory, else the CPU."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415 - only where there is a GPU

        from seg25d.core.device import free_gpu_memory_bytes  # noqa: PLC0415 - loads torch

        assert isinstance(device, torch.device), "numpy knows no GPU"
        if num_bytes <= free_gpu_memory_bytes(device) * share:
            return device
    return cpu_like(device)
