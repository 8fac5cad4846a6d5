"""Export of scores on the model's grid to labels and probabilities on the canonical grid of the file, plane by plane.

Every plane across one axis is resampled in the plane, interpolated with its neighbour along the axis and converted to
labels immediately; at most three planes of scores exist at a time, and as many of probabilities that are written. The
convention is that of preprocessing/resample.py: linear between voxel centres, border values outside. Along an axis that
was resampled separately it is the nearest slice, or where the file has more slices than the model saw, a mixture of the
two that the model saw before and behind (preprocessing/positions.py).

Letters: K scores, D H W the canonical grid, d h w the model's grid, n planes of a slab.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import PlaneWriter
from seg25d.core.backend import Array, Device, backend_at, backend_of, move_axis, num_threads, split
from seg25d.core.grids import box_slices
from seg25d.core.types import BoundingBox
from seg25d.data.labels import Labels
from seg25d.inference.indices import indices_from_scores
from seg25d.inference.sliding_window import Slab
from seg25d.inference.uncertainty import Uncertainty, entropy
from seg25d.inference.window_sums import buffer_device, other_axes
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.positions import linear_positions, separate_positions

Result = TypeVar("Result")

PART_BYTES = 8 << 20
"""Approximate size of the part of a plane that is resampled at a time: 61 classes of 384 x 384 in float16 to 512 x 512
pixels take 39 ms in such parts on one core, and 88 ms at once, most of it for fresh memory."""
SCORES_PER_THREAD = 1 << 20
"""Fewest scores that a further thread is for: numpy turns them into labels in 0.4 ms."""
PLANES_WAITING = 2
"""Planes of probabilities that wait to be compressed, to limit the memory: one of 61 x 512 x 512 has 61 MiB."""


def labels_from_slabs(
    slabs: Iterable[Slab],
    grid: Grid,
    labels: Labels,
    threshold: float | None = None,
    uncertainty: Uncertainty | None = None,
) -> NDArray[np.uint8]:
    """Convert slabs of scores to labels.

    Args:
        slabs: Scores on the model's grid.
        grid: Grids of preprocessing.
        labels: Meaning of the scores.
        threshold: See `Labels.from_scores`.
        uncertainty: Collects what the probabilities say, if that is wanted.

    Returns:
        Internal indices (D, H, W) on the whole canonical grid; 0 outside the crop of preprocessing.
    """
    result: Array | None = None
    probabilities: Array | None = None
    box = box_slices(grid.bounding_box)
    if uncertainty is not None:
        uncertainty.begin(grid.canonical_shape)
    choose = partial(indices_from_scores, labels=labels, threshold=threshold)
    with ThreadPoolExecutor(num_threads()) as threads:
        for axis, index, scores in _resampled_planes(slabs, grid):
            if result is None:
                backend = backend_of(scores)
                result = _background(grid, backend.device(scores))
            chosen = backend.concatenate(_by_rows(threads, choose, scores))
            move_axis(result[box], axis, 0)[index] = chosen
            if uncertainty is not None:
                probabilities = _quick_probabilities(scores, labels, probabilities)
                _add_to(uncertainty, threads, (box, axis, index), backend.to_numpy(probabilities), chosen)
            del scores  # while the models compute the next ones
    assert result is not None, "there is at least one plane"
    # At once: each copy from a GPU waits for all that it was asked for.
    return backend.to_numpy(result)


def _by_rows(threads: ThreadPoolExecutor, function: Callable[[Array], Result], scores: Array) -> list[Result]:
    """Apply a function to rows of a plane (K, h, w), on a CPU in as many threads as torch has, as numpy uses one."""
    fewest = -(-scores.shape[1] // num_threads())
    rows = max(fewest, SCORES_PER_THREAD // (scores.shape[0] * scores.shape[2]))
    if backend_of(scores).device(scores).type != "cpu" or rows >= scores.shape[1]:
        return [function(scores)]
    return [*threads.map(function, split(scores, rows, 1))]


def _probabilities(scores: Array, labels: Labels) -> Array:
    """Of a plane (K, h, w): softmax over the classes, or a sigmoid per region."""
    backend = backend_of(scores)
    return backend.sigmoid(scores) if labels.has_regions else backend.softmax(scores)


def _quick_probabilities(scores: Array, labels: Labels, out: Array | None) -> Array:
    """The same up to rounding, in the memory of earlier ones."""
    backend = backend_of(scores)
    return backend.sigmoid(scores, out) if labels.has_regions else backend.quick_softmax(scores, out)


def export_slabs(
    slabs: Iterable[Slab],
    grid: Grid,
    labels: Labels,
    writers: Sequence[PlaneWriter] = (),
    threshold: float | Sequence[float] | None = None,
    uncertainty: Uncertainty | None = None,
) -> NDArray[np.uint8]:
    """Convert slabs of scores to labels, as `labels_from_slabs`, and write the probabilities.

    Outside the crop of preprocessing everything is background: probability 1 of the first class, or 0 of all regions.

    Args:
        slabs: Scores on the model's grid.
        grid: Grids of preprocessing.
        labels: Meaning of the scores.
        writers: Each gets the probabilities (K, D, H, W): softmax over the classes, or a sigmoid per region.
        threshold: See `Labels.from_scores`; or one per region, see `Labels.from_probabilities`.
        uncertainty: Collects what the probabilities say, if that is wanted.

    Returns:
        Internal indices (D, H, W) on the whole canonical grid.
    """
    result: Array | None = None
    box = box_slices(grid.bounding_box)
    if uncertainty is not None:
        uncertainty.begin(grid.canonical_shape)
    shape = (labels.num_outputs, *grid.canonical_shape)
    background = [float(channel == 0 and not labels.has_regions) for channel in range(labels.num_outputs)]
    with ThreadPoolExecutor(num_threads()) as threads, _WritingThread(writers) as writing:
        for axis, index, scores in _resampled_planes(slabs, grid):
            if result is None:
                backend = backend_of(scores)
                result = _background(grid, backend.device(scores))
                writing.begin(shape, axis, grid.bounding_box, background)
            probabilities = _probabilities(scores, labels)
            writing.add(index, probabilities)
            if threshold is None or isinstance(threshold, float):
                choose = partial(indices_from_scores, labels=labels, threshold=threshold)
                chosen = backend.concatenate(_by_rows(threads, choose, scores))
            else:
                known = backend.to_numpy(probabilities)
                choose = partial(labels.from_probabilities, threshold=threshold)
                chosen = backend.from_numpy(np.concatenate(_by_rows(threads, choose, known)))
            move_axis(result[box], axis, 0)[index] = chosen
            if uncertainty is not None:
                _add_to(uncertainty, threads, (box, axis, index), backend.to_numpy(probabilities), chosen)
            del scores, probabilities  # while the models compute the next ones
        writing.finish()
    assert result is not None, "there is at least one plane"
    return backend.to_numpy(result)


class _WritingThread:
    """Hands probabilities to writers in a thread of its own, as models need not wait until they are compressed."""

    def __init__(self, writers: Sequence[PlaneWriter]) -> None:
        self._writers = writers
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def begin(self, shape: Sequence[int], axis: int, box: BoundingBox, background: Sequence[float]) -> None:
        """Begin each of them, see `PlaneWriter.begin`."""
        for writer in self._writers:
            writer.begin(shape, axis, box, background)

    def add(self, index: int, probabilities: Array) -> None:
        """Add a plane (K, h, w) that nobody changes any more; waits while `PLANES_WAITING` others do."""
        while len(self._waiting) > PLANES_WAITING:  # the first of them is written
            self._waiting.popleft().result()
        for writer in self._writers:
            self._waiting.append(self._thread.submit(writer.add, index, probabilities))

    def finish(self) -> None:
        """Finish all of them."""
        while self._waiting:
            self._waiting.popleft().result()
        for writer in self._writers:
            writer.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)


def _add_to(
    uncertainty: Uncertainty,
    threads: ThreadPoolExecutor,
    place: tuple[tuple[slice, slice, slice], int, int],
    probabilities: NDArray[np.float32],
    chosen: Array,
) -> None:
    """Add a plane (K, h, w), whose place is a box, the axis across it and its number in the box."""
    uncertainty.add(probabilities, backend_of(chosen).to_numpy(chosen))
    if uncertainty.map is not None:
        box, axis, index = place
        measure = partial(entropy, regions=uncertainty.labels.has_regions)
        np.moveaxis(uncertainty.map[box], axis, 0)[index] = np.concatenate(_by_rows(threads, measure, probabilities))


def _background(grid: Grid, device: Device) -> Array:
    """Labels (D, H, W) of the whole canonical grid, all 0, on a device if there is room for them."""
    place = buffer_device(device, math.prod(grid.canonical_shape))
    return backend_at(place).zeros(grid.canonical_shape, "uint8", place)


def _resampled_planes(slabs: Iterable[Slab], grid: Grid) -> Iterator[tuple[int, int, Array]]:
    """Yield axis, index and float32 scores (K, h, w) of every plane of the cropped canonical grid, in order.

    The memory of a plane is used again for the next one of the slab. They are on the device of the models, also where
    the slab is not: a GPU has done with a plane before a CPU begins.
    """
    done = 0
    previous: Array = None
    # Memory for two resampled planes in turn, and one between two: the system takes its time to give new memory.
    turn: tuple[Array | None, Array | None] = None, None
    between: Array | None = None
    for slab in slabs:
        axis, backend = slab.axis, backend_of(slab.planes)
        simple = linear_positions(grid.shape[axis], grid.cropped_shape[axis])
        low, high, fraction = separate_positions(grid, axis) or simple
        needed = {*low.tolist(), *high.tolist()}
        for source, plane in enumerate(slab.planes, slab.start):
            if source not in needed:
                continue
            current = _resample_plane(plane, axis, grid, slab.device, turn[0])
            if current is not plane:
                turn = (turn[1], current) if fraction.any() else (current, None)
            while done < len(high) and high[done] == source:
                if low[done] != source:
                    between = backend.lerp(previous, current, float(fraction[done]), between)
                    yield axis, done, between
                else:
                    yield axis, done, current
                done += 1
            # The slab's memory is reused for the next one.
            if fraction.any():
                previous = backend.copy(current) if current is plane else current
            del current
        # While the models compute the next slab, nothing is kept but what is still to be interpolated with.
        turn, between = (None, None), None


def _resample_plane(plane: Array, axis: int, grid: Grid, device: Device, out: Array | None) -> Array:
    """Resample a plane (K, h, w) across `axis` to the cropped canonical grid, in float32 on a device.

    Args:
        plane: The same tensor is returned if nothing has to be done.
        axis: Of the plane.
        grid: Grids of preprocessing.
        device: Of the result.
        out: An earlier result whose memory may be used again.
    """
    rows, columns = (grid.cropped_shape[other] for other in other_axes(axis))
    backend = backend_of(plane)
    if backend.is_float32(plane, device) and plane.shape[1:] == (rows, columns):
        return plane
    size = max(1, PART_BYTES // (4 * rows * columns))
    if len(plane) <= size:
        return _resample_scores(backend.float32(backend.moved(plane, device)), axis, grid)
    resampled = backend.empty((len(plane), rows, columns), device=device) if out is None else out
    for old, new in zip(split(plane, size), split(resampled, size), strict=True):
        part = _resample_scores(backend.float32(backend.moved(old, device)), axis, grid, new)
        if part is not new:
            new[...] = part
    return resampled


def _resample_scores(scores: Array, axis: int, grid: Grid, out: Array | None = None) -> Array:
    """The same for some of the classes, perhaps in `out`."""
    axes, backend = other_axes(axis), backend_of(scores)
    shape = [grid.cropped_shape[other] for other in axes]
    for dim, other in enumerate(axes, 1):
        if positions := separate_positions(grid, other):
            scores = backend.between(scores, dim, *positions)
    if list(scores.shape[1:]) == shape:
        return scores
    return backend.interpolate(scores, shape, linear_positions, out)
