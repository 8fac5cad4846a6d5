"""The runs of a data set that are asked for, or that its plans do not advise against."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from seg25d.core.errors import InputError
from seg25d.planning.ceiling import advised_against
from seg25d.planning.configurations import known_names
from seg25d.planning.plan import Plans
from seg25d.planning.plans_name import RUN_VARIANTS
from seg25d.planning.pretext import PretextTask
from seg25d.runs.names import find_configuration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedRun:
    """A configuration to train, with the variants of its run."""

    configuration: str
    variants: tuple[str, ...] = ()


def wanted_runs(plans: Plans, words: Sequence[str] | None, pretext: PretextTask | None = None) -> list[WantedRun]:
    """The runs that are asked for: names of planned configurations, with variants as in `2d__fine`.

    Args:
        plans: The plans.
        words: The names; None: all that their plans do not advise against (all, if they do so for every one), and
            no fusions of views where networks are pretrained.
        pretext: What networks are pretrained by: fusions need models of views that begin with fresh weights.

    Raises:
        InputError: If one is not planned, cannot have such a variant, or is a fusion that is to be pretrained.
    """
    runs = []
    for word in words or _advised(plans):
        parts = word.split("__")
        variants = tuple(each for each in RUN_VARIANTS if each in parts)
        name, plan = find_configuration(plans, "__".join(part for part in parts if part not in variants))
        representation = plan.representation
        allowed = set(RUN_VARIANTS) if representation.fuses_views else {"fine"} if representation.can_be_fine else set()
        if not set(variants) <= allowed:
            raise InputError(
                f"{word}: {name} has no such variant; `fine` is one of "
                f"{', '.join(known_names(lambda each: each.can_be_fine))}, and {', '.join(RUN_VARIANTS)} are those of "
                f"{', '.join(known_names(lambda each: each.fuses_views))}"
            )
        if pretext is not None and representation.fuses_views:
            if words is None:
                continue
            raise InputError(f"--pretrain is for one network, and {name} trains several: leave one of the two out")
        runs.append(WantedRun(name, variants))
    return list(dict.fromkeys(runs))


def _advised(plans: Plans) -> list[str]:
    """The configurations that their plans do not advise against; what is left out is said."""
    against = {name: advised_against(plan) for name, plan in plans.configurations.items()}
    advised = [name for name, reason in against.items() if reason is None]
    if not advised:
        return list(against)
    for name, reason in against.items():
        if reason is not None:
            logger.info("%s is left out (name it to have it): %s", name, reason)
    return advised
