"""What views say of a volume before that is fused: each of all of it, or all of a crop around what they found.

Letters: C image channels, V views, M maps per view (foreground classes, or regions), D H W volume, d h w crop.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.grids import bounding_box, box_shape, box_slices, even_margin
from seg25d.core.types import BoundingBox
from seg25d.data.labels import Labels
from seg25d.inference.components import small_components
from seg25d.inference.fixed_point import Refined, fixed_point
from seg25d.inference.predictor import Predictor
from seg25d.planning.coarse_to_fine import FineConfig


def view_maps(image: NDArray[np.float32], views: Sequence[Predictor], coarse: Sequence[Predictor] = ()) -> list[Tensor]:
    """Probabilities that views give to the voxels of a volume.

    With coarse models the views are fine ones, which look at crops only (methods.md 4.1): at first around what most of
    the coarse ones find, then around where the mean of the fine ones is foreground, and so on, see `fixed_point`.

    Args:
        image: (C, D, H, W) on the grid of the models.
        views: One per view, in the order of the plan.
        coarse: The coarse models of the same views, if the views are fine models.

    Returns:
        Per view (M, D, H, W) in float16: of the last round, and 0 around its crop. Where the coarse or the fine models
        together find nothing it is what the coarse ones say.
    """
    if not coarse:
        return [view.predict_maps(image) for view in views]
    header = views[0].header
    labels, fine = header.description.labels, header.fine
    assert fine is not None, "only fine models have coarse ones"
    whole = [view.predict_maps(image) for view in coarse]
    voted = _cleaned(found_by_most(whole, labels, header.threshold), whole, fine)

    def refine(box: BoundingBox) -> Refined:
        part = np.ascontiguousarray(image[:, *box_slices(box)])
        maps = [view.predict_maps(part) for view in views]
        together = found(_mean(maps), labels, header.threshold).numpy()
        return Refined(box, torch.cat(maps), _cleaned(together, maps, fine))

    last = fixed_point(voted, refine, even_margin(fine.margin, header.plan.spacing_mm), fine)
    if last is None:
        return whole
    return [_placed(each, last.box, whole[0]) for each in torch.split(last.scores, len(whole[0]))]


def found(maps: Tensor, labels: Labels, threshold: float | None = None) -> Tensor:
    """The voxels (D, H, W) where a class is likelier than the background, or a region likely enough."""
    highest = maps.amax(0)
    if threshold is not None:
        return highest >= threshold
    return highest > 0.5 if labels.has_regions else highest > 1 - maps.sum(0, dtype=torch.float32)


def found_by_most(maps: Sequence[Tensor], labels: Labels, threshold: float | None = None) -> NDArray[np.bool_]:
    """The voxels (D, H, W) where most views find something, or any of them if that is nowhere.

    Args:
        maps: Per view (M, D, H, W).
        labels: Say what the maps are.
        threshold: See `Labels.from_scores`.
    """
    votes = torch.zeros(maps[0].shape[1:], dtype=torch.uint8)
    for each in maps:
        votes += found(each, labels, threshold)
    by_most: NDArray[np.bool_] = (votes > len(maps) // 2).numpy()
    return by_most if by_most.any() else (votes > 0).numpy()


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack([each.float() for each in maps]).mean(0)


def _cleaned(mask: NDArray[np.bool_], maps: Sequence[Tensor], fine: FineConfig) -> NDArray[np.bool_]:
    """A mask without small components of the class, or region, that is the likeliest on average; if that is wanted."""
    if not fine.large_components or bounding_box(mask) is None:
        return mask
    classes = (_mean(maps).argmax(0) + 1).to(torch.uint8).numpy()
    cleaned: NDArray[np.bool_] = mask & ~small_components(np.where(mask, classes, 0).astype(np.uint8))
    return cleaned


def _placed(maps: Tensor, box: BoundingBox, like: Tensor) -> Tensor:
    assert maps.shape[1:] == box_shape(box), "maps of the crop"
    placed = torch.zeros_like(like)
    placed[:, *box_slices(box)] = maps
    return placed
