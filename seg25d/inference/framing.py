"""Extension of the scores of a part of a volume to the whole volume, with background elsewhere.

Letters: K scores, D H W volume, n planes of a slab, h w the plane's axes in the order (D, H, W).
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, Device, backend_of, split
from seg25d.core.types import BoundingBox, Shape
from seg25d.data.labels import Labels
from seg25d.inference.sliding_window import Slab
from seg25d.inference.window_sums import other_axes

NOTHING = -100.0
"""Score of foreground where nothing is found."""
SLAB_BYTES = 64 << 20
"""Of the planes that exist together: one of 61 x 512 x 512 scores, 21 of 3 x 512 x 512."""


def background_scores(labels: Labels) -> NDArray[np.float32]:
    """Scores (K,) of a voxel that is certainly background."""
    scores = np.full(labels.num_outputs, NOTHING, np.float32)
    if not labels.has_regions:
        scores[0] = 0
    return scores


def framed(slabs: Iterable[Slab], box: BoundingBox | None, shape: Shape, background: Array) -> Iterator[Slab]:
    """Extend slabs of a part of a volume to slabs of the whole volume.

    Args:
        slabs: Slabs of the part.
        box: Half-open ranges of the part along (D, H, W); None, with no slabs, if there is no such part.
        shape: Shape (D, H, W) of the volume.
        background: Scores (K,) of every voxel outside the part, on the CPU, of the same library as those of the part.

    Yields:
        Slabs of the volume in float32, without gaps or overlap, of `SLAB_BYTES` or a plane each, where labels are made
        of those of the part.
    """
    backend = backend_of(background)
    axis = done = 0
    device: Device = backend.cpu
    for slab in slabs:
        assert box is not None, "slabs belong to a part"
        axis, device = slab.axis, slab.device
        rows, columns = (slice(*box[other]) for other in other_axes(axis))
        start = slab.start + box[axis][0]
        yield from _empty(axis, (done, start), shape, background, device)
        for part in split(slab.planes, _num_planes(axis, shape, background)):
            planes = _background(axis, len(part), shape, background, device)
            planes[:, :, rows, columns] = backend.moved(part, device)
            yield Slab(axis, start, planes, device)
            start += len(part)
        done = start
    yield from _empty(axis, (done, shape[axis]), shape, background, device)


def _empty(axis: int, planes: tuple[int, int], shape: Shape, background: Array, device: Device) -> Iterator[Slab]:
    """Slabs of background for a half-open range of planes."""
    first, stop = planes
    while first < stop:
        number = min(_num_planes(axis, shape, background), stop - first)
        yield Slab(axis, first, _background(axis, number, shape, background, device), device)
        first += number


def _num_planes(axis: int, shape: Shape, background: Array) -> int:
    height, width = (shape[other] for other in other_axes(axis))
    return max(1, SLAB_BYTES // (4 * len(background) * height * width))


def _background(axis: int, number: int, shape: Shape, background: Array, device: Device) -> Array:
    backend = backend_of(background)
    height, width = (shape[other] for other in other_axes(axis))
    planes = backend.empty((number, len(background), height, width), device=device)
    planes[...] = backend.moved(background, device)[:, None, None]
    return planes
