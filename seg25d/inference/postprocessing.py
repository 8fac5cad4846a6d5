"""Post-processing of predicted labels: thresholds, only the largest component, no small components.

It is chosen by cross-validation (selection/choose_postprocessing.py), stored with the model and applied in prediction.
"""

from typing import Annotated

import cc3d
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.grids import count_numbers
from seg25d.core.records import Record
from seg25d.core.types import IntArray, Spacing
from seg25d.data.labels import Labels, is_any_of


class PostProcessing(Record):
    """Steps of post-processing in their order; by default none. Names are those of `summary.json`: value or region."""

    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """Lowest probability of voxels of each region, or of the only class; given for all of them or for none."""
    largest_foreground: bool = False
    """Whether to keep only the largest component of all foreground."""
    largest: tuple[str, ...] = ()
    """Classes or regions of which only the largest component is kept."""
    smallest_mm3: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Minimum volume of components of classes or regions."""

    @property
    def does_nothing(self) -> bool:
        """Whether there are no steps."""
        return self == PostProcessing()

    def describe(self, labels: Labels | None = None) -> list[str]:
        """Describe each step, with the names of the labels if they are given."""

        def named(key: str) -> str:
            return key if labels is None else labels.name_of(key)

        steps = [f"{named(name)} with a probability of at least {value:g}" for name, value in self.thresholds.items()]
        steps += ["only the largest component of all foreground"] if self.largest_foreground else []
        steps += [f"only the largest component of {named(name)}" for name in self.largest]
        steps += [f"no component of {named(name)} below {volume:.4g} mm3" for name, volume in self.smallest_mm3.items()]
        return steps


def threshold_values(postprocessing: PostProcessing, labels: Labels) -> tuple[float, ...] | None:
    """The thresholds in the order of the labels, see `Labels.from_probabilities`; None if there are none."""
    thresholds = postprocessing.thresholds
    return tuple(thresholds[name] for name in labels.foreground) if thresholds else None


def remove_components(
    indices: NDArray[np.uint8], labels: Labels, spacing_mm: Spacing, postprocessing: PostProcessing
) -> NDArray[np.uint8]:
    """Remove components of predicted labels; thresholds are not applied here.

    Removed voxels of a class become background. Removed voxels of a region get the label of the smallest region painted
    before it that contains all its labels: a removed tumour core becomes tumour.

    Args:
        indices: (D, H, W), internal indices; not changed.
        labels: Meaning of the indices.
        spacing_mm: Spacing of the array.
        postprocessing: Steps to apply.

    Returns:
        (D, H, W), internal indices.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    result = indices.copy()
    if postprocessing.largest_foreground and result.any():
        ids, sizes = components(result > 0)
        result[ids != np.argmax(sizes)] = 0
    voxel_mm3 = float(np.prod(spacing_mm))
    for name, members in labels.foreground.items():
        smallest = postprocessing.smallest_mm3.get(name, 0.0)
        if name not in postprocessing.largest and not smallest:
            continue
        mask = is_any_of(result, members)
        if not mask.any():
            continue
        box = ndimage.find_objects(mask.view(np.uint8))[0]
        ids, sizes = components(mask[box])
        kept = sizes * voxel_mm3 >= smallest
        if name in postprocessing.largest:
            kept &= np.arange(len(sizes)) == np.argmax(sizes)
        kept[0] = True
        result[box][~kept[ids]] = value_beneath(labels, name)
    return result


def components(mask: NDArray[np.bool_]) -> tuple[IntArray, NDArray[np.int64]]:
    """Find connected components of a mask; voxels that share a corner are connected, as in nnU-Net's post-processing.

    Args:
        mask: (D, H, W).

    Returns:
        The number of the component of every voxel, 0 outside the mask; and the voxels per number, 0 for number 0.
    """
    # Neither of bool nor of parts of larger arrays: with lines of n x 1 x 1 of these cc3d 4.1.1 fails ("maximum length
    # exception") or leaves components out.
    ids = cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=26)
    sizes = count_numbers(ids, int(ids.max(initial=0)) + 1)
    sizes[0] = 0
    return ids, sizes


def value_beneath(labels: Labels, name: str) -> int:
    """The internal index of voxels removed from a class or region: background, or that of an enclosing region."""
    if not labels.has_regions:
        return 0
    assert labels.regions_class_order is not None, "regions have an order"
    regions = list(labels.foreground)
    own = set(labels.foreground[name])
    beneath = 0
    for region, value in zip(regions[: regions.index(name)], labels.regions_class_order, strict=False):
        index = labels.values.index(value)
        # A label of the region itself would not remove the voxel from it.
        if own < set(labels.foreground[region]) and index not in own:
            beneath = index
    return beneath
