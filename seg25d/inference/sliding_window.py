"""Scores of a whole volume from overlapping windows, yielded slab by slab when no further window overlaps it.

Windows lie on a regular grid, so their Gaussian weights can be normalised along each axis separately: the weights of
all windows over a voxel sum to one from the beginning. Weighted scores are simply added up, without a buffer of weights
or a final division, and planes that no later window overlaps are final. Only the planes that a batch of windows spans
are kept, so that the memory does not depend on the length of the volume.

Letters: B batch, C channels, K scores, D H W volume, n planes of a slab, h w the plane's axes in the order (D, H, W).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import HOST, Array, Backend, Device, backend_of, cpu_like
from seg25d.core.errors import InputError, ModelError
from seg25d.core.grids import regular_starts, repeated_planes
from seg25d.core.parallel import available_memory_bytes
from seg25d.core.types import Shape
from seg25d.inference.scoring import scores_in_parts
from seg25d.inference.window_sums import WindowSums, buffer_device, other_axes
from seg25d.representations.base import RegularSteps

SIGMA = 1 / 8
"""Standard deviation of the Gaussian, as a share of the window (nnU-Net, inference/sliding_window_prediction.py)."""
SMALLEST_WEIGHT = 1e-3
"""Minimum weight of a voxel along an axis, as a share of the largest weight."""
VOLUME_SHARE = 0.25
"""Of a GPU's memory that is free beside the sums, the largest share that a volume takes; the rest is the network's."""
MAX_WINDOWS = 10_000_000
"""Passes for one volume; windows of 64 voxels in steps of a tenth over 1,000 x 512 x 512 voxels are 5.8 million."""
WINDOW_BYTES = 1000
"""Memory for the list of windows, per pass: tuples of a place and a mirroring, for three orders."""


@dataclass(frozen=True)
class WindowOptions:
    """Options of covering a volume with windows."""

    window: Shape
    model: str = "the model"
    """What it is called in messages."""
    step_size: float | tuple[float, float, float] = 0.5
    """Largest step between windows as a share of the window, for all axes or for each."""
    mirror_axes: tuple[int, ...] = ()
    """Axes (0 D, 1 H, 2 W) of mirroring; scores are averaged over all combinations."""
    regular: RegularSteps | None = None
    """Axis along which windows start at multiples of a step, the volume is padded at its end where they reach beyond
    it, and all voxels of a window have the same weight."""
    padded_with_lowest: bool = False
    """Whether volumes are padded with the lowest value of each channel instead of 0."""
    repeated_axis: int | None = None
    """The axis along which the end slices are repeated instead, see `ConfigurationPlan.repeated_axis`."""
    batch_size: int = 1
    images_at_once: int | None = None
    """Images that the network of a slice-wise model takes at a time; None: all of a batch of windows."""
    autocast: AbstractContextManager[object] | None = None
    """The context in which models compute, such as `torch.autocast(...)`."""
    sums_on_cpu: bool = False
    """Whether the volume, the current planes and what is made of them stay on the CPU, as the device lacks memory."""

    def __post_init__(self) -> None:
        if not all(0 < step <= 1 for step in self.steps):
            raise InputError(
                f"the step size must be above 0 and at most 1 (a share of the window), got {self.step_size}"
            )

    @property
    def steps(self) -> tuple[float, float, float]:
        """The step along each axis."""
        return self.step_size if isinstance(self.step_size, tuple) else (self.step_size,) * 3


class Slab(NamedTuple):
    """Final scores of successive planes across one axis."""

    axis: int
    """Axis (0 D, 1 H, 2 W) perpendicular to the planes."""
    start: int
    """Index of the first plane along that axis."""
    planes: Array
    """(n, K, h, w) in float32 or float16. Valid until the next slab is requested."""
    device: Device = HOST
    """Where to make something of the planes: the GPU of the models, or the CPU if its memory ran out."""


class _Item(NamedTuple):
    """One pass of a window through the models: its start, and the axes along which it is mirrored."""

    start: Shape
    mirror: tuple[int, ...]


def window_starts(size: int, window: int, step_size: float) -> list[int]:
    """Starts of windows along one axis: evenly spaced, the last one at the end (nnU-Net, sliding_window_prediction.py).

    Args:
        size: Voxels of the volume.
        window: Voxels of the window.
        step_size: Largest step, as a share of the window.

    Returns:
        Positions in ascending order; [0] for a volume that is not larger than the window.
    """
    room = size - window
    if room <= 0:
        return [0]
    steps = math.ceil(room / (step_size * window))
    # Small windows can have a target step below one voxel.
    return sorted({round(room / steps * index) for index in range(steps + 1)})


def _choose_starts(size: Shape, options: WindowOptions) -> list[list[int]]:
    starts = [window_starts(*each) for each in zip(size, options.window, options.steps, strict=True)]
    if options.regular:
        axis, _, step, flush = options.regular
        starts[axis] = regular_starts(size[axis], options.window[axis], step, flush=flush)
    return starts


def gaussian_weights(window: int) -> NDArray[np.float64]:
    """Weights of a window's voxels along one axis: a Gaussian around the centre, from `SMALLEST_WEIGHT` to 1."""
    offset = (np.arange(window, dtype=np.float64) - (window - 1) / 2) / (window * SIGMA)
    weights: NDArray[np.float64] = np.maximum(np.exp(-0.5 * offset**2), SMALLEST_WEIGHT)
    return weights


def axis_weights(
    size: int, window: int, starts: Sequence[int], *, equal: bool = False
) -> dict[int, NDArray[np.float32]]:
    """Compute the weights of each window along one axis, which sum to one over the windows that cover a voxel.

    Args:
        size: Voxels of the volume, at least those of the window.
        window: Voxels of the window.
        starts: Starts of all windows, which together cover the volume.
        equal: Whether all voxels of a window have the same weight, instead of a Gaussian.

    Returns:
        The weights (window,) by start.
    """
    weights = np.ones(window) if equal else gaussian_weights(window)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += weights
    return {start: (weights / total[start : start + window]).astype(np.float32) for start in starts}


def predict_slabs(models: Sequence[Any], image: Array, num_outputs: int, options: WindowOptions) -> Iterator[Slab]:
    """Slide a window over a volume and yield the scores in slabs, averaged over windows, mirrorings and models.

    A volume that is smaller than the window is padded on both sides (along a regular axis only at the end, also if the
    last window reaches beyond it; with its end slices along an axis where these are repeated), and the scores are
    cropped. The axis of the slabs is the one along which the fewest
    voxels have to be kept at a time.

    Args:
        models: Models on one device, from volumes (B, C, *window) to scores (B, K, *window): modules of torch in eval
            mode, which take tensors, or functions of numpy's arrays, as the image is one.
        image: (C, D, H, W) float32 on the CPU; not changed.
        num_outputs: Scores per voxel, K.
        options: Options of the windows.

    Yields:
        Consecutive slabs without gaps or overlap that cover the volume.
    """
    shape: Shape = (image.shape[1], image.shape[2], image.shape[3])
    starts = _choose_starts(shape, options)
    _check_number(shape, starts, options)
    padded, offsets = _pad(image, options, starts)
    size: Shape = (padded.shape[1], padded.shape[2], padded.shape[3])
    weights = [
        axis_weights(*each, equal=options.regular is not None and axis == options.regular.axis)
        for axis, each in enumerate(zip(size, options.window, starts, strict=True))
    ]
    layout, device = _choose_layout(size, starts, options), backend_of(image).device_of(models[0])
    place = labels_device(device, on_cpu=options.sums_on_cpu)
    axis, first = layout.axis, 0
    height, width = (size[other] for other in other_axes(axis))
    planes_shape = (layout.depth, num_outputs, height, width)
    sums = WindowSums(axis, planes_shape, weights, device, on_cpu=options.sums_on_cpu)
    windows = _Windows(padded, options.window, device, on_cpu=options.sums_on_cpu)
    for batch, following in itertools.pairwise([*layout.batches, None]):
        assert batch is not None
        _add_scores(models, windows, batch, sums, options)
        done = size[axis] if following is None else following[0].start[axis]
        if done > first:
            for start, planes in sums.finished(done):
                slab = _without_padding(Slab(axis, start, planes, place), offsets, shape)
                if len(slab.planes):
                    _check_finite(slab.planes, options.model)
                    yield slab
            sums.advance(done)
            first = done


def labels_device(device: Device, *, on_cpu: bool) -> Device:
    """Where to make labels of scores: on the GPU of the models, or on the CPU if it lacks memory or there is none.

    Not on MPS, whose sums are on the CPU: nobody has looked whether it would be faster there.
    """
    return device if device.type == "cuda" and not on_cpu else cpu_like(device)


def _without_padding(slab: Slab, offsets: Shape, shape: Shape) -> Slab:
    """The part of a slab of a padded volume that lies in the volume (D, H, W), perhaps nothing."""
    axis, start, planes, _ = slab
    low, high = max(start, offsets[axis]), min(start + len(planes), offsets[axis] + shape[axis])
    rows, columns = (slice(offsets[other], offsets[other] + shape[other]) for other in other_axes(axis))
    inside = planes[low - start : max(low, high) - start, :, rows, columns]
    return slab._replace(start=low - offsets[axis], planes=inside)


def _add_scores(
    models: Sequence[Any], windows: "_Windows", batch: "Sequence[_Item]", sums: WindowSums, options: WindowOptions
) -> None:
    """Pass windows through all models and add the weighted scores."""
    with windows.backend.no_gradients():
        images = windows.images(batch)
        share = 1 / (len(models) * 2 ** len(options.mirror_axes))
        for model in models:
            num_outputs = sums.planes.shape[1]
            context = options.autocast or nullcontext()
            for first, scores in scores_in_parts(model, images, num_outputs, context, options.images_at_once):
                for item, each in zip(batch, scores, strict=True):
                    sums.add(*item, each, share, first)
                # Otherwise they are kept in memory while the next ones are computed.
                del scores, each


def _check_number(shape: Shape, starts: Sequence[list[int]], options: WindowOptions) -> None:
    """Refuse windows so small that a list of them would take all memory, before it is made."""
    number = math.prod(map(len, starts)) * 2 ** len(options.mirror_axes)
    most = min(MAX_WINDOWS, available_memory_bytes() // WINDOW_BYTES)
    if number > most:
        raise InputError(
            f"{options.model} would take {number:,} windows of {' x '.join(map(str, options.window))} voxels for a "
            f"volume of {' x '.join(map(str, shape))}, {most:,} are possible here; use a larger --step-size, leave "
            "mirroring out, or take a model with larger windows"
        )


def _check_finite(planes: Array, model: str) -> None:
    """Refuse scores that are no numbers: the largest of them would be nothing, as background is."""
    if not backend_of(planes).is_finite(planes):
        raise ModelError(
            f"the scores of {model} are NaN or infinite; its weights are damaged or its training went wrong: get the "
            "model again, or train it again with a lower learning rate"
        )


class _Layout(NamedTuple):
    axis: int
    batches: list[list[_Item]]
    depth: int
    """Number of planes that are kept at a time."""


def _choose_layout(size: Shape, starts: Sequence[list[int]], options: WindowOptions) -> _Layout:
    """Choose the order of windows that keeps the fewest voxels in memory."""
    layouts = [_make_layout(axis, size, starts, options) for axis in range(3)]
    return min(layouts, key=lambda layout: layout.depth * math.prod(size) // size[layout.axis])


def _make_layout(axis: int, size: Shape, starts: Sequence[list[int]], options: WindowOptions) -> _Layout:
    """Arrange windows in the order of their starts along `axis`, each with all mirrorings, in batches."""
    corners = sorted(itertools.product(*starts), key=lambda corner: corner[axis])
    mirrors = [
        mirror
        for number in range(len(options.mirror_axes) + 1)
        for mirror in itertools.combinations(options.mirror_axes, number)
    ]
    items = [_Item((corner[0], corner[1], corner[2]), mirror) for corner in corners for mirror in mirrors]
    # A batch that spans two starts keeps more planes in memory, so it does so only if it would not be full otherwise.
    per_start = len(items) // len(starts[axis])
    span = per_start if per_start >= options.batch_size else len(items)
    batches = [
        items[first : min(first + options.batch_size, begin + span)]
        for begin in range(0, len(items), span)
        for first in range(begin, begin + span, options.batch_size)
    ]
    depth = max(batch[-1].start[axis] - batch[0].start[axis] for batch in batches) + options.window[axis]
    return _Layout(axis, batches, min(depth, size[axis]))


def _pad(image: Array, options: WindowOptions, starts: Sequence[list[int]]) -> tuple[Array, Shape]:
    """Pad an image to the extent of the windows; return it and the position of the volume in it."""
    reached = [each[-1] + window for each, window in zip(starts, options.window, strict=True)]
    missing = [max(0, wanted - size) for wanted, size in zip(reached, image.shape[1:], strict=True)]
    if not any(missing):
        return image, (0, 0, 0)
    before = [number // 2 for number in missing]
    if options.regular:
        before[options.regular.axis] = 0
    after = [number - first for number, first in zip(missing, before, strict=True)]
    offsets = (before[0], before[1], before[2])
    backend = backend_of(image)
    if options.padded_with_lowest:
        lowest = backend.lowest(image)
        padded = backend.pad(image - lowest, before, after) + lowest
    else:
        padded = backend.pad(image, before, after)
    axis = options.repeated_axis
    if axis is not None and missing[axis]:
        planes = repeated_planes(padded.shape[1 + axis], before[axis], before[axis] + image.shape[1 + axis])
        padded = padded[(slice(None),) * (1 + axis) + (planes,)]
    return padded, offsets


class _Windows:
    """The windows of a volume, where the models compute.

    The volume goes there once, if it fits; otherwise each window does, once for all of its mirrorings.

    Args:
        volume: (C, D, H, W) on the CPU.
        window: Voxels of the windows along (D, H, W).
        device: Where the models compute.
        on_cpu: Whether the volume stays on the CPU even if it fits on the device.
    """

    def __init__(self, volume: Array, window: Shape, device: Device, *, on_cpu: bool) -> None:
        self.backend: Backend = backend_of(volume)
        place = cpu_like(device) if on_cpu else buffer_device(device, volume.nbytes, VOLUME_SHARE)
        self.volume = self.backend.moved(volume, place)
        self.window = window
        self.device = device
        self._start: Shape | None = None
        self._part: Array = None

    def images(self, batch: Sequence[_Item]) -> Array:
        """Windows (B, C, d, h, w), mirrored."""
        return self.backend.stack([self._image(item) for item in batch])

    def _image(self, item: _Item) -> Array:
        if item.start != self._start:
            depth, height, width = (
                slice(start, start + size) for start, size in zip(item.start, self.window, strict=True)
            )
            self._start = item.start
            self._part = self.backend.send(self.volume[:, depth, height, width], self.device)
        return self.backend.flip(self._part, [1 + axis for axis in item.mirror]) if item.mirror else self._part
