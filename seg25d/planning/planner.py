"""From a data set's fingerprint to its plans."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from seg25d.core.errors import InputError
from seg25d.core.records import digest
from seg25d.core.types import Spacing
from seg25d.data.description import DatasetDescription
from seg25d.planning.channel_rules import choose_normalization, store_name
from seg25d.planning.explanation import configuration_reasons, dataset_reasons, explain
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.geometry import neighbour_context, slicing_axis, target_spacing
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.search import Candidate, Limits, enough_voxels, search
from seg25d.representations.base import VolumeGeometry
from seg25d.representations.projection import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

__all__ = [
    "ANATOMICAL",
    "CONFIGURATIONS",
    "RECIPES",
    "configuration_names",
    "explain",
    "plan_dataset",
    "planning_digest",
]

RECIPES = ("default",)
"""Recipes that there are plans for."""
SUPER_IMAGE_CONTEXT = 0
"""Neighbours per side of super images: none, as in the paper."""
ANATOMICAL = ("axial", "coronal", "sagittal")
"""Configurations that slice along axis 0, 1, 2; `2d` is another name for one of them."""

Candidates: TypeAlias = Callable[[VolumeGeometry, int], Iterable[Candidate]]


def _slices(geometry: VolumeGeometry, slice_axis: int, *, axis: int) -> Iterable[Candidate]:
    del slice_axis
    context = neighbour_context(geometry.spacing_mm, axis, geometry.shape[axis])
    return Slices.candidates(geometry, axis=axis, context=context)


def _super_images(geometry: VolumeGeometry, slice_axis: int) -> Iterable[Candidate]:
    return SuperImage.candidates(geometry, axis=slice_axis, context=SUPER_IMAGE_CONTEXT)


def _projections(geometry: VolumeGeometry, slice_axis: int) -> Iterable[Candidate]:
    del slice_axis
    return Projections.candidates(geometry)


def _volumes(geometry: VolumeGeometry, slice_axis: int) -> Iterable[Candidate]:
    del slice_axis
    return Volume.candidates(geometry)


CONFIGURATIONS: Mapping[str, Candidates] = {
    **{name: partial(_slices, axis=axis) for axis, name in enumerate(ANATOMICAL)},
    "si": _super_images,
    "mip": _projections,
    "3d": _volumes,
}
"""What the search walks, by configuration: geometry and slicing axis to representations with windows."""


def plan_dataset(
    fingerprint: Fingerprint,
    description: DatasetDescription,
    *,
    configurations: Sequence[str] | None = None,
    gpu_memory_gb: float = 8,
    recipe: str = "default",
    plans_name: str = DEFAULT_PLANS_NAME,
) -> Plans:
    """Plan configurations of a data set.

    Args:
        fingerprint: What the data set is like; at least one case.
        description: Its channels and labels.
        configurations: Names of `CONFIGURATIONS`, or `2d` for the slices along the coarsest axis, which is planned
            under its anatomical name; None or nothing: all.
        gpu_memory_gb: Memory that a training step may take.
        recipe: One of `RECIPES`.
        plans_name: Name of the plans.

    Raises:
        InputError: If a name is unknown, a channel's name is wrong, or the memory is too small for a configuration.
    """
    if recipe not in RECIPES:
        raise InputError(f"there are no plans for recipe {recipe!r}; known: {', '.join(RECIPES)}")
    spacing_mm, anisotropic = _target_spacing(fingerprint)
    slice_axis = slicing_axis(spacing_mm)
    names = configuration_names(configurations, slice_axis)
    normalization = tuple(
        choose_normalization(channel, intensities)
        for channel, intensities in zip(description.channel_names, fingerprint.intensities, strict=True)
    )
    mirror_axes = tuple(axis for axis in range(3) if axis not in description.labels.directed_axes)
    total_voxels = fingerprint.total_voxels_at(spacing_mm)
    geometry = VolumeGeometry(
        shape=fingerprint.median_shape_at(spacing_mm),
        spacing_mm=spacing_mm,
        enough_voxels=enough_voxels(total_voxels, fingerprint.num_cases, gpu_memory_gb),
        num_outputs=description.labels.num_outputs,
        has_regions=description.labels.has_regions,
    )
    planned = {}
    for name in names:
        limits = Limits(
            configuration=name,
            geometry=geometry,
            num_channels=len(description.channel_names),
            num_outputs=description.labels.num_outputs,
            num_cases=fingerprint.num_cases,
            total_voxels=total_voxels,
            gpu_memory_gb=gpu_memory_gb,
        )
        planned[name] = _plan_configuration(limits, slice_axis, normalization, mirror_axes)
    return Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        recipe=recipe,
        gpu_memory_gb=gpu_memory_gb,
        planned_from=planning_digest(fingerprint, description),
        slice_axis=slice_axis,
        reasons=dataset_reasons(fingerprint, geometry, anisotropic, normalization, mirror_axes, gpu_memory_gb),
        configurations=planned,
    )


def _plan_configuration(
    limits: Limits, slice_axis: int, normalization: tuple[ChannelNormalization, ...], mirror_axes: tuple[int, ...]
) -> ConfigurationPlan:
    fit = search(CONFIGURATIONS[limits.configuration](limits.geometry, slice_axis), limits)
    spacing_mm = limits.geometry.spacing_mm
    return ConfigurationPlan(
        spacing_mm=spacing_mm,
        normalization=normalization,
        store=store_name(spacing_mm, normalization),
        window=fit.window,
        batch_size=fit.batch_size,
        representation=fit.representation,
        network=fit.network,
        mirror_axes=mirror_axes,
        estimated_memory_gb=round(fit.total_bytes / GIGABYTE, 3),
        num_parameters=fit.memory.num_parameters,
        reasons=configuration_reasons(fit, limits),
    )


def _target_spacing(fingerprint: Fingerprint) -> tuple[Spacing, bool]:
    (depth, height, width), anisotropic = target_spacing(fingerprint.spacings_mm, fingerprint.cropped_shapes)
    # Headers store spacings in single precision; six digits are what is meant.
    return (round(depth, 6), round(height, 6), round(width, 6)), anisotropic


def planning_digest(fingerprint: Fingerprint, description: DatasetDescription) -> str:
    """A digest of what is known of the data when it is planned; the same digest gives the same plans."""
    content = {
        "fingerprint": fingerprint.model_dump(mode="json"),
        "channel_names": description.channel_names,
        "labels": description.labels.model_dump(mode="json"),
    }
    return digest(content)


def configuration_names(configurations: Sequence[str] | None, slice_axis: int) -> list[str]:
    """The configurations to plan, `2d` replaced, in the order of `CONFIGURATIONS`, each once; None or nothing: all.

    Raises:
        InputError: If a name is unknown; lists the known ones.
    """
    wanted = [ANATOMICAL[slice_axis] if name == "2d" else name for name in configurations or CONFIGURATIONS]
    unknown = sorted(set(wanted) - set(CONFIGURATIONS))
    if unknown:
        raise InputError(f"unknown configuration(s) {', '.join(unknown)}; known: 2d, {', '.join(CONFIGURATIONS)}")
    return [name for name in CONFIGURATIONS if name in wanted]
