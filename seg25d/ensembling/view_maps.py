"""Probability maps of views before fusion: of the whole volume, or of a common crop around the object.

Letters: C image channels, V views, M maps per view (foreground classes, or regions), D H W volume, d h w crop.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg25d.core.backend import Array, backend_of, split
from seg25d.core.grids import bounding_box, box_shape, box_slices, even_margin
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
    voted, whole = _keep_components(found_by_most(whole, labels, header.threshold), whole, header)

    def refine(box: BoundingBox) -> Refined:
        part = np.ascontiguousarray(image[:, *box_slices(box)])
        maps = [view.predict_maps(part) for view in views]
        together, maps = _keep_components(found(_mean_map(maps), labels, header.threshold), maps, header)
        return Refined(box, backend_of(maps[0]).concatenate(maps), together)

    last = fixed_point(voted, refine, even_margin(fine.margin, header.plan.spacing_mm), fine)
    if last is None:
        return whole
    return [_insert_crop(each, last.box, whole[0]) for each in split(last.scores, len(whole[0]))]


def found(maps: Array, labels: Labels, threshold: float | None = None) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the voxels where a class is more probable than background, or a region is predicted."""
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


def _mean_map(maps: Sequence[Array]) -> Array:
    backend = backend_of(maps[0])
    return backend.stack([*map(backend.float32, maps)]).mean(0)


def _keep_components(
    mask: NDArray[np.bool_], maps: list[Array], header: ModelHeader
) -> tuple[NDArray[np.bool_], list[Array]]:
    """Remove components from a mask and from the maps (M, D, H, W) of the views, if the settings ask for it.

    They are those of the most probable class or region on average, which each view votes for by its own likeliest one,
    see `small_components`.
    """
    if header.fine is None or not header.fine.large_components or bounding_box(mask) is None:
        return mask, maps
    labels, threshold = header.description.labels, header.threshold
    planes = [_indices(each, found(each, labels, threshold)) for each in maps]
    kept = ~small_components(_indices(_mean_map(maps), mask), planes)
    return mask & kept, [each * backend_of(each).from_numpy(kept) for each in maps]


def _indices(maps: Array, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The number of the highest of maps (M, D, H, W), from 1 on, within a mask (D, H, W); 0 outside."""
    highest = backend_of(maps).to_numpy(maps.argmax(0) + 1)
    return np.where(mask, highest, 0).astype(np.uint8)


def _insert_crop(maps: Array, box: BoundingBox, like: Array) -> Array:
    assert maps.shape[1:] == box_shape(box), "maps of the crop"
    backend = backend_of(maps)
    placed = backend.zeros(like.shape, "float16", backend.cpu)
    placed[:, *box_slices(box)] = maps
    return placed
