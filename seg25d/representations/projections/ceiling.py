"""Upper bound on the Dice of projections: that of the hull that perfect views leave (methods.md 3.5)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from seg25d.representations.projections.schedule import even_angles
from seg25d.representations.projections.views import ViewGeometry

MOST_SLICES, FEWEST_SLICES = 16, 4
"""Number of slices across the rotation axis that are measured per class and case. Slices are independent, so a sample
is enough: with 16 the mean of five cases changed by 0.002 at most (documentation/concepts/choices.md)."""
SHARED_SLICES = 256
"""Maximum number of slices of all classes of a case together, which bounds time and memory."""

GOOD = 0.95
"""Dice from which on projections lose less than half of what trained networks do: 2D models reached 0.81 and 0.87 on
whole validation cases (documentation/concepts/choices.md), the paper's random 2.5D U-Net 0.856 under a ceiling of 0.97
or more (methods.md 3.5 and 3.8). Thin vessels and tumours reach it (documentation/concepts/choices.md)."""
POOR = 0.85
"""Dice below which not even perfect views reach those networks, as for a shell, or for ribs."""
NOT_MEASURED = "not measured: plan_and_preprocess looks at the labels where mip is among the configurations to plan"
MOST_NAMES = 6
"""Maximum number of classes that are listed by name, the worst first."""


class Ceiling(NamedTuple):
    """The best threshold on a back-projection, and its Dice."""

    dice: float
    threshold: float
    """Minimum share of the views that see a voxel of the prediction as foreground."""


def ceiling(mask: Tensor, geometry: ViewGeometry, num_views: int) -> Ceiling:
    """The Dice of the best threshold on the back-projection of perfect views from even angles.

    In a perfect view a pixel is set if the largest sample of the mask along its ray is at least 0.5; neither filter nor
    pooling is applied. The views are silhouettes, for any kind of projection of the images.

    Args:
        mask: (D, H, W) bool, at least one voxel set.
        geometry: Settings of the views.
        num_views: Number of views.

    Raises:
        ValueError: If the mask is empty: there is no Dice.
    """
    if not mask.any():
        raise ValueError("the mask is empty; leave this class of this case out")
    return _ceilings(mask[None], geometry, num_views)[0]


def mean_ceilings(
    cases: Iterable[Tensor], classes: Mapping[str, Sequence[int]], geometry: ViewGeometry, num_views: int
) -> dict[str, float | None]:
    """The mean ceiling of each class over cases, each from a sample of the slices that have the class.

    Args:
        cases: Internal labels (D, H, W) at the spacing of the geometry.
        classes: Internal indices per class, see `Labels.foreground`.
        geometry: See `ceiling`.
        num_views: See `ceiling`.

    Returns:
        Mean Dice per class over the cases that have it; None for a class that none of them has.
    """
    found: dict[str, list[float]] = {name: [] for name in classes}
    num_slices = max(FEWEST_SLICES, min(MOST_SLICES, SHARED_SLICES // max(1, len(classes))))
    for labels in cases:
        samples = {}
        for name, members in classes.items():
            mask = torch.isin(labels, labels.new_tensor(members))
            if mask.any():
                samples[name] = _sample(mask, geometry.axis, num_slices)
        if samples:
            best = _ceilings(torch.stack(list(samples.values())), geometry, num_views)
            for name, each in zip(samples, best, strict=True):
                found[name].append(each.dice)
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def ceiling_reason(dice: Mapping[str, float | None] | None, caution: str | None = None) -> str:
    """Describe the ceilings in words, with advice.

    Args:
        dice: See `mean_ceilings`; None: not measured.
        caution: What speaks against projections of such volumes, whatever their ceiling.
    """
    if dice is None:
        return NOT_MEASURED
    known = {name: value for name, value in dice.items() if value is not None}
    worst_first = sorted(known, key=lambda name: known[name])
    told = _list_names([f"{known[name]:.2f} ({name})" for name in worst_first])
    unknown = [name for name in dice if name not in known]
    left_out = f"; not in the cases looked at: {_list_names(unknown)}" if unknown else ""
    return (
        f"perfect views of training cases, projected back, would reach a mean Dice of {told}{left_out}: "
        f"{_advice({name: known[name] for name in worst_first}, caution)}"
    )


def _advice(dice: Mapping[str, float], caution: str | None) -> str:
    if caution is not None:
        return f"that says little here, as {caution}"
    poor = [name for name, value in dice.items() if value < POOR]
    fair = [name for name, value in dice.items() if value < GOOD]
    if poor:
        return (
            f"mip is not advised for {_list_names(poor)} (below {POOR:g}, even perfect views do worse than other "
            "configurations do in practice); si and 2d lose nothing by their views"
        )
    if fair:
        return (
            f"mip can be tried, but its views lose a part of {_list_names(fair)} (below {GOOD:g}); si and 2d lose "
            "nothing by theirs"
        )
    return f"as far as its views are concerned, mip is a good choice ({GOOD:g} or more for every class)"


def _list_names(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _ceilings(masks: Tensor, geometry: ViewGeometry, num_views: int) -> list[Ceiling]:
    """Compute the ceilings of masks (K, D, H, W), none of them empty, at once, as they share the geometry."""
    angles = even_angles(num_views)
    padded = _on_detector(masks, geometry)
    silhouettes = replace(geometry, projection="max").project(padded[None].float(), angles)
    hulls = geometry.mean_of_views((silhouettes >= 0.5).float(), angles, padded.shape[1:])
    return [_best_cut(hull, mask) for hull, mask in zip(hulls[0], padded, strict=True)]


def _sample(mask: Tensor, axis: int, num_slices: int) -> Tensor:
    """Keep `num_slices` slices along an axis, evenly spread over those that have voxels, and clear the others."""
    filled = mask.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    places = torch.linspace(0, len(filled) - 1, min(num_slices, len(filled)), dtype=torch.float64).round().long()
    chosen = mask.index_select(axis, filled[places])
    padding = [0] * 6
    padding[5 - 2 * axis] = num_slices - len(places)
    return functional.pad(chosen, padding)


def _on_detector(masks: Tensor, geometry: ViewGeometry) -> Tensor:
    """Pad masks (K, D, H, W) so that the detector's axis is as long as in planned windows."""
    shape = masks.shape[1:]
    detector_axis = geometry.plane_axes[1]
    missing = geometry.detector_size(shape) - shape[detector_axis]
    padding = [0] * 6
    # On both sides, so that voxels near the rotation axis stay on the detector.
    padding[4 - 2 * detector_axis] = missing // 2
    padding[5 - 2 * detector_axis] = missing - missing // 2
    return functional.pad(masks, padding)


def _best_cut(hull: Tensor, mask: Tensor) -> Ceiling:
    """Find the threshold with the best Dice among all values of the hull; the largest of equally good ones."""
    values, order = hull.flatten().sort(descending=True)
    overlap = mask.flatten()[order].double().cumsum(0)
    predicted = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    dice = 2 * overlap / (predicted + mask.sum())
    # Voxels of equal value fall on the same side of a threshold.
    dice[:-1][values[:-1] == values[1:]] = -1
    best = int(dice.argmax())
    return Ceiling(float(dice[best]), float(values[best]))
