"""Extension of the scores of a part of a volume to the whole volume, with background elsewhere.

Letters: K scores, D H W volume, n planes of a slab, h w the plane's axes in the order (D, H, W).
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from seg25d.core.types import BoundingBox, Shape
from seg25d.data.labels import Labels
from seg25d.inference.sliding_window import Slab

NOTHING = -100.0
"""Score of foreground where nothing is found."""
PLANES_AT_A_TIME = 16


def background_scores(labels: Labels) -> Tensor:
    """Scores (K,) of a voxel that is certainly background."""
    scores = torch.full((labels.num_outputs,), NOTHING)
    if not labels.has_regions:
        scores[0] = 0
    return scores


def framed(slabs: Iterable[Slab], box: BoundingBox | None, shape: Shape, background: Tensor) -> Iterator[Slab]:
    """Extend slabs of a part of a volume to slabs of the whole volume.

    Args:
        slabs: Slabs of the part.
        box: Half-open ranges of the part along (D, H, W); None, with no slabs, if there is no such part.
        shape: Shape (D, H, W) of the volume.
        background: Scores (K,) of every voxel outside the part.

    Yields:
        Slabs of the volume, without gaps or overlap.
    """
    axis = done = 0
    for slab in slabs:
        assert box is not None, "slabs belong to a part"
        axis = slab.axis
        others = [other for other in range(3) if other != axis]
        first = slab.start + box[axis][0]
        yield from _empty(axis, done, first, shape, background)
        planes = _background(axis, len(slab.planes), shape, background)
        rows, columns = (slice(*box[other]) for other in others)
        planes[:, :, rows, columns] = slab.planes.to(planes)
        done = first + len(planes)
        yield Slab(axis, first, planes, slab.device)
    yield from _empty(axis, done, shape[axis], shape, background)


def _empty(axis: int, start: int, stop: int, shape: Shape, background: Tensor) -> Iterator[Slab]:
    for first in range(start, stop, PLANES_AT_A_TIME):
        number = min(PLANES_AT_A_TIME, stop - first)
        yield Slab(axis, first, _background(axis, number, shape, background))


def _background(axis: int, number: int, shape: Shape, background: Tensor) -> Tensor:
    height, width = (size for other, size in enumerate(shape) if other != axis)
    return background[None, :, None, None].expand(number, -1, height, width).clone()
