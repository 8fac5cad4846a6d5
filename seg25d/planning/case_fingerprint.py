"""Measurements of one case, from one reading of its files.

Letters: C channels, D H W volume.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from seg25d.core.grids import bounding_box, box_shape, box_slices, content_box, count_voxels
from seg25d.core.limits import VolumeShape
from seg25d.core.names import CaseName
from seg25d.core.records import Record
from seg25d.core.types import Spacing
from seg25d.data.cases import Case
from seg25d.data.labelled_slices import count_labelled_slices
from seg25d.data.labels import IGNORE_INDEX, Labels

NUM_QUANTILES = 1000
"""Number of intensities kept per case and channel, 4 kB: evenly spaced ranks of all foreground voxels, so that 0.5 and
99.5 percent are five ranks from the ends. nnU-Net draws 1e8 / cases at random instead (fingerprint_extractor.py), up to
400 MB per channel."""


class ChannelIntensities(Record):
    """Intensities of foreground voxels in one channel."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(Record):
    """Properties of one case, all in canonical orientation (D, H, W)."""

    case: CaseName
    shape: VolumeShape
    """Voxels of the file."""
    cropped_shape: VolumeShape
    """Voxels after cropping to content."""
    spacing_mm: Spacing
    orientation: str = Field(max_length=3)
    """Directions in which the axes of the file point, such as LPS (left, posterior, superior)."""
    intensities: tuple[ChannelIntensities, ...] | None
    """Intensities of foreground voxels, per channel; None if the case has none."""
    voxels: dict[str, int]
    """Number of voxels per class or region."""
    components: dict[str, int]
    """Number of connected components (26 neighbours) per class or region."""
    extent_voxels: VolumeShape
    """Size of the box around all foreground; 0 when there is none."""
    extent_mm: tuple[float, float, float]
    foreground_fraction: float
    """Share of foreground among the voxels that are not ignored."""
    labelled_slices: VolumeShape | None = None
    """Slices along each axis with a voxel that is not ignored; None without an `ignore` label, and in measurements of
    earlier versions."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the slices out where they are unknown, so that files stay those of earlier versions."""
        values: dict[str, Any] = write(self)
        return {name: value for name, value in values.items() if name != "labelled_slices" or value is not None}


class MeasuredCase(Record):
    """A case's fingerprint, and the quantiles of its intensities."""

    fingerprint: CaseFingerprint
    quantiles: str
    """Ascending intensities of foreground voxels: (C, 1000) float32 in base64; empty when there is none."""

    def quantiles_of(self, channel: int) -> NDArray[np.float32]:
        """The 1000 quantiles of a channel.

        Raises:
            ValueError: If the case has no foreground, or the text is damaged.
        """
        values = np.frombuffer(base64.b64decode(self.quantiles), "<f4").astype(np.float32)
        chosen: NDArray[np.float32] = values.reshape(-1, NUM_QUANTILES)[channel]
        return chosen


def measure_case(case: Case, labels: Labels) -> MeasuredCase:
    """Read a case and measure it.

    Raises:
        ImageError: If a file cannot be read.
        DatasetError: If the labels hold a value that is not declared.
    """
    from seg25d.data.image_io import read_image, read_labels  # noqa: PLC0415 - loads SimpleITK

    assert case.label is not None, "training cases have labels"
    image, geometry = read_image(case.images, check_finite=False)  # checked by the verification
    original, _ = read_labels(case.label, labels.names)
    indices = labels.encode(original, str(case.label))
    depth, height, width = indices.shape
    foreground = (indices > 0) & (indices != IGNORE_INDEX)
    box = bounding_box(foreground)
    spacing_mm = geometry.canonical_spacing_mm
    extent = box_shape(box) if box else (0, 0, 0)
    may_ignore = labels.ignore_value is not None
    num_ignored = int(np.count_nonzero(indices == IGNORE_INDEX)) if may_ignore else 0
    quantiles, intensities = _intensities(image, foreground) if box else ("", None)
    voxels, components = count_classes(indices[box_slices(box)] if box else indices[:0], labels.foreground)
    fingerprint = CaseFingerprint(
        case=case.name,
        shape=(depth, height, width),
        cropped_shape=box_shape(content_box(image)),
        spacing_mm=spacing_mm,
        orientation=geometry.orientation,
        intensities=intensities,
        voxels=voxels,
        components=components,
        extent_voxels=extent,
        extent_mm=(extent[0] * spacing_mm[0], extent[1] * spacing_mm[1], extent[2] * spacing_mm[2]),
        foreground_fraction=int(np.count_nonzero(foreground)) / max(1, indices.size - num_ignored),
        labelled_slices=count_labelled_slices(indices) if may_ignore else None,
    )
    return MeasuredCase(fingerprint=fingerprint, quantiles=quantiles)


def count_classes(
    indices: NDArray[np.uint8], foreground: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Count voxels and connected components (26 neighbours) per class or region.

    Args:
        indices: (D, H, W) internal indices; may be empty.
        foreground: Per name, the indices that belong to it.

    Returns:
        Two dictionaries by name.
    """
    if indices.size == 0:
        return dict.fromkeys(foreground, 0), dict.fromkeys(foreground, 0)
    # One pass counts the components of all classes; only regions of several classes need their own.
    voxels_of, components_of = _count_indices(indices)
    voxels, components = {}, {}
    for name, members in foreground.items():
        voxels[name] = sum(int(voxels_of[member]) for member in members)
        if len(members) == 1:
            components[name] = int(components_of[members[0]])
        else:
            components[name] = int(_count_indices(np.isin(indices, members).view(np.uint8))[1][1])
    return voxels, components


def pooled_intensities(cases: Sequence[MeasuredCase], channel: int) -> ChannelIntensities | None:
    """Pool the intensities of a data set: every case with foreground has equal weight at any size, as in nnU-Net.

    Mean, deviation and range come from all voxels, percentiles from the cases' quantiles.

    Returns:
        None when no case has foreground.
    """
    chosen = [case for case in cases if case.fingerprint.intensities]
    if not chosen:
        return None
    each = [case.fingerprint.intensities[channel] for case in chosen if case.fingerprint.intensities]
    means, stds = np.array([one.mean for one in each]), np.array([one.std for one in each])
    low, median, high = np.percentile(np.concatenate([case.quantiles_of(channel) for case in chosen]), (0.5, 50, 99.5))
    return ChannelIntensities(
        mean=float(means.mean()),
        std=float(np.sqrt((stds**2).mean() + means.var())),
        median=float(median),
        minimum=min(one.minimum for one in each),
        maximum=max(one.maximum for one in each),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _intensities(
    image: NDArray[np.float32], foreground: NDArray[np.bool_]
) -> tuple[str, tuple[ChannelIntensities, ...]]:
    quantiles, intensities = [], []
    for channel in image:
        values = np.sort(channel[foreground])
        ranks = ((np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES * values.size).astype(int)
        low, median, high = np.percentile(values, (0.5, 50, 99.5))
        quantiles.append(values[ranks])
        intensities.append(
            ChannelIntensities(
                mean=float(values.mean(dtype=np.float64)),
                std=float(values.std(dtype=np.float64)),
                median=float(median),
                minimum=float(values[0]),
                maximum=float(values[-1]),
                percentile_00_5=float(low),
                percentile_99_5=float(high),
            )
        )
    packed = base64.b64encode(np.stack(quantiles).astype("<f4").tobytes()).decode()
    return packed, tuple(intensities)


def _count_indices(indices: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count voxels and components per value 0..255."""
    import cc3d  # noqa: PLC0415 - only workers need it

    flat = np.ascontiguousarray(indices)
    components, count = cc3d.connected_components(flat, connectivity=26, return_N=True)
    value_of = np.zeros(count + 1, np.uint8)
    # Every voxel writes the value of its component; all voxels of one component write the same.
    value_of[components.ravel()] = flat.ravel()
    return count_voxels(flat), np.bincount(value_of[1:], minlength=256)
