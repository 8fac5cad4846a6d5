"""Revision of existing plans: they are kept with the user's edits; only missing or outdated ones are planned."""

import logging
from collections.abc import Sequence
from functools import partial

from seg25d.core.errors import InputError
from seg25d.core.progress import format_seconds
from seg25d.core.types import Spacing
from seg25d.data.description import DatasetDescription
from seg25d.networks import REQUESTABLE
from seg25d.planning.configurations import configuration_names, flat_configurations, split_name
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import Plans
from seg25d.planning.planner import VOLUME, is_volume, plan_dataset, planning_digest
from seg25d.planning.recipe_rules import PlanningRules
from seg25d.representations.base import CONFIGURATIONS

logger = logging.getLogger(__name__)


def revise_plans(  # noqa: PLR0913 - all but two by keyword
    stored: Plans | None,
    fingerprint: Fingerprint,
    description: DatasetDescription,
    *,
    configurations: Sequence[str] | None,
    gpu_memory_gb: float,
    cpu_gflops: float = 0,
    time_budget_s: float = 0,
    spacing_3d_mm: Spacing | None = None,
    rules: PlanningRules,
    plans_name: str,
    num_workers: int | None = 0,
) -> Plans:
    """Return the plans of a data set: existing ones while their inputs are unchanged, and those that are missing.

    Args:
        stored: The existing plans, edited or not; None: plan everything.
        fingerprint: See `plan_dataset`, as all that follow.
        description: Channels and labels.
        configurations: The requested ones; None: all. What was planned before is planned again when all is.
        gpu_memory_gb: Memory that a training step may take.
        cpu_gflops: See `plan_dataset`.
        time_budget_s: See `plan_dataset`.
        spacing_3d_mm: See `plan_dataset`.
        rules: What the recipe fixes.
        plans_name: Name of the plans.
        num_workers: See `plan_dataset`.

    Raises:
        InputError: See `plan_dataset`. Also if a configuration that is asked for by name cannot be read.
    """
    make = partial(
        plan_dataset,
        fingerprint,
        description,
        gpu_memory_gb=gpu_memory_gb,
        cpu_gflops=cpu_gflops,
        time_budget_s=time_budget_s,
        spacing_3d_mm=spacing_3d_mm,
        rules=rules,
        plans_name=plans_name,
        num_workers=num_workers,
    )
    if stored is None:
        return make(configurations=configurations)
    changes = _changes(stored, planning_digest(fingerprint, description, rules), gpu_memory_gb, rules.name)
    if stored.cpu_gflops != cpu_gflops:
        changes.append(f"the CPUs have {_gflops(cpu_gflops)} now and had {_gflops(stored.cpu_gflops)}")
    if stored.time_budget_s != time_budget_s:
        changes.append(f"trainings get {_time(time_budget_s)} now and got {_time(stored.time_budget_s)}")
    spacings = {plan.spacing_mm for name, plan in stored.configurations.items() if is_volume(name)}
    if spacing_3d_mm is not None and spacings - {spacing_3d_mm}:
        changes.append(f"the spacing of {VOLUME} is to be another one")
    if changes:
        _check_all_known(stored, changes)
        suited, _ = flat_configurations(fingerprint.flat_axis, rules)
        before = [name for name in (*stored.configurations, *stored.unreadable) if split_name(name)[0] in suited]
        plans = make(configurations=[*before, *(suited if configurations is None else configurations)])
        # One line, and not hidden by --quiet: edits are lost.
        logger.warning(
            "%s, %s: planning %s again, without any edits, because %s",
            plans.dataset_name,
            plans_name,
            ", ".join(plans.configurations),
            " and ".join(changes),
        )
        return plans
    wanted = configuration_names(configurations, stored.slice_axis, rules, fingerprint.flat_axis)
    if configurations:
        stored.check_readable(wanted)
    missing = [name for name in wanted if name not in stored.configurations and name not in stored.unreadable]
    kept = ", ".join(stored.configurations)
    logger.info("%s, %s: keeping the plans of %s", stored.dataset_name, plans_name, kept or "nothing")
    if not missing:
        return stored
    # With those come others that they need, which may be there with edits.
    made = make(configurations=missing).configurations
    added = {name: made[name] for name in missing}
    return stored.model_copy(update={"configurations": {**stored.configurations, **added}})


def _check_all_known(stored: Plans, changes: Sequence[str]) -> None:
    """Check that nothing is lost by planning everything again.

    Raises:
        InputError: If the plans have a configuration that this version cannot plan.
    """
    parts = {name: split_name(name) for name in stored.unreadable}
    unknown = [
        name
        for name, (configuration, network, _) in parts.items()
        if configuration not in CONFIGURATIONS or network not in (None, *REQUESTABLE)
    ]
    if unknown:
        raise InputError(
            f"{stored.dataset_name}, {stored.plans_name}: everything has to be planned again, because "
            f"{' and '.join(changes)}, and this version of seg25d does not know {', '.join(unknown)}: delete "
            f"{'it' if len(unknown) == 1 else 'them'} from the file, forget all plans in it with --clean, or plan "
            "under another name (--plans-name)"
        )


def _gflops(number: float) -> str:
    return f"{number:g} GFLOP/s" if number else "any speed"


def _time(seconds: float) -> str:
    return format_seconds(seconds) if seconds else "any time"


def _changes(stored: Plans, planned_from: str, gpu_memory_gb: float, recipe: str) -> list[str]:
    """List the inputs of the stored plans that have changed."""
    changes = []
    if stored.planned_from != planned_from:
        changes.append("the data set (cases, channels or labels) or what the recipe fixes changed")
    if stored.gpu_memory_gb != gpu_memory_gb:
        changes.append(f"the memory is {gpu_memory_gb:g} GB now and was {stored.gpu_memory_gb:g} GB")
    if stored.recipe != recipe:
        changes.append(f"the recipe is {recipe} now and was {stored.recipe}")
    return changes
