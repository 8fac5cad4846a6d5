"""Names of configurations: their parts, aliases and networks, and the selection of those to plan."""

from collections.abc import Callable, Sequence

from seg25d.core.errors import InputError
from seg25d.planning.network_rules import check_network
from seg25d.planning.recipe_rules import DEFAULT_RULES, PlanningRules
from seg25d.representations import ALIAS, ANATOMICAL
from seg25d.representations.base import CONFIGURATIONS, Representation


def split_name(name: str) -> tuple[str, str | None]:
    """Split a configuration's name from its network; None for the planned network."""
    configuration, _, network = name.partition("__")
    return configuration, network or None


def configuration_name(name: str, slice_axis: int) -> str:
    """A configuration's own name; `2d` is replaced by the slice-wise configuration along the planned axis.

    Args:
        name: With or without a network.
        slice_axis: The axis that slices are taken along.
    """
    configuration, network = split_name(name)
    own_name = ANATOMICAL[slice_axis] if configuration == ALIAS else configuration
    return f"{own_name}__{network}" if network else own_name


def is_alias(name: str) -> bool:
    """Whether a name, with or without a network, is the alias `2d`."""
    return split_name(name)[0] == ALIAS


def check_configurations(names: Sequence[str]) -> None:
    """Check that configurations exist.

    Args:
        names: With or without a network.

    Raises:
        InputError: If one does not; the message lists those that exist.
    """
    bases = dict.fromkeys(split_name(name)[0] for name in names)
    if unknown := [base for base in bases if base != ALIAS and base not in CONFIGURATIONS]:
        raise InputError(f"there is no configuration {unknown[0]!r}; known: {', '.join(known_names())}")


def known_names(has: Callable[[type[Representation]], bool] = lambda _: True) -> list[str]:
    """Names of the configurations whose representation has a capability, `2d` first if slices have it.

    Args:
        has: Whether a representation has the capability; all by default.
    """
    names = [name for name, representation in CONFIGURATIONS.items() if has(representation)]
    return [ALIAS, *names] if set(ANATOMICAL) <= set(names) else names


def configuration_names(
    configurations: Sequence[str] | None, slice_axis: int, rules: PlanningRules = DEFAULT_RULES
) -> list[str]:
    """The configurations to plan, `2d` replaced, in the order of `CONFIGURATIONS`, each once.

    Args:
        configurations: Their names, with or without a network; None or empty: all that the recipe is meant for. Those
            that one needs are added, such as the views that `mv` fuses.
        slice_axis: The slicing axis of `2d`.
        rules: Of the recipe.

    Raises:
        InputError: If a name is unknown, the recipe is not meant for it, or the network cannot have its dimension;
            lists those that can.
    """
    meant = [name for name in CONFIGURATIONS if rules.allows(name)]
    wanted = [configuration_name(name, slice_axis) for name in configurations or meant]
    bases = {split_name(name)[0] for name in wanted}
    check_configurations(sorted(bases))
    others = sorted(bases - set(meant))
    if others:
        raise InputError(f"recipe {rules.name} is not meant for {', '.join(others)}, but for {', '.join(meant)}")
    for name in wanted:
        configuration, network = split_name(name)
        if network is not None:
            check_network(network, CONFIGURATIONS[configuration].network_dims)
    order = list(CONFIGURATIONS)
    for base in sorted(bases, key=order.index):
        wanted += CONFIGURATIONS[base].needs
    return sorted(dict.fromkeys(wanted), key=lambda name: order.index(split_name(name)[0]))
