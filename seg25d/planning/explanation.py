"""Reasons for the choices in a plan, in words."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from seg25d.core.grids import AXIS_NAMES
from seg25d.core.types import Shape, Spacing
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.planning.channel_rules import header_window, normalization_reason
from seg25d.planning.configurations import configuration_name
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.mixing_reason import mixing_reason
from seg25d.planning.network_rules import WIDE_FROM_GB
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.recipe_rules import PlanningRules
from seg25d.planning.search import (
    LARGEST_BATCH,
    MOST_VOXELS,
    OVERHEAD_BYTES,
    SCORES_SHARE,
    Fit,
    Limits,
)
from seg25d.representations import ALIAS, LARGER_LIMITS
from seg25d.representations.base import VolumeGeometry

MOST_COLUMNS = 110
"""Width of the explanation; our choice."""
ENDS = ("inferior and superior", "anterior and posterior", "left and right")
"""The two directions of each axis."""
MOST_LABELS = 8
"""Labels that a reason names."""
TOLD_FIRST = ("choice", "warning")
"""Reasons of a configuration that stand before all others, as they sum it up."""


def dataset_reasons(
    fingerprint: Fingerprint,
    geometry: VolumeGeometry,
    anisotropic: bool,
    normalization: Sequence[ChannelNormalization],
) -> dict[str, str]:
    """The reasons for the choices about the data that all configurations share."""
    axis = geometry.slice_axis
    median = f"median spacing {_millimetres(fingerprint.median_spacing_mm)} of {fingerprint.num_cases} case(s)"
    spacing = f"{median}; the median volume then has {_by(geometry.shape)} voxels"
    if anisotropic:
        spacing = (
            f"{median} is anisotropic (more than 3 times coarser along one axis, with less than a third of the "
            f"voxels), so that axis gets its 10th percentile: {_millimetres(geometry.spacing_mm)}; "
            f"the median volume then has {_by(geometry.shape)} voxels (nnU-Net)"
        )
    why = f"the axis with the coarsest spacing ({geometry.spacing_mm[axis]:.4g} mm); the first of equal ones"
    if geometry.shape[axis] == 1:
        why = "along which the median volume has a single voxel"
    return {
        "spacing_mm": spacing,
        "slice_axis": f"slices are taken along {AXIS_NAMES[axis]}, {why}",
        "normalization": "; ".join(normalization_reason(channel) for channel in normalization),
    }


def recipe_reasons(
    rules: PlanningRules, geometry: VolumeGeometry, normalization: Sequence[ChannelNormalization]
) -> dict[str, str]:
    """The reasons for the choices that the recipe fixes for all configurations, instead of the planner's."""
    reasons = {}
    if rules.common_shape:
        sizes = _listed([f"{size} along {AXIS_NAMES[axis]}" for axis, size in enumerate(rules.common_shape) if size])
        reasons["spacing_mm"] = (
            f"every case is resized to as many voxels as in {rules.source}, {sizes}, uncropped there; "
            f"{_millimetres(geometry.spacing_mm)} is the median spacing that this gives, and the median volume has "
            f"{_by(geometry.shape)} voxels"
        )
    if rules.slice_axis is not None:
        reasons["slice_axis"] = f"slices are taken along {AXIS_NAMES[rules.slice_axis]} as in {rules.source}"
    if rules.spacing_mm is not None:
        reasons["spacing_mm"] = (
            f"{_millimetres(geometry.spacing_mm)} as in {rules.source}; the median volume then has "
            f"{_by(geometry.shape)} voxels"
        )
    if rules.channels:
        reasons["normalization"] = "; ".join(
            f"{channel.channel!r} gets {_scheme(channel)} as in {rules.source}"
            if rules.fixed_normalization(channel.channel)
            else normalization_reason(channel)
            for channel in normalization
        )
    return reasons


def mirror_reason(rules: PlanningRules, directed: Mapping[int, Sequence[str]]) -> str:
    """Describe along which axes training and prediction mirror, and why not along the others.

    Args:
        rules: What the recipe allows.
        directed: Labels per axis whose names distinguish its directions.
    """
    mirrored = [name for axis, name in enumerate(AXIS_NAMES) if axis in rules.mirror_axes and axis not in directed]
    parts = []
    if len(rules.mirror_axes) < 3:
        allowed = _listed([AXIS_NAMES[axis] for axis in rules.mirror_axes]) if rules.mirror_axes else "no axis"
        parts.append(f"{allowed} at the most, as in {rules.source}")
    elif not directed:
        parts.append("all three axes, as no label names distinguish the two directions of one")
    elif mirrored:
        parts.append(f"mirrored along {_listed(mirrored)}")
    parts += [
        f"not along {AXIS_NAMES[axis]}, as mirroring would swap {ENDS[axis]}, which the names of "
        f"{_some_labels(labels)} distinguish"
        for axis, labels in directed.items()
    ]
    return "; ".join(parts)


def _scheme(channel: ChannelNormalization) -> str:
    if channel.scheme == "ct_window_dicom":
        return header_window(channel)
    numbers = {name: getattr(channel, name) for name in ("lower", "upper", "mean", "std")}
    told = ", ".join(f"{name} {value:g}" for name, value in numbers.items() if value is not None)
    return f"{channel.scheme} ({told})" if told else channel.scheme


def _some_labels(labels: Sequence[str]) -> str:
    named = [repr(label) for label in labels[:MOST_LABELS]]
    left_out = len(labels) - len(named)
    return f"{', '.join(named)} and {left_out} more" if left_out else _listed(named)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def configuration_reasons(fit: Fit, limits: Limits) -> dict[str, str]:
    """The reasons for the choices of the search."""
    cautions = [fit.representation.caution(fit.window, limits.geometry), _cut_caution(fit.window, limits.geometry)]
    caution = "; ".join(filter(None, cautions))
    ceiling = {"ceiling": fit.representation.ceiling_reason(None)} if fit.representation.ceiling_fields else {}
    return {
        "choice": _choice_reason(fit, limits),
        **({"warning": caution} if caution else {}),
        "representation": fit.representation.reason(limits.geometry, limits.rules),
        **ceiling,
        "window": _window_reason(fit, limits),
        "batch_size": _batch_reason(fit, limits),
        "network": _network_reason(fit, limits),
        **mixing_reason(fit, limits),
        "estimated_memory_gb": _memory_reason(fit),
        "flops_per_update": _flops_reason(fit, limits),
        **({} if fit.representation.mirrored else {"mirror_axes": "none, as this method does not mirror its windows"}),
    }


def _cut_caution(window: Shape, geometry: VolumeGeometry) -> str | None:
    """What is resized to a common size was to be seen as a whole."""
    cut = [
        f"{window[axis]} of {size} voxels along {AXIS_NAMES[axis]}"
        for axis, size in enumerate(geometry.common_shape or ())
        if size and window[axis] < size
    ]
    if not cut:
        return None
    return f"the paper's network sees all that images are resized to, and here only {_listed(cut)} fit; {LARGER_LIMITS}"


def explain(plans: Plans) -> str:
    """Plans as text of at most `MOST_COLUMNS` columns: a table, what each row is and why, then all reasons."""
    headings = ("configuration", "window", "batch", "method", "network", "parameters", "memory")
    planned = configuration_name(ALIAS, plans.slice_axis)
    names = {name: f"{name} = {ALIAS}" if name == planned else name for name in plans.configurations}
    rows = [headings, *(_table_row(names[name], plan) for name, plan in plans.configurations.items())]
    note = f"Windows are D x H x W voxels, memory is that of training; {ALIAS} stands for {planned}."
    lines = [*_wrapped(f"{plans.dataset_name}, plans {plans.plans_name!r}, recipe {plans.recipe}"), ""]
    lines += [*_table(rows), "", *_wrapped(note)]
    for name, plan in plans.configurations.items():
        told = plan.reasons.get("choice") or plan.reasons.get("representation", "")
        lines += ["", *_wrapped(f"{names[name]}: {told}.")]
        lines += _wrapped(f"warning: {plan.reasons['warning']}.", "  ") if "warning" in plan.reasons else []
    lines += ["", "all configurations", *_reason_lines(plans.reasons)]
    for name, plan in plans.configurations.items():
        lines += ["", *_wrapped(f"{names[name]}, arrays in {plan.store}"), *_reason_lines(plan.reasons)]
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned cells; the names in front are cut off where a row would be too long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], MOST_COLUMNS - sum(width + 2 for width in widths[1:]))
    fitting = [[name if len(name) <= widths[0] else f"{name[: widths[0] - 3]}...", *cells] for name, *cells in rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in fitting]


def _table_row(name: str, plan: ConfigurationPlan) -> tuple[str, ...]:
    return (
        name,
        "x".join(map(str, plan.window)),
        str(plan.batch_size),
        plan.representation.summary,
        plan.network.name,
        f"{plan.num_parameters / 1e6:.1f} M",
        f"{plan.estimated_memory_gb:.2f} GB",
    )


def _reason_lines(reasons: Mapping[str, str]) -> list[str]:
    told = [(key, reason) for key, reason in reasons.items() if key not in TOLD_FIRST]
    return [line for key, reason in told for line in _wrapped(f"{key}: {reason}", "  ")]


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Lines of at most `MOST_COLUMNS` columns, all but the first of them further to the right."""
    further = indent + "  "
    return textwrap.wrap(text, MOST_COLUMNS, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False)


def _choice_reason(fit: Fit, limits: Limits) -> str:
    """Describe the configuration in a sentence: what was chosen and why."""
    representation, geometry, rules = fit.representation, limits.geometry, limits.rules
    if not fit.is_countable:
        why = "the smallest there is; its largest tensor has 2^31 values or more, with which GPUs may be slow or fail"
    elif fit.num_without_room or fit.num_too_slow:
        why = f"the best that fit into {limits.gpu_memory_gb:g} GB"
        why += f" and {limits.update_seconds:.3g} s on these CPUs" if fit.num_too_slow else ""
    elif fit.num_uncountable:
        why = "the best whose tensors have less than 2^31 values, as many as kernels of GPUs can count"
    elif fit.num_too_large:
        why = "larger ones are not known to help, so that memory goes to the batch"
    else:
        why = representation.window_reason(fit.window, geometry, rules)
    mixed = f"; the network mixes slices ({limits.mixing})" if limits.mixing else ""
    return (
        f"{representation.choice(geometry, rules)}{mixed}; windows of {_by(fit.window)} voxels, {fit.batch_size} in a "
        f"batch: {why}"
    )


def _window_reason(fit: Fit, limits: Limits) -> str:
    coverage = ", ".join(
        f"{min(1.0, size / full):.0%}" for size, full in zip(fit.window, limits.geometry.shape, strict=True)
    )
    parts = []
    if fit.num_too_large:
        most = max(MOST_VOXELS, fit.representation.needed_voxels(limits.geometry))
        parts.append(
            f"{fit.num_too_large} larger candidates have more than {most / 1e6:.3g} million voxels, beyond which "
            "memory goes to the batch (256^3, where nnU-Net's patches begin, or what the method needs)"
        )
    if fit.num_uncountable:
        parts.append(f"{fit.num_uncountable} larger candidates have tensors of more values than GPUs can count (2^31)")
    if fit.num_without_room:
        parts.append(f"{fit.num_without_room} larger candidates did not fit")
        if limits.has_too_many_scores(fit.representation, limits.geometry.shape, fit.network):
            parts[-1] += (
                f" or had too many scores ({limits.num_outputs} per voxel, of which a window may have "
                f"{SCORES_SHARE * limits.gpu_memory_gb:.3g} GB, so that predictions stay small)"
            )
    if fit.num_too_slow:
        slow = f"longer than {limits.update_seconds:.3g} s for an update on these CPUs"
        parts.append(f"{fit.num_too_slow} would take {slow}")
    if not parts:
        parts.append(fit.representation.window_reason(fit.window, limits.geometry, limits.rules))
    return (
        f"{'; '.join(parts)}, with a batch of {limits.smallest_batch(fit.window)}; sizes along network axes are "
        f"rounded up to multiples of {_by(fit.network.divisor)}; covers {coverage} of the median volume "
        f"{_by(limits.geometry.shape)} along D, H, W"
    )


def _batch_reason(fit: Fit, limits: Limits) -> str:
    share = fit.batch_size * prod(fit.window) / limits.total_voxels
    covers = f"covers {share:.2%} of the voxels of the data set"
    if limits.rules.batch_size is not None:
        return f"the recipe's; {covers}"
    largest = limits.largest_batch(fit.window, fit.flops_per_window)
    if fit.batch_size < largest:
        is_counted = fit.is_countable and fit.batch_size == fit.countable_batch
        bound = "whose tensors have less than 2^31 values, which GPUs can count" if is_counted else "that fits"
        return f"the largest {bound}; {covers}, more would be allowed ({largest})"
    if fit.batch_size == LARGEST_BATCH:
        return f"the largest allowed; {covers}"
    if fit.batch_size < limits.largest_batch(fit.window):
        return f"the largest of which an update takes {limits.update_seconds:.3g} s at most, or 1; {covers}"
    if fit.batch_size == limits.smallest_batch(fit.window):
        return f"{_smallest_batch_reason(fit, limits)}; {covers}"
    return f"{covers}; more than {limits.largest_share:.1%} would leave too few updates (nnU-Net: 5 %)"


def _smallest_batch_reason(fit: Fit, limits: Limits) -> str:
    if fit.batch_size > 1:
        return f"the smallest allowed, {fit.batch_size}, as in nnU-Net"
    if prod(fit.window) > MOST_VOXELS:
        return "the smallest allowed, 1, as a window has more than 256^3 voxels, as the method needs"
    if limits.covers_too_much(fit.window):
        share = f"{limits.largest_share:.1%} of the voxels of the data set"
        return f"the smallest allowed, 1, as a single window has more than {share}"
    return "the smallest allowed, 1, as there is a single case"


def _network_reason(fit: Fit, limits: Limits) -> str:
    spec, axes = fit.network, fit.representation.network_axes
    checkpointing = (
        "; activations are computed twice instead of kept, as a larger window fits that way"
        if getattr(spec, "checkpointing", False)
        else ""
    )
    if limits.network not in (None, "unet"):
        whose = "asked for" if limits.asked_network else "the recipe's"
        room = (
            "halved everywhere at every stage, as published"
            if limits.published
            else "as many stages as it has and the window has room for"
        )
        return f"{limits.network} {spec.summary}, {whose}; {room}{checkpointing}"
    if isinstance(spec, VNetSpec):
        return f"{_vnet_reason(spec)}{checkpointing}"
    if not isinstance(spec, UNetSpec):
        return (
            f"{spec.name} {spec.summary}, by the rules of its paper (seg25d/planning/network_rules.py){checkpointing}"
        )
    spacing = " x ".join(f"{limits.geometry.spacing_mm[axis]:.4g}" for axis in axes)
    note = f"; {fit.representation.network_note}" if fit.representation.network_note else ""
    return (
        f"{len(spec.widths)} stages for {_by([fit.window[axis] for axis in axes])} at {spacing} mm: an axis is halved "
        f"while 4 or more voxels remain and its spacing is less than twice the finest, its kernel is 3 from then on, 1 "
        f"before (nnU-Net, network_topology.py){note}; strides {_sizes(spec.strides)}; kernels {_sizes(spec.kernels)}; "
        f"widths {spec.summary}: {_width_reason(limits)}"
    )


def _vnet_reason(spec: VNetSpec) -> str:
    published = spec.widths[0] == VNetSpec.model_fields["widths"].default[0]
    kind = (
        "as published (Milletari et al. 2016; Shivdeo et al. 2021), with instance norm for the learning rate"
        if published
        else f"half of the published widths, kernels of 3, instance norm; the published ones from {WIDE_FROM_GB} GB on"
    )
    return f"V-Net of widths {spec.summary}, {kind}; strides {_sizes(spec.strides)}"


def _width_reason(limits: Limits) -> str:
    if limits.gpu_memory_gb >= WIDE_FROM_GB:
        return f"nnU-Net's, as the budget is {WIDE_FROM_GB} GB or more"
    return (
        "half of nnU-Net's in every stage, up to the same largest width, which learns more per minute without a large "
        f"GPU; nnU-Net's from {WIDE_FROM_GB} GB on"
    )


def _memory_reason(fit: Fit) -> str:
    memory = fit.memory
    return (
        f"traced on fake tensors: weights {memory.parameters / GIGABYTE:.2f}, gradients "
        f"{memory.gradients / GIGABYTE:.2f}, optimizer {memory.optimizer / GIGABYTE:.2f}, activations "
        f"{memory.activations / GIGABYTE:.2f} GB, and {OVERHEAD_BYTES / GIGABYTE:g} GB for CUDA itself"
    )


def _flops_reason(fit: Fit, limits: Limits) -> str:
    counted = (
        f"{fit.memory.flops / 1e12:.3g} TFLOP per update, forward and backward: convolutions and matrix products "
        "(torch.utils.flop_counter), counted on fake tensors"
    )
    if not limits.cpu_gflops or not fit.memory.flops:
        return counted
    seconds = fit.memory.flops / limits.cpu_gflops / 1e9
    return (
        f"{counted}; on CPUs of {limits.cpu_gflops:g} GFLOP/s about {seconds:.2g} s, {3600 / seconds:,.0f} updates an "
        "hour"
    )


def _sizes(sizes: Iterable[Sequence[int]]) -> str:
    return " ".join("x".join(map(str, size)) for size in sizes)


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _millimetres(spacing: Spacing | Shape) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing) + " mm"
