"""How well `mip` could do at best on a data set: which cases say it, how it is stored, and what it advises."""

from collections.abc import Mapping, Sequence

from seg25d.core.records import digest
from seg25d.data.label_problems import members_of
from seg25d.data.labels import Labels
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, ProjectionCeiling
from seg25d.representations import AnyRepresentation

NUM_CASES = 5
"""Most cases that are looked at."""
GOOD = 0.95
"""From here on projections lose less than half of what trained networks do: 2D models reached 0.81 and 0.87 on whole
validation cases (documentation/concepts/choices.md), the paper's random 2.5D U-Net 0.856 under a ceiling of 0.97 or
more (methods.md 3.5 and 3.8). Thin vessels and tumours reach it (documentation/concepts/choices.md)."""
POOR = 0.85
"""Below, not even perfect views give what those networks reach. A shell, or ribs around what lies between them."""
NOT_MEASURED = "not measured: plan_and_preprocess looks at the labels where mip is among the configurations to plan"
MOST_NAMES = 6
"""Classes that are told by name; of more only the worst."""


def choose_cases(fingerprint: Fingerprint, num_cases: int = NUM_CASES) -> tuple[str, ...]:
    """The cases whose labels say how well projections could do.

    One after the other the case with the most classes that none before it has, then with the most classes; of equal
    ones the first by name.

    Args:
        fingerprint: Of the data set.
        num_cases: At most so many.

    Returns:
        Names of cases that have foreground, at least one if there is one.
    """
    classes = {case.case: {name for name, voxels in case.voxels.items() if voxels} for case in fingerprint.cases}
    left = sorted(name for name, found in classes.items() if found)
    chosen: list[str] = []
    covered: set[str] = set()
    while left and len(chosen) < num_cases:
        best = max(left, key=lambda name: (len(classes[name] - covered), len(classes[name])))
        left.remove(best)
        chosen.append(best)
        covered |= classes[best]
    return tuple(chosen)


def ceiling_key(representation: AnyRepresentation) -> str:
    """A digest of what decides about the ceiling, apart from the data set."""
    return digest(representation.model_dump(mode="json", include={"axis", "detector_axis", "spacing_mm", "num_views"}))


def lacks_ceiling(plan: ConfigurationPlan) -> bool:
    """Whether the plan has projections without a ceiling, or with that of others, as somebody edited them."""
    if plan.representation.name != "projections":
        return False
    return plan.ceiling is None or plan.ceiling.measured_for != ceiling_key(plan.representation)


def with_ceiling(plan: ConfigurationPlan, dice: Mapping[str, float | None] | None, labels: Labels) -> ConfigurationPlan:
    """The plan of `mip` with its ceiling, and with what that means among its reasons.

    Args:
        plan: Of `mip`.
        dice: Ceiling per class or region, see `mean_ceilings`; None: nobody looked.
        labels: Of the data set.
    """
    if dice is None:
        return plan.model_copy(update={"ceiling": None, "reasons": {**plan.reasons, "ceiling": NOT_MEASURED}})
    rounded = {name: None if value is None else round(value, 3) for name, value in dice.items()}
    ceiling = ProjectionCeiling(dice=rounded, measured_for=ceiling_key(plan.representation))
    named = {_spoken_name(name, labels): value for name, value in rounded.items()}
    return plan.model_copy(update={"ceiling": ceiling, "reasons": {**plan.reasons, "ceiling": _ceiling_reason(named)}})


def _ceiling_reason(dice: Mapping[str, float | None]) -> str:
    """Figures and advice in words."""
    known = {name: value for name, value in dice.items() if value is not None}
    worst_first = sorted(known, key=lambda name: known[name])
    told = _some([f"{known[name]:.2f} ({name})" for name in worst_first])
    unknown = [name for name in dice if name not in known]
    left_out = f"; not in the cases looked at: {_some(unknown)}" if unknown else ""
    return (
        f"perfect views of training cases, projected back, would reach a mean Dice of {told}{left_out}: "
        f"{_advice({name: known[name] for name in worst_first})}"
    )


def _advice(dice: Mapping[str, float]) -> str:
    poor = [name for name, value in dice.items() if value < POOR]
    fair = [name for name, value in dice.items() if value < GOOD]
    if poor:
        return (
            f"mip is not advised for {_some(poor)} (below {POOR:g}, even perfect views do worse than other "
            "configurations do in practice); si and 2d lose nothing by their views"
        )
    if fair:
        return (
            f"mip can be tried, but its views lose a part of {_some(fair)} (below {GOOD:g}); si and 2d lose nothing by "
            "theirs"
        )
    return f"as far as its views are concerned, mip is a good choice ({GOOD:g} or more for every class)"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _spoken_name(name: str, labels: Labels) -> str:
    """The name in `dataset.json` of what is evaluated under a number, or under a region's name already."""
    if labels.has_regions:
        return name
    return next(spoken for spoken, value in labels.names.items() if members_of(value) == (int(name),))
