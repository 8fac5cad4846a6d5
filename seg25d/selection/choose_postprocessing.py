"""Post-processing chosen by cross-validation, as nnU-Net does it: kept only where it helps.

The rules are those of nnU-Net v2 (`nnunetv2/postprocessing/remove_connected_components.py`): first the largest
component of all foreground, accepted if the mean Dice rises and that of no class falls; then every class by itself.
Beside its largest component a class may keep all components from a smallest volume on. A case is read once: what every
choice does to the Dice follows from the sizes of components and from how much of them is right.

Letters: n components of a class in a case.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import IntArray, Spacing
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.inference.postprocessing import PostProcessing, components

LEAST_GAIN = 1e-4
"""Minimum gain in mean Dice for a step to be accepted: less is not seen in any table."""
NUM_SMALLEST = 12
"""Smallest volumes that are tried per class, evenly spaced in their logarithm."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


class ClassComponents(NamedTuple):
    """The components of one class in one case."""

    volumes_mm3: NDArray[np.float64]
    """(n,)"""
    counted: IntArray
    """(n,) voxels that count, which are all but those that the truth ignores."""
    hits: IntArray
    """(n,) voxels that are right."""
    in_largest: NDArray[np.bool_]
    """(n,) whether it is in the largest component of all foreground."""
    truth_voxels: int
    truth_mm3: float

    def only(self, stays: NDArray[np.bool_]) -> "ClassComponents":
        """The components (n,) that stay."""
        return ClassComponents(
            self.volumes_mm3[stays],
            self.counted[stays],
            self.hits[stays],
            self.in_largest[stays],
            self.truth_voxels,
            self.truth_mm3,
        )


CaseComponents = Mapping[str, ClassComponents]
"""Per class or region, by its name in `summary.json`."""


def find_components(
    indices: NDArray[np.uint8], truth: NDArray[np.uint8], labels: Labels, spacing_mm: Spacing
) -> dict[str, ClassComponents]:
    """What choosing needs to know of one case.

    Args:
        indices: (D, H, W) predicted, internal indices.
        truth: (D, H, W), internal indices; `IGNORE_INDEX` where a voxel does not count.
        labels: What they mean.
        spacing_mm: Of both.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    voxel_mm3 = float(np.prod(spacing_mm))
    foreground, foreground_sizes = components(indices > 0)
    largest = np.argmax(foreground_sizes)
    found = {}
    for name, members in labels.foreground.items():
        of_truth = np.isin(truth, members)
        truth_voxels = int(of_truth.sum())
        truth_mm3 = truth_voxels * voxel_mm3
        mask = np.isin(indices, members)
        if not mask.any():
            none = np.zeros(0, np.int64)
            found[name] = ClassComponents(none.astype(float), none, none, none > 0, truth_voxels, truth_mm3)
            continue
        box = ndimage.find_objects(mask.view(np.uint8))[0]
        ids, sizes = components(mask[box])
        flat, num = ids.ravel(), len(sizes)
        counted = np.bincount(flat, (truth[box] != IGNORE_INDEX).ravel(), num).astype(np.int64)
        hits = np.bincount(flat, of_truth[box].ravel(), num).astype(np.int64)
        # A component of a class is in one component of the foreground: any of its voxels tells in which.
        in_largest = np.zeros(num, np.bool_)
        in_largest[flat] = (foreground[box] == largest).ravel()
        found[name] = ClassComponents(
            np.multiply(sizes[1:], voxel_mm3, dtype=np.float64),
            counted[1:],
            hits[1:],
            in_largest[1:],
            truth_voxels,
            truth_mm3,
        )
    return found


def choose_components(cases: Sequence[CaseComponents]) -> PostProcessing:
    """Choose which components stay.

    For regions that overlap each is judged as if the others stayed as they are; whether all of it helps together is for
    the caller to see.

    Args:
        cases: Of `find_components`; with the same classes.

    Returns:
        The choice, without thresholds; nothing is done where nothing helps.
    """
    names = list(cases[0]) if cases else []
    before = [_mean_dice([case[name] for case in cases]) for name in names]
    kept = [{name: each.only(each.in_largest) for name, each in case.items()} for case in cases]
    after = [_mean_dice([case[name] for case in kept]) for name in names]
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    gains = [new - old for old, new in pairs]
    together = bool(gains) and float(np.mean(gains)) >= LEAST_GAIN and min(gains) >= 0
    largest: list[str] = []
    smallest: dict[str, float] = {}
    for name in names:
        one = _choose_for_class([case[name] for case in (kept if together else cases)])
        if one == "largest":
            largest.append(name)
        elif one is not None:
            smallest[name] = one
    return PostProcessing(largest_foreground=together, largest=tuple(largest), smallest_mm3=smallest)


def _choose_for_class(cases: Sequence[ClassComponents]) -> Literal["largest"] | float | None:
    """Whether the largest component stays, or all from a volume on; None: all of them."""
    best = _mean_dice(cases)
    choice: Literal["largest"] | float | None = None
    if best is None:
        return None
    options: list[Literal["largest"] | float] = ["largest", *_smallest_volumes(cases)]
    for option in options:
        dice = _mean_dice([case.only(_stays(case, option)) for case in cases])
        if dice is not None and dice >= best + LEAST_GAIN:
            best, choice = dice, option
    return choice


def _stays(case: ClassComponents, option: Literal["largest"] | float) -> NDArray[np.bool_]:
    if option != "largest":
        return case.volumes_mm3 >= option
    stays = np.zeros(len(case.volumes_mm3), np.bool_)
    if len(stays):
        stays[np.argmax(case.volumes_mm3)] = True
    return stays


def _smallest_volumes(cases: Sequence[ClassComponents]) -> list[float]:
    """Volumes between the smallest component that was predicted and the median of the true objects' volumes."""
    predicted = np.concatenate([case.volumes_mm3 for case in cases])
    truth = [case.truth_mm3 for case in cases if case.truth_voxels]
    if not (len(predicted) and truth) or predicted.min() >= np.median(truth):
        return []
    # Rounded up, so that what is written is what was tried.
    volumes = np.geomspace(1.001 * predicted.min(), np.median(truth), NUM_SMALLEST)
    return [float(f"{volume:.4g}") for volume in volumes]


def _mean_dice(cases: Sequence[ClassComponents]) -> float | None:
    """Over the cases in which the class is predicted or true; None if there is none."""
    scores = [
        2 * int(case.hits.sum()) / total for case in cases if (total := int(case.counted.sum()) + case.truth_voxels) > 0
    ]
    return float(np.mean(scores)) if scores else None


class Histograms(NamedTuple):
    """How many voxels of a case have at least each of `THRESHOLDS`, for one region."""

    inside: IntArray
    """Counts of the voxels of the truth."""
    outside: IntArray
    """Counts of all other voxels that are not ignored."""
    truth_voxels: int

    def plus(self, other: "Histograms") -> "Histograms":
        """Sum of the counts of two parts of a case."""
        return Histograms(
            self.inside + other.inside, self.outside + other.outside, self.truth_voxels + other.truth_voxels
        )


def count_above_thresholds(
    probabilities: NDArray[np.floating[Any]], truth: NDArray[np.bool_], counts: NDArray[np.bool_]
) -> Histograms:
    """Count the voxels of a case for one region.

    Args:
        probabilities: (n,) of any voxels.
        truth: (n,) whether they belong to it.
        counts: (n,) whether they count at all.
    """
    # In the precision in which labels are made of probabilities.
    above = np.searchsorted(np.array(THRESHOLDS, probabilities.dtype), probabilities, side="right")
    histograms = [
        np.bincount(above[chosen], minlength=len(THRESHOLDS) + 1) for chosen in (truth & counts, ~truth & counts)
    ]
    inside, outside = (histogram[::-1].cumsum()[::-1][1:] for histogram in histograms)
    return Histograms(inside, outside, int((truth & counts).sum()))


def choose_threshold(cases: Sequence[Histograms], current: float) -> float:
    """The threshold with the best mean Dice, or the current one where none is better by `LEAST_GAIN`.

    Args:
        cases: Of one region.
        current: Of `THRESHOLDS`, or another.
    """
    scores = np.full((len(cases), len(THRESHOLDS)), np.nan)
    for row, case in zip(scores, cases, strict=True):
        total = case.inside + case.outside + case.truth_voxels
        np.divide(2 * case.inside, total, out=row, where=total > 0)
    known = ~np.isnan(scores)
    if not known.any():
        return current
    means = np.where(known.any(0), np.nansum(scores, 0) / np.maximum(known.sum(0), 1), -1.0)
    nearest = int(np.argmin(np.abs(np.subtract(THRESHOLDS, current))))
    best = int(np.argmax(means))
    return THRESHOLDS[best] if means[best] >= means[nearest] + LEAST_GAIN else current
