"""From a data set's fingerprint to its plans."""

import logging
from collections.abc import Sequence
from functools import partial
from operator import attrgetter

from seg25d.core.errors import InputError
from seg25d.core.limits import MAX_SPACING_MM, MIN_SPACING_MM
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.records import digest
from seg25d.core.types import Spacing
from seg25d.data.description import DatasetDescription
from seg25d.planning.channel_rules import named_normalization, scheme_of_version_0_2, store_name
from seg25d.planning.configurations import (
    configuration_names,
    flat_configurations,
    needed_configurations,
    network_of_views,
    single_slice_reason,
    split_name,
)
from seg25d.planning.explanation import (
    configuration_reasons,
    dataset_reasons,
    mirror_reason,
    recipe_reasons,
)
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.geometry import target_spacing
from seg25d.planning.machine_reasons import machine_reasons
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import LEFT_OUT, ConfigurationPlan, Plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.recipe_rules import DEFAULT_RULES, LATER_RULES, PlanningRules
from seg25d.planning.search import Limits, enough_voxels, search
from seg25d.representations.base import CONFIGURATIONS, VolumeGeometry

logger = logging.getLogger(__name__)
VOLUME = "3d"
"""The configuration that nnU-Net calls 3d_fullres."""
LEAST_MIXED = 8
"""Slices of a window that networks mix, if volumes have so many, as slice-wise windows have where memory allows
(`SMALLEST_DEPTH` of representations/slices.py): smaller parts of slices come before fewer. Our choice."""
WORKER_BYTES = 1 << 29
"""Memory of a process that traces networks: 0.34 GB were measured (`ru_maxrss`), most of it libraries."""


def plan_dataset(  # noqa: PLR0913 - all but two by keyword
    fingerprint: Fingerprint,
    description: DatasetDescription,
    *,
    configurations: Sequence[str] | None = None,
    gpu_memory_gb: float = 8,
    cpu_gflops: float = 0,
    time_budget_s: float = 0,
    spacing_3d_mm: Spacing | None = None,
    rules: PlanningRules = DEFAULT_RULES,
    plans_name: str = DEFAULT_PLANS_NAME,
    num_workers: int | None = 0,
) -> Plans:
    """Plan configurations of a data set.

    Args:
        fingerprint: Measurements of the data set; at least one case.
        description: Its channels and labels.
        configurations: Names of `CONFIGURATIONS`, or `2d` for the slices along the coarsest axis, which is planned
            under its anatomical name, each also with a network (`si__se_unet`, or `mv__rstn` for that of its views)
            and, where networks get slices side by side, with a way of mixing them (`si__shift`, `si__se_unet__conv`);
            None or nothing: all that the recipe is meant for.
        gpu_memory_gb: Memory that a training step may take, in GiB.
        cpu_gflops: Speed of the CPUs that train, of which an update takes `UPDATE_SECONDS` at most; 0: any time.
        time_budget_s: Seconds that each training (one fold of one configuration) will be given: on CPUs of a speed an
            update then takes such a share that there are `UPDATES_OF_A_TRAINING` of them or more; 0: any time.
        spacing_3d_mm: Target spacing (D, H, W) of `3d`, as nnU-Net's -overwrite_target_spacing; None: that of all.
        rules: Rules of the recipe.
        plans_name: Name of the plans.
        num_workers: Processes that trace the networks of configurations; 0: this one; None: one per core.

    Raises:
        InputError: If a name is unknown, a channel's name is wrong, the recipe is not meant for a configuration, one
            needs a third dimension and the images have none, one cannot mix slices, or the memory is too small.
    """
    spacing_mm, anisotropic = (rules.spacing_mm, False) if rules.spacing_mm else _target_spacing(fingerprint)
    if rules.common_shape:
        spacing_mm = fingerprint.spacing_with(spacing_mm, rules.common_shape)
    normalization = tuple(
        rules.normalization(channel, intensities)
        for channel, intensities in zip(description.channel_names, fingerprint.intensities, strict=True)
    )
    mirror_axes = tuple(axis for axis in rules.mirror_axes if axis not in description.labels.directed_axes)
    total_voxels = fingerprint.total_voxels_at(spacing_mm, rules.common_shape)
    geometry = VolumeGeometry(
        shape=fingerprint.median_shape_at(spacing_mm, rules.common_shape),
        spacing_mm=spacing_mm,
        enough_voxels=enough_voxels(total_voxels, fingerprint.num_cases, gpu_memory_gb),
        num_outputs=description.labels.num_outputs,
        has_regions=description.labels.has_regions,
        common_shape=rules.common_shape,
        sliced_along=rules.slice_axis,
    )
    names = configuration_names(configurations, geometry.slice_axis, rules, fingerprint.flat_axis)
    limits_of = {}
    for name in names:
        configuration, network, mixing = split_name(name)
        least = {"least_slices": LEAST_MIXED} if mixing else {}
        limits_of[name] = Limits(
            configuration=name,
            geometry=geometry.model_copy(update=least),
            num_channels=len(description.channel_names),
            num_outputs=description.labels.num_outputs,
            num_cases=fingerprint.num_cases,
            total_voxels=total_voxels,
            gpu_memory_gb=gpu_memory_gb,
            cpu_gflops=cpu_gflops,
            time_budget_s=time_budget_s,
            rules=rules.of(configuration),
            published=rules.published,
            asked_network=None if network_of_views(name) else network,
            mixing=mixing,
        )
    plan_one = partial(_plan_configuration, normalization=normalization, mirror_axes=mirror_axes)
    todo = tuple(limits_of.values())
    workers = choose_num_workers(num_workers, WORKER_BYTES, len(todo))
    results = map_cases(plan_one, todo, name=attrgetter("configuration"), num_workers=workers)
    done = {limits.configuration: plan for limits, plan in results}
    planned = {name: done[name] for name in names}
    volumes = [name for name in planned if is_volume(name)]
    if spacing_3d_mm is not None and not volumes:
        logger.warning("-overwrite_target_spacing has no effect on %s: it is the spacing of 3d", ", ".join(planned))
    if spacing_3d_mm is not None and volumes:
        asked_for = rules.model_copy(
            update={"spacing_mm": spacing_3d_mm, "common_shape": None, "source": "-overwrite_target_spacing"}
        )
        planned |= plan_dataset(
            fingerprint,
            description,
            configurations=volumes,
            gpu_memory_gb=gpu_memory_gb,
            cpu_gflops=cpu_gflops,
            time_budget_s=time_budget_s,
            rules=asked_for,
        ).configurations
    return Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        recipe=rules.name,
        gpu_memory_gb=gpu_memory_gb,
        cpu_gflops=cpu_gflops,
        time_budget_s=time_budget_s,
        planned_from=planning_digest(fingerprint, description, rules),
        slice_axis=geometry.slice_axis,
        reasons={
            **dataset_reasons(fingerprint, geometry, anisotropic, normalization),
            **machine_reasons(gpu_memory_gb, cpu_gflops, time_budget_s),
            "mirror_axes": mirror_reason(rules, description.labels.directed),
            **recipe_reasons(rules, geometry, normalization),
            **({"labels": told} if (told := fingerprint.labelled_slices_in_words) else {}),
            **_left_out_reason(fingerprint, rules),
        },
        configurations=planned,
    )


def is_volume(name: str) -> bool:
    """Whether a configuration, with any network, is `3d`."""
    return split_name(name)[0] == VOLUME


def _plan_configuration(
    limits: Limits, normalization: tuple[ChannelNormalization, ...], mirror_axes: tuple[int, ...]
) -> ConfigurationPlan:
    configuration = split_name(limits.configuration).configuration
    if network_of_views(limits.configuration):
        views = {"views": needed_configurations(limits.configuration)}
        rules = limits.rules.model_copy(update={"settings": limits.rules.settings | views})
        limits = limits.model_copy(update={"rules": rules})
    fit = search(CONFIGURATIONS[configuration].from_rules(configuration, limits.geometry, limits.rules), limits)
    spacing_mm, common_shape = limits.geometry.spacing_mm, limits.geometry.common_shape
    return ConfigurationPlan(
        spacing_mm=spacing_mm,
        common_shape=common_shape,
        normalization=normalization,
        store=store_name(spacing_mm, normalization, common_shape),
        window=fit.window,
        batch_size=fit.batch_size,
        representation=fit.representation,
        network=fit.network,
        mirror_axes=mirror_axes if fit.representation.mirrored else (),
        estimated_memory_gb=round(fit.total_bytes / GIGABYTE, 3),
        num_parameters=fit.memory.num_parameters,
        flops_per_update=fit.memory.flops,
        reasons=configuration_reasons(fit, limits),
    )


def _left_out_reason(fingerprint: Fingerprint, rules: PlanningRules) -> dict[str, str]:
    _, useless = flat_configurations(fingerprint.flat_axis, rules)
    return {LEFT_OUT: single_slice_reason(useless)} if useless else {}


def _target_spacing(fingerprint: Fingerprint) -> tuple[Spacing, bool]:
    (depth, height, width), anisotropic = target_spacing(fingerprint.spacings_mm, fingerprint.cropped_shapes)
    if not MIN_SPACING_MM <= min(depth, height, width) <= max(depth, height, width) <= MAX_SPACING_MM:
        raise InputError(
            f"{fingerprint.dataset_name} has a spacing of {depth:g} x {height:g} x {width:g} mm (D, H, W), expected is "
            f"{MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}; correct the spacing in the headers of its images"
        )
    # Headers store spacings in single precision; six digits are significant.
    return (round(depth, 6), round(height, 6), round(width, 6)), anisotropic


def planning_digest(fingerprint: Fingerprint, description: DatasetDescription, rules: PlanningRules) -> str:
    """Compute a digest of the fingerprint, labels and recipe; the same digest gives the same plans."""
    # Nothing is planned by the number of labelled slices, and versions that did not count them made the same plans.
    measured = fingerprint.model_dump(mode="json", exclude={"cases": {"__all__": {"labelled_slices"}}})
    content = {
        "fingerprint": measured,
        "channel_names": description.channel_names,
        "labels": description.labels.model_dump(mode="json"),
    }
    schemes = [(name, named_normalization(name).scheme) for name in description.channel_names]
    if changed := [scheme for name, scheme in schemes if scheme != scheme_of_version_0_2(name, scheme)]:
        content["schemes"] = changed
    if rules.name != DEFAULT_RULES.name:
        # Rules that came later and that the recipe does not use: plans from before them are still made from it.
        unused = {name for name in LATER_RULES if getattr(rules, name) == PlanningRules.model_fields[name].default}
        content["rules"] = rules.model_dump(mode="json", exclude=unused)
    return digest(content)
