"""From a data set's fingerprint to its plans."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from seg25d.core.errors import InputError
from seg25d.core.records import digest
from seg25d.core.types import Shape, Spacing
from seg25d.data.description import DatasetDescription
from seg25d.planning.channel_rules import store_name
from seg25d.planning.explanation import configuration_reasons, dataset_reasons, explain, recipe_reasons
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.geometry import neighbour_context, slicing_axis, target_spacing
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.network_rules import check_network
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.recipe_rules import (
    ANATOMICAL,
    DEFAULT_RULES,
    ConfigurationRules,
    PlanningRules,
    find_rules,
)
from seg25d.planning.search import Candidate, Limits, enough_voxels, search
from seg25d.representations.base import Representation, VolumeGeometry
from seg25d.representations.fused_views import VIEWS, FusedViews
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

__all__ = [
    "ANATOMICAL",
    "CONFIGURATIONS",
    "configuration_name",
    "configuration_names",
    "explain",
    "plan_dataset",
    "planning_digest",
    "split_name",
]

SUPER_IMAGE_CONTEXT = 0
"""Neighbours per side of super images: none, as in the paper."""

Candidates: TypeAlias = Callable[[VolumeGeometry, int, ConfigurationRules], Iterable[Candidate]]


def _slices(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules, *, axis: int) -> Iterable[Candidate]:
    del slice_axis
    if rules.batch_size is not None:
        geometry = geometry.model_copy(update={"enough_voxels": None})
    context = rules.context
    if context is None:
        context = neighbour_context(geometry.spacing_mm, axis, geometry.shape[axis])
    return Slices.candidates(_at_most(geometry, axis, rules.num_slices), axis=axis, context=context)


def _super_images(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules) -> Iterable[Candidate]:
    context = SUPER_IMAGE_CONTEXT if rules.context is None else rules.context
    return SuperImage.candidates(geometry, axis=slice_axis, context=context)


def _stacks(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules) -> Iterable[Candidate]:
    return Stack.candidates(_at_most(geometry, slice_axis, rules.num_slices), axis=slice_axis)


def _projections(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules) -> Iterable[Candidate]:
    del slice_axis, rules
    return Projections.candidates(geometry)


def _fused_views(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules) -> Iterable[Candidate]:
    del slice_axis, rules
    return FusedViews.candidates(geometry)


def _volumes(geometry: VolumeGeometry, slice_axis: int, rules: ConfigurationRules) -> Iterable[Candidate]:
    del slice_axis, rules
    return Volume.candidates(geometry)


def _at_most(geometry: VolumeGeometry, axis: int, num_slices: int | None) -> VolumeGeometry:
    """The geometry with no more slices than this."""
    if num_slices is None:
        return geometry
    sizes: list[int] = list(geometry.shape)
    sizes[axis] = min(sizes[axis], num_slices)
    shape: Shape = (sizes[0], sizes[1], sizes[2])
    return geometry.model_copy(update={"shape": shape})


class Method(NamedTuple):
    """What a configuration stands for."""

    representation: type[Representation]
    candidates: Candidates
    """What the search walks: geometry, slicing axis and the recipe's rules to representations with windows."""


CONFIGURATIONS: Mapping[str, Method] = {
    **{name: Method(Slices, partial(_slices, axis=axis)) for axis, name in enumerate(ANATOMICAL)},
    "si": Method(SuperImage, _super_images),
    "stack": Method(Stack, _stacks),
    "mip": Method(Projections, _projections),
    "mv": Method(FusedViews, _fused_views),
    "3d": Method(Volume, _volumes),
}
"""All configurations by name."""


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
            under its anatomical name, each also with a network (`si__se_unet`); None or nothing: all that the recipe is
            meant for.
        gpu_memory_gb: Memory that a training step may take.
        recipe: A name in `PLANNING_RULES`.
        plans_name: Name of the plans.

    Raises:
        InputError: If a name is unknown, a channel's name is wrong, the recipe is not meant for a configuration, or
            the memory is too small for one.
    """
    rules = find_rules(recipe)
    spacing_mm, anisotropic = (rules.spacing_mm, False) if rules.spacing_mm else _target_spacing(fingerprint)
    slice_axis = slicing_axis(spacing_mm)
    names = configuration_names(configurations, slice_axis, rules)
    normalization = tuple(
        rules.normalization(channel, intensities)
        for channel, intensities in zip(description.channel_names, fingerprint.intensities, strict=True)
    )
    mirror_axes = tuple(axis for axis in rules.mirror_axes if axis not in description.labels.directed_axes)
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
        configuration, network = split_name(name)
        limits = Limits(
            configuration=name,
            geometry=geometry,
            num_channels=len(description.channel_names),
            num_outputs=description.labels.num_outputs,
            num_cases=fingerprint.num_cases,
            total_voxels=total_voxels,
            gpu_memory_gb=gpu_memory_gb,
            rules=rules.of(configuration),
            asked_network=network,
        )
        planned[name] = _plan_configuration(limits, slice_axis, normalization, mirror_axes)
    return Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        recipe=recipe,
        gpu_memory_gb=gpu_memory_gb,
        planned_from=planning_digest(fingerprint, description, rules),
        slice_axis=slice_axis,
        reasons={
            **dataset_reasons(fingerprint, geometry, anisotropic, normalization, mirror_axes, gpu_memory_gb),
            **recipe_reasons(rules, geometry, normalization),
        },
        configurations=planned,
    )


def _plan_configuration(
    limits: Limits, slice_axis: int, normalization: tuple[ChannelNormalization, ...], mirror_axes: tuple[int, ...]
) -> ConfigurationPlan:
    configuration, _ = split_name(limits.configuration)
    candidates = (
        (type(representation).model_validate(representation.model_dump() | limits.rules.settings), window)
        for representation, window in CONFIGURATIONS[configuration].candidates(
            limits.geometry, slice_axis, limits.rules
        )
    )
    fit = search(candidates, limits)
    spacing_mm = limits.geometry.spacing_mm
    return ConfigurationPlan(
        spacing_mm=spacing_mm,
        normalization=normalization,
        store=store_name(spacing_mm, normalization),
        window=fit.window,
        batch_size=fit.batch_size,
        representation=fit.representation,
        network=fit.network,
        mirror_axes=mirror_axes if fit.representation.mirrored else (),
        estimated_memory_gb=round(fit.total_bytes / GIGABYTE, 3),
        num_parameters=fit.memory.num_parameters,
        reasons=configuration_reasons(fit, limits),
    )


def _target_spacing(fingerprint: Fingerprint) -> tuple[Spacing, bool]:
    (depth, height, width), anisotropic = target_spacing(fingerprint.spacings_mm, fingerprint.cropped_shapes)
    # Headers store spacings in single precision; six digits are what is meant.
    return (round(depth, 6), round(height, 6), round(width, 6)), anisotropic


def planning_digest(fingerprint: Fingerprint, description: DatasetDescription, rules: PlanningRules) -> str:
    """A digest of what is known of the data and fixed by the recipe; the same digest gives the same plans."""
    content = {
        "fingerprint": fingerprint.model_dump(mode="json"),
        "channel_names": description.channel_names,
        "labels": description.labels.model_dump(mode="json"),
    }
    if rules.name != DEFAULT_RULES.name:
        content["rules"] = rules.model_dump(mode="json")
    return digest(content)


def split_name(name: str) -> tuple[str, str | None]:
    """A configuration's name without its network, and the network; None for the planned one."""
    configuration, _, network = name.partition("__")
    return configuration, network or None


def configuration_name(name: str, slice_axis: int) -> str:
    """A configuration's own name: `2d` is another one for the slice-wise one along the planned axis.

    Args:
        name: With or without a network.
        slice_axis: The axis that slices are taken along.
    """
    configuration, network = split_name(name)
    own_name = ANATOMICAL[slice_axis] if configuration == "2d" else configuration
    return f"{own_name}__{network}" if network else own_name


def configuration_names(
    configurations: Sequence[str] | None, slice_axis: int, rules: PlanningRules = DEFAULT_RULES
) -> list[str]:
    """The configurations to plan, `2d` replaced, in the order of `CONFIGURATIONS`, each once.

    Args:
        configurations: Their names, with or without a network; None or nothing: all that the recipe is meant for. `mv`
            brings the views that it fuses.
        slice_axis: What `2d` stands for.
        rules: Of the recipe.

    Raises:
        InputError: If a name is unknown, the recipe is not meant for it, or the network cannot have its dimension;
            lists those that would do.
    """
    meant = [name for name in CONFIGURATIONS if rules.allows(name)]
    wanted = [configuration_name(name, slice_axis) for name in configurations or meant]
    bases = {split_name(name)[0] for name in wanted}
    unknown = sorted(bases - set(CONFIGURATIONS))
    if unknown:
        raise InputError(f"unknown configuration(s) {', '.join(unknown)}; known: 2d, {', '.join(CONFIGURATIONS)}")
    others = sorted(bases - set(meant))
    if others:
        raise InputError(f"recipe {rules.name} is not meant for {', '.join(others)}, but for {', '.join(meant)}")
    for name in wanted:
        configuration, network = split_name(name)
        if network is not None:
            check_network(network, CONFIGURATIONS[configuration].representation.network_dims)
    order = list(CONFIGURATIONS)
    if "mv" in bases:
        wanted += VIEWS
    return sorted(dict.fromkeys(wanted), key=lambda name: order.index(split_name(name)[0]))
