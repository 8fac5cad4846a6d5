"""Scores of windows, a few planes at a time where there are so many classes that all of them would fill the memory.

Letters: B batch, C channels, F features, K scores, d h w window, n planes.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from seg25d.core.backend import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

SCORES_BYTES = 128 << 20
"""Scores of a batch that take more than this in float32 are made in parts: 61 of 24 x 512 x 512 voxels take 1.4 GiB,
the features that they are made of half as much or less."""
LEAST_PLANES = 4
"""Planes of a part, in times of those on either side that its layers see beside it and that are computed again."""


def scores_in_parts(
    model: Any,
    images: Array,
    num_outputs: int,
    autocast: AbstractContextManager[object],
    images_at_once: int | None = None,
) -> Iterator[tuple[int, Array]]:
    """Compute the scores of windows.

    Args:
        model: A module of torch in eval mode, or a function of numpy's arrays. A module can give scores in parts if it
            is a network that names its `score_layer`, or arranges the scores of one.
        images: (B, C, d, h, w).
        num_outputs: Scores per voxel, K.
        autocast: The context in which the model computes.
        images_at_once: Images that a slice-wise model computes at a time, see `LiftedSlices`; None: all.

    Yields:
        The first of some planes, and their scores (B, K, n, h, w): together all d planes.
    """
    name, compute = _score_layer(model), model
    if images_at_once is not None:
        compute = partial(model, images_at_once=images_at_once)
    plane_bytes = 4 * num_outputs * len(images) * math.prod(images.shape[3:])
    planes = max(1, SCORES_BYTES // plane_bytes)
    reach = 0 if name is None else _reach(model.get_submodule(name))
    planes = max(planes, LEAST_PLANES * reach)
    if name is None or planes >= images.shape[2]:
        with autocast:
            scores = compute(images)
        yield 0, scores
        return
    with left_out(model, name) as layer, autocast:
        features = compute(images)
    for first in range(0, images.shape[2], planes):
        with autocast:
            scores = _scores_of_planes(layer, features, (first, first + planes), reach)
        yield first, scores
        del scores  # otherwise it is kept while the next ones are computed


def _score_layer(model: Any) -> str | None:
    """The last layer, which makes the scores of a plane from few others; None if they come about otherwise."""
    if not getattr(model, "arranges_scores", False):
        return getattr(model, "score_layer", None)
    name = _score_layer(model.get_submodule("network"))
    return None if name is None else f"network.{name}"


@contextmanager
def left_out(model: "nn.Module", name: str) -> "Iterator[nn.Module]":
    """Let a layer of a model do nothing for a while; gives the layer."""
    from torch import nn  # noqa: PLC0415 - heavy

    parent, _, child = name.rpartition(".")
    owner, layer = model.get_submodule(parent), model.get_submodule(name)
    owner.register_module(child, nn.Identity())
    try:
        yield layer
    finally:
        owner.register_module(child, layer)


def _reach(layer: "nn.Module") -> int:
    """Planes on either side that the scores of one depend on."""
    from torch import nn  # noqa: PLC0415 - heavy

    return sum(int(each.kernel_size[0]) // 2 for each in layer.modules() if isinstance(each, nn.Conv3d))


def _scores_of_planes(layer: "nn.Module", features: "Tensor", planes: tuple[int, int], reach: int) -> "Tensor":
    """Scores (B, K, n, h, w) of the planes from one to another of features (B, F, d, h, w), by convolutions."""
    from torch import nn  # noqa: PLC0415 - heavy

    first, last = planes
    low = max(0, first - reach)
    seen = features[:, :, low : last + reach]
    if any(isinstance(each, nn.Conv3d) for each in layer.modules()):
        scores: Tensor = layer(seen)
    else:
        scores = layer(seen.flatten(2, 3))
        scores = scores.reshape(*scores.shape[:2], *seen.shape[2:])
    return scores[:, :, first - low : last - low]
