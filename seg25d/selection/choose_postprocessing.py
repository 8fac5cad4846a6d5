"""Choice of post-processing by cross-validation, as in nnU-Net: kept only if it raises the Dice.

The rules are those of nnU-Net v2 (`nnunetv2/postprocessing/remove_connected_components.py`): first the largest
component of all foreground, accepted if the mean Dice rises and that of no class falls; then every class separately.
Instead of its largest component, a class may keep all components of at least a minimum volume. Each case is read only
once: the Dice of every choice follows from the sizes of the components and their numbers of correct voxels.

Letters: n components of a class in a case.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.grids import count_numbers, count_voxels, joint_box
from seg25d.core.types import IntArray, Spacing
from seg25d.data.labels import IGNORE_INDEX, NUM_INDICES, Labels, is_any_of
from seg25d.inference.postprocessing import PostProcessing, components

LEAST_GAIN = 1e-4
"""Minimum gain in mean Dice for a step to be accepted; smaller ones are not visible in tables."""
NUM_SMALLEST = 12
"""Number of minimum volumes to try per class, evenly spaced on a logarithmic scale."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


class ClassComponents(NamedTuple):
    """The components of one class in one case."""

    sizes: IntArray
    """(n,) number of voxels; this and the next two in the smallest type that holds them, as all cases are kept."""
    counted: IntArray
    """(n,) number of voxels that are not ignored in the truth."""
    hits: IntArray
    """(n,) number of correct voxels."""
    in_largest: NDArray[np.bool_]
    """(n,) whether the component is in the largest component of all foreground."""
    truth_voxels: int
    voxel_mm3: float

    @property
    def volumes_mm3(self) -> NDArray[np.float64]:
        """Volume of each (n,)."""
        return np.multiply(self.sizes, self.voxel_mm3, dtype=np.float64)

    @property
    def truth_mm3(self) -> float:
        """Volume of the truth."""
        return self.truth_voxels * self.voxel_mm3

    def only(self, kept: NDArray[np.bool_]) -> "ClassComponents":
        """Select components by a mask (n,)."""
        sizes, counted, hits = self.sizes[kept], self.counted[kept], self.hits[kept]
        return self._replace(sizes=sizes, counted=counted, hits=hits, in_largest=self.in_largest[kept])


CaseComponents = Mapping[str, ClassComponents]
"""Components of each class or region, by its name in `summary.json`."""


def find_components(
    indices: NDArray[np.uint8], truth: NDArray[np.uint8], labels: Labels, spacing_mm: Spacing
) -> dict[str, ClassComponents]:
    """Find the components of one case, with the counts that the choice needs.

    Args:
        indices: Predicted internal indices (D, H, W).
        truth: True internal indices (D, H, W); `IGNORE_INDEX` where a voxel does not count.
        labels: Meaning of the indices.
        spacing_mm: Spacing of both.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    voxel_mm3 = float(np.prod(spacing_mm))
    foreground, foreground_sizes = components(indices > 0)
    is_in_largest = foreground == np.argmax(foreground_sizes)
    del foreground  # of a large volume, four bytes per voxel
    in_truth, boxes = count_voxels(truth), ndimage.find_objects(indices, max_label=NUM_INDICES - 1)
    found = {}
    for name, members in labels.foreground.items():
        truth_voxels = int(in_truth[list(members)].sum())
        own = [boxes[index - 1] for index in members if boxes[index - 1] is not None]
        if not own:
            none = np.zeros(0, np.uint8)
            found[name] = ClassComponents(none, none, none, none > 0, truth_voxels, voxel_mm3)
            continue
        box = joint_box(own)
        ids, sizes = components(is_any_of(indices[box], members))
        counted = count_numbers(ids, len(sizes), truth[box] != IGNORE_INDEX)
        hits = count_numbers(ids, len(sizes), is_any_of(truth[box], members))
        # A component of a class lies in one component of the foreground, so any of its voxels shows in which.
        in_largest = np.zeros(len(sizes), np.bool_)
        in_largest[ids] = is_in_largest[box]
        voxels, valid, right = (_smallest_type(each[1:]) for each in (sizes, counted, hits))
        found[name] = ClassComponents(voxels, valid, right, in_largest[1:], truth_voxels, voxel_mm3)
    return found


def _smallest_type(numbers: IntArray) -> IntArray:
    """The same numbers, none of them negative: few components have more than 255 voxels, and all fit into 32 bits."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def choose_components(cases: Sequence[CaseComponents]) -> PostProcessing:
    """Choose which components to keep.

    Overlapping regions are judged separately, as if the others stayed the same; the caller has to check whether all
    steps together help.

    Args:
        cases: Results of `find_components`, with the same classes.

    Returns:
        The choice, without thresholds; without any steps if none helps.
    """
    names = list(cases[0]) if cases else []
    before = [_mean_dice([case[name] for case in cases]) for name in names]
    after = [_mean_dice(_in_largest(cases, name)) for name in names]
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    gains = [new - old for old, new in pairs]
    together = bool(gains) and float(np.mean(gains)) >= LEAST_GAIN and min(gains) >= 0
    largest: list[str] = []
    smallest: dict[str, float] = {}
    for name in names:
        one = _choose_for_class(_in_largest(cases, name) if together else [case[name] for case in cases])
        if one == "largest":
            largest.append(name)
        elif one is not None:
            smallest[name] = one
    return PostProcessing(largest_foreground=together, largest=tuple(largest), smallest_mm3=smallest)


def _in_largest(cases: Sequence[CaseComponents], name: str) -> list[ClassComponents]:
    """A copy of the components of one class that are in the largest one of all foreground."""
    return [case[name].only(case[name].in_largest) for case in cases]


def _choose_for_class(cases: Sequence[ClassComponents]) -> Literal["largest"] | float | None:
    """Choose to keep the largest component, or all of at least a minimum volume; None: all components."""
    best = _mean_dice(cases)
    choice: Literal["largest"] | float | None = None
    if best is None:
        return None
    options: list[Literal["largest"] | float] = ["largest", *_smallest_volumes(cases)]
    for option in options:
        dice = _mean_dice([case.only(_select_components(case, option)) for case in cases])
        if dice is not None and dice >= best + LEAST_GAIN:
            best, choice = dice, option
    return choice


def _select_components(case: ClassComponents, option: Literal["largest"] | float) -> NDArray[np.bool_]:
    if option != "largest":
        return case.volumes_mm3 >= option
    kept = np.zeros(len(case.volumes_mm3), np.bool_)
    if len(kept):
        kept[np.argmax(case.volumes_mm3)] = True
    return kept


def _smallest_volumes(cases: Sequence[ClassComponents]) -> list[float]:
    """Minimum volumes to try, between the smallest predicted component and the median of the true objects' volumes."""
    predicted = np.concatenate([case.volumes_mm3 for case in cases])
    truth = [case.truth_mm3 for case in cases if case.truth_voxels]
    if not (len(predicted) and truth) or predicted.min() >= np.median(truth):
        return []
    # Rounded before they are tried, so that the values tried and stored are equal.
    volumes = np.geomspace(1.001 * predicted.min(), np.median(truth), NUM_SMALLEST)
    return [float(f"{volume:.4g}") for volume in volumes]


def _mean_dice(cases: Sequence[ClassComponents]) -> float | None:
    """Mean Dice over the cases in which the class is predicted or true; None if there is none."""
    scores = [
        2 * int(case.hits.sum()) / total for case in cases if (total := int(case.counted.sum()) + case.truth_voxels) > 0
    ]
    return float(np.mean(scores)) if scores else None


class Histograms(NamedTuple):
    """Numbers of voxels of a case with a probability of at least each of `THRESHOLDS`, for one region."""

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
    """Count the voxels of a case above each threshold, for one region.

    Args:
        probabilities: Probabilities (n,) of some voxels.
        truth: Mask (n,) of the voxels that belong to the region.
        counts: Mask (n,) of the voxels that are not ignored.
    """
    # In the precision in which probabilities are converted to labels.
    above = np.searchsorted(np.array(THRESHOLDS, probabilities.dtype), probabilities, side="right")
    histograms = [
        np.bincount(above[chosen], minlength=len(THRESHOLDS) + 1) for chosen in (truth & counts, ~truth & counts)
    ]
    inside, outside = (histogram[::-1].cumsum()[::-1][1:] for histogram in histograms)
    return Histograms(inside, outside, int((truth & counts).sum()))


def choose_threshold(cases: Sequence[Histograms], current: float) -> float:
    """The threshold with the best mean Dice, or the current one if none is better by `LEAST_GAIN`.

    Args:
        cases: Histograms of one region.
        current: One of `THRESHOLDS`, or another value.
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
