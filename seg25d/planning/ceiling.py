"""The ceiling of a configuration on a data set: choice of the cases to measure it on, and its place in the plan."""

import math
from collections.abc import Mapping

from seg25d.core.records import digest
from seg25d.data.labels import Labels
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, ProjectionCeiling
from seg25d.representations.base import Representation
from seg25d.representations.projections.ceiling import POOR

NUM_CASES = 5
"""Maximum number of cases to measure."""
MOST_VOXELS_OF_CASES = 2**27
"""Voxels that all of these cases have at most, unless another one has classes that they lack: one CT of 500 slices.
Reading and resampling take three quarters of the time of such a case; four of them take a fifth of all planning, and
two an eighth (documentation/reference/measurements.md)."""


def choose_cases(fingerprint: Fingerprint, num_cases: int = NUM_CASES) -> tuple[str, ...]:
    """Choose the cases on whose labels the ceiling of projections is measured.

    In each step the case with the most classes that no case before it has, then the one with the most classes; of
    equally good ones the first by name. One without a new class is left out where `MOST_VOXELS_OF_CASES` are exceeded.

    Args:
        fingerprint: Of the data set.
        num_cases: Maximum number of cases.

    Returns:
        Names of cases that have foreground, at least one if there is one.
    """
    sizes = {case.case: math.prod(case.shape) for case in fingerprint.cases}
    classes = {case.case: {name for name, voxels in case.voxels.items() if voxels} for case in fingerprint.cases}
    left = sorted(name for name, found in classes.items() if found)
    chosen: list[str] = []
    covered: set[str] = set()
    while left and len(chosen) < num_cases:
        best = max(left, key=lambda name: (len(classes[name] - covered), len(classes[name])))
        left.remove(best)
        if chosen and classes[best] <= covered and sum(map(sizes.__getitem__, (*chosen, best))) > MOST_VOXELS_OF_CASES:
            continue
        chosen.append(best)
        covered |= classes[best]
    return tuple(chosen)


def ceiling_key(representation: Representation) -> str:
    """Compute a digest of the settings that decide the ceiling, apart from the data set."""
    return digest(representation.model_dump(mode="json", include=set(representation.ceiling_fields)))


def lacks_ceiling(plan: ConfigurationPlan) -> bool:
    """Whether the plan needs a ceiling and has none, or one of other settings, after the user edited them."""
    if not plan.representation.ceiling_fields:
        return False
    return plan.ceiling is None or plan.ceiling.measured_for != ceiling_key(plan.representation)


def with_ceiling(plan: ConfigurationPlan, dice: Mapping[str, float | None] | None, labels: Labels) -> ConfigurationPlan:
    """Return the plan with its ceiling, and with an explanation of it among the reasons.

    Args:
        plan: Of a configuration that has one.
        dice: Mean ceiling per class or region, None for what no case has; None: not measured.
        labels: Of the data set.
    """
    ceiling, named = None, None
    if dice is not None:
        rounded = {name: None if value is None else round(value, 3) for name, value in dice.items()}
        ceiling = ProjectionCeiling(dice=rounded, measured_for=ceiling_key(plan.representation))
        named = {labels.name_of(name): value for name, value in rounded.items()}
    # Views of a single slice are rows of pixels, from which it can be put together, and nothing is gained by it.
    caution = plan.reasons.get("warning") if 1 in plan.window else None
    reason = plan.representation.ceiling_reason(named, caution)
    return plan.model_copy(update={"ceiling": ceiling, "reasons": {**plan.reasons, "ceiling": reason}})


def advised_against(plan: ConfigurationPlan) -> str | None:
    """What the plan itself says against its configuration: a warning, or a ceiling that is poor for some class."""
    dice = {} if plan.ceiling is None else plan.ceiling.dice
    is_poor = any(value is not None and value < POOR for value in dice.values())
    return plan.reasons.get("warning") or (plan.reasons.get("ceiling") if is_poor else None)
