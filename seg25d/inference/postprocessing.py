"""What is done to labels after the networks: only the largest component, no small components, thresholds of their own.

Chosen by cross-validation (selection/choose_postprocessing.py), stored beside the model, applied wherever it predicts.
"""

from typing import Annotated

import cc3d
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.records import Record
from seg25d.core.types import IntArray, Spacing
from seg25d.data.labels import Labels


class PostProcessing(Record):
    """What is done, in this order; by default nothing. Names are those of `summary.json`: a value, or a region."""

    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    """Probability from which on a voxel belongs to a region, or to the only class; all of them or none are given."""
    largest_foreground: bool = False
    """Only the largest component of all foreground stays."""
    largest: tuple[str, ...] = ()
    """Only the largest component of these stays."""
    smallest_mm3: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Components of these stay from this volume on."""

    @property
    def does_nothing(self) -> bool:
        """Whether labels stay as they are."""
        return self == PostProcessing()

    def describe(self, labels: Labels | None = None) -> list[str]:
        """A sentence per step; with the names of classes where labels say them."""

        def named(key: str) -> str:
            return key if labels is None else labels.name_of(key)

        steps = [f"{named(name)} from probability {value:g} on" for name, value in self.thresholds.items()]
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
    """Remove components of predicted labels; thresholds are not its business.

    What is removed of a class becomes background; what is removed of a region becomes what the smallest region painted
    before it makes of it that has all its labels: of a core without its tumour there remains the tumour.

    Args:
        indices: (D, H, W), internal indices; not changed.
        labels: What they mean.
        spacing_mm: Of the array.
        postprocessing: Which components stay.

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
        mask = np.isin(result, members)
        if not mask.any():
            continue
        box = ndimage.find_objects(mask.view(np.uint8))[0]
        ids, sizes = components(mask[box])
        stays = sizes * voxel_mm3 >= smallest
        if name in postprocessing.largest:
            stays &= np.arange(len(sizes)) == np.argmax(sizes)
        stays[0] = True
        result[box][~stays[ids]] = value_beneath(labels, name)
    return result


def components(mask: NDArray[np.bool_]) -> tuple[IntArray, NDArray[np.int64]]:
    """Connected components of a mask; voxels that touch by a corner are one, as in nnU-Net's post-processing.

    Args:
        mask: (D, H, W).

    Returns:
        The number of the component of every voxel, 0 outside of the mask; and voxels per number, 0 for number 0.
    """
    ids = cc3d.connected_components(mask, connectivity=26)
    sizes = np.bincount(ids.ravel(), minlength=1).astype(np.int64)
    sizes[0] = 0
    return ids, sizes


def value_beneath(labels: Labels, name: str) -> int:
    """The internal index that is left where a class or region is taken away: background, or that of a region around."""
    if not labels.has_regions:
        return 0
    assert labels.regions_class_order is not None, "regions have an order"
    regions = list(labels.foreground)
    own = set(labels.foreground[name])
    beneath = 0
    for region, value in zip(regions[: regions.index(name)], labels.regions_class_order, strict=False):
        index = labels.values.index(value)
        # Painted with a label that the region itself has, it would not be gone.
        if own < set(labels.foreground[region]) and index not in own:
            beneath = index
    return beneath
