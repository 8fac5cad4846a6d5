"""How well projections could do at best: the Dice of the hull that perfect views leave (methods.md 3.5)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from seg25d.representations.projection import Projections
from seg25d.representations.projection_schedule import even_angles


class Ceiling(NamedTuple):
    """The best cut through a back-projection."""

    dice: float
    threshold: float
    """Share of the views that a voxel of the prediction has at least."""


def ceiling(mask: Tensor, representation: Projections) -> Ceiling:
    """The Dice of the best threshold on the back-projection of perfect views, from all `num_views` even angles.

    Views are perfect where a pixel is set if half of the largest sample of the mask along its ray is; neither filter
    nor pooling is applied. Whatever the representation projects, the views are silhouettes.

    Args:
        mask: (D, H, W) bool, at least one voxel set.
        representation: Says axis, spacing and number of views.

    Raises:
        ValueError: If the mask is empty: there is no Dice.
    """
    if not mask.any():
        raise ValueError("the mask is empty; leave this class of this case out")
    angles = even_angles(representation.num_views)
    padded = _on_detector(mask, representation)
    silhouettes = representation.model_copy(update={"projection": "max"}).project(padded[None, None].float(), angles)
    hull = representation.back_project((silhouettes >= 0.5).float(), angles, padded.shape) / len(angles)
    return _best_cut(hull[0, 0], padded)


def mean_ceilings(
    cases: Iterable[Tensor], classes: Mapping[str, Sequence[int]], representation: Projections, num_cases: int = 5
) -> dict[str, float | None]:
    """The mean ceiling of each class over its first cases.

    Args:
        cases: Internal labels (D, H, W) at the spacing of the representation.
        classes: Internal indices per class, see `Labels.foreground`.
        representation: See `ceiling`.
        num_cases: Most cases that are looked at.

    Returns:
        Mean Dice per class over the cases that have it; None for a class that none of them has.
    """
    found: dict[str, list[float]] = {name: [] for name in classes}
    for _, labels in zip(range(num_cases), cases, strict=False):
        for name, members in classes.items():
            mask = torch.isin(labels, torch.tensor(members, dtype=labels.dtype, device=labels.device))
            if mask.any():
                found[name].append(ceiling(mask, representation).dice)
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def _on_detector(mask: Tensor, representation: Projections) -> Tensor:
    """The mask with an axis of the detector that is as long as the plane, as planned windows have it."""
    detector_axis = representation.network_axes[1]
    missing = representation.detector_size(mask.shape) - mask.shape[detector_axis]
    padding = [(0, 0)] * 3
    # On both sides: what stays near the axis of rotation stays on the detector.
    padding[detector_axis] = (missing // 2, missing - missing // 2)
    return functional.pad(mask, [number for pair in reversed(padding) for number in pair])


def _best_cut(hull: Tensor, mask: Tensor) -> Ceiling:
    """The threshold, of all values that there are, with the best Dice; the largest of equal ones."""
    values, order = hull.flatten().sort(descending=True)
    overlap = mask.flatten()[order].double().cumsum(0)
    predicted = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    dice = 2 * overlap / (predicted + mask.sum())
    # Equal values are cut together.
    dice[:-1][values[:-1] == values[1:]] = -1
    best = int(dice.argmax())
    return Ceiling(float(dice[best]), float(values[best]))
