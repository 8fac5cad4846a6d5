"""Probability maps of views before fusion: of the whole volume, or of a common crop around the object.

Letters: C image channels, V views, M maps per view (foreground classes, or regions), D H W volume, d h w crop.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import PART_BYTES
from seg25d.core.backend import Array, backend_of, split
from seg25d.core.grids import bounding_box, box_shape, box_slices, even_margin
from seg25d.core.temporary_arrays import large_zeros
from seg25d.core.types import BoundingBox
from seg25d.data.labels import Labels
from seg25d.inference.components import small_components
from seg25d.inference.fixed_point import Refined, fixed_point
from seg25d.inference.predictor import Predictor
from seg25d.planning.model_file import ModelHeader


def view_maps(image: NDArray[np.float32], views: Sequence[Predictor], coarse: Sequence[Predictor] = ()) -> list[Array]:
    """Predict the probabilities of each view for a volume.

    With coarse models, the views are fine models, which see only crops (methods.md 4.1): first around the foreground of
    most coarse models, then around the foreground of the fine models' mean, and so on, see `fixed_point`. Where the
    settings of the fine models ask for large components, others are removed after every step: from the foreground that
    the next crop is for, and from the probabilities of all views.

    Args:
        image: (C, D, H, W) on the grid of the models.
        views: One per view, in the order of the plan.
        coarse: The coarse models of the same views, if the views are fine models.

    Returns:
        One map (M, D, H, W) in float16 per view: of the last round, with 0 outside its crop; those of the coarse models
        if the coarse or the fine models together find nothing.
    """
    if not coarse:
        return [view.predict_maps(image) for view in views]
    header = views[0].header
    labels, fine = header.description.labels, header.fine
    assert fine is not None, "only fine models have coarse ones"
    whole = [view.predict_maps(image) for view in coarse]
    voted = _keep_components(found_by_most(whole, labels, header.threshold), whole, header)

    def refine(box: BoundingBox) -> Refined:
        part = np.ascontiguousarray(image[:, *box_slices(box)])
        maps = [view.predict_maps(part) for view in views]
        together = _keep_components(_found_on_average(maps, labels, header.threshold), maps, header)
        return Refined(box, maps, together)

    last = fixed_point(voted, refine, even_margin(fine.margin, header.plan.spacing_mm), fine)
    if last is None:
        return whole
    return [_insert_crop(each, last.box, whole[0]) for each in last.scores]


def fusion_input(image: Array, maps: Sequence[Array], box: BoundingBox) -> NDArray[np.float32]:
    """The image and the maps of the views one after the other, inside a box: what a fusion network takes.

    Args:
        image: (C, D, H, W) on the CPU.
        maps: One map (M, D, H, W) per view.
        box: Half-open ranges along (D, H, W).

    Returns:
        (C + V M, d, h, w), in a file if it is large.

    Raises:
        InputError: If neither memory nor disk has room for it.
    """
    inside = box_slices(box)
    volumes = [(each, channel) for each in (image, *maps) for channel in range(len(each))]
    joined, release = large_zeros((len(volumes), *box_shape(box)), "float32")
    for target, (array, channel) in zip(joined, volumes, strict=True):
        backend_of(array).write(target, array[channel][inside])
        release()
    return joined


def found(maps: Array, labels: Labels, threshold: float | None = None) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the voxels where a class is more probable than background, or a region is predicted."""
    return _by_slabs(lambda parts: _found(parts[0], labels, threshold), [maps])


def _found(maps: Array, labels: Labels, threshold: float | None) -> NDArray[np.bool_]:
    backend = backend_of(maps)
    highest = backend.highest(maps)
    if threshold is not None:
        mask = highest >= threshold
    else:
        mask = highest > 0.5 if labels.has_regions else highest > 1 - backend.float32(maps).sum(0)
    return backend.to_numpy(mask)


def found_by_most(maps: Sequence[Array], labels: Labels, threshold: float | None = None) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the voxels where most views find foreground, or any of them if that mask is empty.

    Args:
        maps: One map (M, D, H, W) per view.
        labels: Meaning of the maps.
        threshold: See `Labels.from_scores`.
    """
    votes = np.zeros(maps[0].shape[1:], np.uint8)
    for each in maps:
        votes += found(each, labels, threshold)
    by_most: NDArray[np.bool_] = votes > len(maps) // 2
    return by_most if by_most.any() else votes > 0


def _by_slabs(function: Callable[[Sequence[Array]], NDArray[Any]], maps: Sequence[Array]) -> NDArray[Any]:
    """Apply a function to the same few planes (M, n, H, W) of all maps at a time; gives its results (D, H, W)."""
    plane_bytes = 4 * len(maps) * math.prod(maps[0].shape) // maps[0].shape[1]
    parts = zip(*(split(each, max(1, PART_BYTES // plane_bytes), 1) for each in maps), strict=True)
    return np.concatenate([function(part) for part in parts])


def _found_on_average(maps: Sequence[Array], labels: Labels, threshold: float | None) -> NDArray[np.bool_]:
    return _by_slabs(lambda parts: _found(_mean_map(parts), labels, threshold), maps)


def _mean_map(maps: Sequence[Array]) -> Array:
    backend = backend_of(maps[0])
    return backend.stack([*map(backend.float32, maps)]).mean(0)


def _keep_components(mask: NDArray[np.bool_], maps: Sequence[Array], header: ModelHeader) -> NDArray[np.bool_]:
    """Remove components from a mask and, in their place, from the maps (M, D, H, W) of the views, if it is asked for.

    They are those of the most probable class or region on average, which each view votes for by its own likeliest one,
    see `small_components`.
    """
    if header.fine is None or not header.fine.large_components or bounding_box(mask) is None:
        return mask
    labels, threshold = header.description.labels, header.threshold
    planes = [_indices([each], found(each, labels, threshold)) for each in maps]
    kept = ~small_components(_indices(maps, mask), planes)
    for each in maps:
        of_library = backend_of(each).from_numpy(kept)
        for channel in range(len(each)):
            each[channel] *= of_library
    return mask & kept


def _indices(maps: Sequence[Array], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The number of the highest map of (M, D, H, W), from 1 on, on average over views, within a mask; 0 outside."""
    highest = _by_slabs(lambda parts: _highest(_mean_map(parts) if len(parts) > 1 else parts[0]), maps)
    highest[~mask] = 0
    return highest


def _highest(maps: Array) -> NDArray[np.uint8]:
    return backend_of(maps).to_numpy(maps.argmax(0) + 1).astype(np.uint8)


def _insert_crop(maps: Array, box: BoundingBox, like: Array) -> Array:
    assert maps.shape[1:] == box_shape(box), "maps of the crop"
    placed, release = large_zeros(like.shape, "float16")
    inside = box_slices(box)
    for target, channel in zip(placed, maps, strict=True):
        backend_of(maps).write(target[inside], channel)
        release()
    return backend_of(maps).from_numpy(placed)
