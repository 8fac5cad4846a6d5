"""Upper bound on the Dice of projections: that of the hull that perfect views leave (methods.md 3.5)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import bounding_box, box_slices, count_voxels
from seg25d.representations.projections.plane import Plane, ViewAxes
from seg25d.representations.projections.schedule import even_angles
from seg25d.representations.projections.silhouettes import PlaneMask, candidates, hull, silhouettes

MOST_SLICES, FEWEST_SLICES = 16, 4
"""Number of slices across the rotation axis that are measured per class and case. Slices are independent, so a sample
is enough: with 16 the mean of five cases changed by 0.002 at most (documentation/concepts/choices.md)."""
SHARED_SLICES = 256
"""Maximum number of slices of all classes of a case together, which bounds time and memory."""
SHARES = (0.75, 0.5, 0.0)
"""Shares of the views that pixels are looked at from; the next one is tried where a lower threshold might be better.
Thresholds were 0.84 and more for vessels (methods.md 3.5)."""

GOOD = 0.95
"""Dice from which on projections lose less than half of what trained networks do: 2D models reached 0.81 and 0.87 on
whole validation cases (documentation/concepts/choices.md), the paper's random 2.5D U-Net 0.856 under a ceiling of 0.97
or more (methods.md 3.5 and 3.8). Thin vessels and tumours reach it (documentation/concepts/choices.md)."""
POOR = 0.85
"""Dice below which not even perfect views reach those networks, as for a shell, or for ribs."""
NOT_MEASURED = "not measured: plan_and_preprocess looks at the labels where mip is among the configurations to plan"
_SLICES_TOGETHER = 16
"""Slices that are made contiguous together: single ones along the last axis would take each voxel from another line of
the cache."""
MOST_NAMES = 6
"""Maximum number of classes that are listed by name, the worst first."""


class Ceiling(NamedTuple):
    """The best threshold on a back-projection, and its Dice."""

    dice: float
    threshold: float
    """Minimum share of the views that see a voxel of the prediction as foreground."""


def ceiling(mask: NDArray[np.bool_], axes: ViewAxes, num_views: int) -> Ceiling:
    """The Dice of the best threshold on the back-projection of perfect views from even angles.

    In a perfect view a pixel is set if the largest sample of the mask along its ray is at least 0.5; neither filter nor
    pooling is applied. The views are silhouettes, for any kind of projection of the images.

    Args:
        mask: (D, H, W), at least one voxel set.
        axes: Where the views lie.
        num_views: Number of views.

    Raises:
        ValueError: If the mask is empty: there is no Dice.
    """
    if not mask.any():
        raise ValueError("the mask is empty; leave this class of this case out")
    return _ceilings([_planes(mask, axes)], axes, mask.shape, num_views)[0]


def case_ceilings(
    labels: NDArray[np.uint8], classes: Mapping[str, Sequence[int]], axes: ViewAxes, num_views: int
) -> dict[str, float]:
    """The ceiling of each class in a case, from a sample of the slices that have the class.

    Args:
        labels: Internal labels (D, H, W) at the spacing of the axes.
        classes: Internal indices per class, see `Labels.foreground`.
        axes: See `ceiling`.
        num_views: See `ceiling`.

    Returns:
        Dice per class that the case has.
    """
    num_slices = max(FEWEST_SLICES, min(MOST_SLICES, SHARED_SLICES // max(1, len(classes))))
    present = _values_of_slices(labels, axes.axis)
    samples = {}
    for name, members in classes.items():
        filled = np.flatnonzero(present[:, list(members)].any(1))
        if filled.size:
            places = np.rint(np.linspace(0, len(filled) - 1, min(num_slices, len(filled)))).astype(int)
            samples[name] = _planes(np.isin(labels.take(filled[places], axes.axis), list(members)), axes)
    best = _ceilings(list(samples.values()), axes, labels.shape, num_views)
    return {name: each.dice for name, each in zip(samples, best, strict=True)}


def ceiling_reason(dice: Mapping[str, float | None] | None, caution: str | None = None) -> str:
    """Describe the ceilings in words, with advice.

    Args:
        dice: Means of `case_ceilings`, None for classes that no case has; None: not measured.
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


def _ceilings(masks: Sequence[PlaneMask], axes: ViewAxes, shape: Sequence[int], num_views: int) -> list[Ceiling]:
    """Compute the ceilings of masks at once, as they share the geometry of the volume's plane."""
    plane, angles = axes.plane(shape), even_angles(num_views)
    # On both sides, so that voxels near the rotation axis stay on the detector, which is as long as in planned windows.
    before = (axes.detector_size(shape) - plane.size[1]) // 2
    plane = Plane((plane.size[0], axes.detector_size(shape)), plane.spacing_mm)
    masks = [PlaneMask(mask.voxels, (mask.corner[0], mask.corner[1] + before)) for mask in masks]
    views = silhouettes(masks, plane, angles)
    return [_best_cut(mask, seen, plane, angles) for mask, seen in zip(masks, views, strict=True)]


def _values_of_slices(labels: NDArray[np.uint8], axis: int) -> NDArray[np.bool_]:
    """Whether each slice along an axis has each value 0..255: (slices, 256)."""
    slices = np.moveaxis(labels, axis, 0)
    present = np.empty((len(slices), 256), np.bool_)
    for start in range(0, len(slices), _SLICES_TOGETHER):
        together = np.ascontiguousarray(slices[start : start + _SLICES_TOGETHER])
        present[start : start + _SLICES_TOGETHER] = [count_voxels(each[None]) > 0 for each in together]
    return present


def _planes(mask: NDArray[np.bool_], axes: ViewAxes) -> PlaneMask:
    """The box of a mask (D, H, W), not empty, in the plane."""
    planes = mask.transpose(axes.axis, *axes.plane_axes)
    box = bounding_box(planes)
    assert box is not None, "classes that are absent were left out"
    return PlaneMask(planes[box_slices(box)], (box[1][0], box[2][0]))


def _best_cut(mask: PlaneMask, views: NDArray[np.bool_], plane: Plane, angles: Sequence[float]) -> Ceiling:
    """Find the threshold with the best Dice among all values of the hull; the largest of equally good ones."""
    height, width = mask.voxels.shape[1:]
    box = slice(mask.corner[0], mask.corner[0] + height), slice(mask.corner[1], mask.corner[1] + width)
    for share in SHARES:
        looked_at = candidates(views, plane, angles, share)
        looked_at[box] |= mask.voxels.any(0)
        foreground = np.zeros((len(mask.voxels), *plane.size), np.bool_)
        foreground[:, *box] = mask.voxels
        values = hull(views, plane, angles, looked_at.nonzero())
        best = _best_threshold(values, foreground[:, looked_at].T)
        # Below the share pixels are missing, so that lower thresholds seem better than they are.
        if best.threshold >= share:
            return best
    raise AssertionError("the last share is that of all pixels")


def _best_threshold(values: NDArray[np.float32], foreground: NDArray[np.bool_]) -> Ceiling:
    """The best threshold is the value of a voxel of the foreground: others of that value or above it are wrong."""
    own = np.sort(values[foreground])[::-1]
    wrong = np.sort(values[~foreground])
    # Voxels of equal value fall on the same side of a threshold.
    last = np.flatnonzero(np.append(own[1:] != own[:-1], True))
    predicted = last + 1 + len(wrong) - np.searchsorted(wrong, own[last])
    dice = 2 * (last + 1) / (predicted + len(own))
    best = int(dice.argmax())
    return Ceiling(float(dice[best]), float(own[last[best]]))
