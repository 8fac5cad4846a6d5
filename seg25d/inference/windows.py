"""How large the windows are that cover a volume: as large as saves work, and no larger than fits and than was learned.

Networks compute every window whole. Where windows overlap, voxels are computed several times, so a window that is a
little larger than in training can save much: 420 voxels take three windows of 256, or two of 280.
"""

import itertools
import math
from collections.abc import Iterator

from seg25d.core.types import Shape
from seg25d.inference.sliding_window import window_starts
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import ConfigurationPlan

BATCH_SCORES_BYTES = 128 << 20
"""Maximum memory of the float32 scores of a batch of windows."""
STRETCH_AXIS = 1.5
"""Maximum size of a window along each axis, as a multiple of the planned window."""
STRETCH_VOXELS = 2
"""Maximum number of voxels of a window, as a multiple of the planned window."""
SUMS_BYTES = 128 << 20
"""Maximum memory of the float32 sums of scores over the slices of a deep window, in a whole volume."""
BATCH_GROWTH = 2
"""Windows per batch, as a multiple of training batches: without gradients at least twice as many fit into memory."""
CPU_BATCH_VOXELS = 1 << 16
"""Maximum number of voxels of a batch on a CPU: larger batches take more memory and save a tenth of the time at most
(documentation/concepts/choices.md)."""
ALL_AXES = frozenset({0, 1, 2})


def covering_window(
    plan: ConfigurationPlan,
    shape: Shape,
    num_outputs: int,
    *,
    step_size: float = 0.5,
    free_axes: frozenset[int] = ALL_AXES,
) -> Shape:
    """Choose the window for a volume: the one with which the fewest voxels are computed, the smallest of equal ones.

    Along the axes that a network convolves and may see parts of it may have any size up to `STRETCH_AXIS` times the
    planned one; along others, such as the slices of a super image, the planned one or the whole volume. Without
    gradients there is enough memory; the window grows to at most `STRETCH_VOXELS` times its voxels.

    Args:
        plan: Window and network.
        shape: Shape of the volume on the model's grid.
        num_outputs: Scores per voxel.
        step_size: Largest step between windows, as a share of the window, that was asked for.
        free_axes: Axes along which the window may have another size than the planned one.

    Returns:
        Voxels along (D, H, W), divisible by the network's divisors.
    """
    most = min(STRETCH_VOXELS * math.prod(plan.window), BATCH_SCORES_BYTES // (4 * num_outputs))
    sizes = [_sparing_sizes(plan, axis, shape[axis], step_size, free_axes) for axis in range(3)]
    windows = [(of_d * of_h * of_w, (d, h, w)) for (d, of_d), (h, of_h), (w, of_w) in itertools.product(*sizes)]
    fitting = [each for each in windows if math.prod(each[1]) <= most]
    return min([windows[0], *fitting])[1]  # the first one is as planned


def _sparing_sizes(
    plan: ConfigurationPlan, axis: int, voxels: int, step_size: float, free_axes: frozenset[int]
) -> list[tuple[int, int]]:
    """Sizes of a window along an axis of so many voxels, ascending, each with the voxels that all windows have.

    A size with which no fewer are computed than with a smaller one is of no use. What is left is few, as more voxels
    only save where there is a window less: also where a network without divisors may have any size.
    """
    sparing: list[tuple[int, int]] = []
    for size in _sizes(plan, axis, voxels, free_axes):
        window = list(plan.window)
        window[axis] = size
        step = plan.step_sizes((window[0], window[1], window[2]), step_size)[axis]
        computed = size * len(window_starts(voxels, size, step))
        if not sparing or computed < sparing[-1][1]:
            sparing.append((size, computed))
    return sparing


def _sizes(plan: ConfigurationPlan, axis: int, voxels: int, free_axes: frozenset[int]) -> Iterator[int]:
    """Possible sizes of a window along an axis of so many voxels, the planned one first, ascending."""
    planned, regular = plan.window[axis], plan.representation.regular_steps
    yield planned
    if voxels <= planned or axis not in free_axes or (regular is not None and axis == regular.axis):
        return
    divisors = dict(zip(plan.representation.network_axes, plan.network.divisor, strict=True))
    divisor = divisors.get(axis, 1)
    whole, largest = -(-voxels // divisor) * divisor, STRETCH_AXIS * planned
    if axis in divisors and axis in plan.representation.resizable_axes:
        yield from range(planned + divisor, min(whole, math.floor(largest)) + 1, divisor)
    if voxels <= largest < whole or (axis not in divisors and whole <= largest):
        yield whole


def deepened(
    plan: ConfigurationPlan, window: Shape, shape: Shape, batch_size: int, num_outputs: int, *, in_parts: bool
) -> tuple[Shape, int]:
    """Replace several overlapping windows by one deeper window if the depth makes no difference, as for slices.

    Slices at both ends of a window are computed for nothing, as they lack neighbours there: the deeper, the fewer.

    Args:
        plan: Determines the axis.
        window: Voxels along (D, H, W).
        shape: Shape of the volume on the model's grid.
        batch_size: Windows per batch; with `in_parts`, their slices are what the model takes at a time, and no limit.
        num_outputs: Scores per voxel.
        in_parts: Whether the model takes the slices of a window a few at a time, so that only the sums of scores limit
            the depth.

    Returns:
        The window, no larger than a batch of the given windows or, in parts, than `SUMS_BYTES` allow; and the number of
        such windows per batch.
    """
    axis = plan.representation.free_axis
    if axis is None or shape[axis] <= window[axis]:
        return window, batch_size
    times = batch_size
    if in_parts:
        plane = math.prod(max(shape[other], window[other]) for other in range(3) if other != axis)
        times = max(times, SUMS_BYTES // (4 * num_outputs * plane * window[axis]))
    times = min(times, -(-shape[axis] // window[axis]))
    deep = list(window)
    deep[axis] = min(shape[axis], times * window[axis])
    return (deep[0], deep[1], deep[2]), max(1, batch_size // times)


def default_batch_size(header: ModelHeader) -> int:
    """Windows per batch: more than in training, but limited by the memory for the scores of many classes."""
    scores_bytes = 4 * header.description.labels.num_outputs * math.prod(header.plan.window)
    return max(1, min(BATCH_GROWTH * header.plan.batch_size, BATCH_SCORES_BYTES // scores_bytes))
