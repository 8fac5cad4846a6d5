"""Names of configurations: their parts, aliases, networks and mixing, and the selection of those to plan."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from seg25d.core.errors import InputError
from seg25d.networks import MIXINGS
from seg25d.planning.network_rules import NETWORK_RULES, check_network, networks_that_mix
from seg25d.planning.recipe_rules import DEFAULT_RULES, PlanningRules
from seg25d.representations import ALIAS, ANATOMICAL
from seg25d.representations.base import CONFIGURATIONS, Representation


class ConfigurationName(NamedTuple):
    """Parts of the name of a configuration, `CONFIG[__NETWORK][__MIXING]`."""

    configuration: str
    network: str | None = None
    """None: the planned one."""
    mixing: str | None = None
    """How the network mixes slices; None: not at all."""

    @property
    def text(self) -> str:
        """The name as users write it."""
        return "__".join(part for part in self if part)


def split_name(name: str) -> ConfigurationName:
    """Split the name of a configuration; whether its parts exist is not looked at."""
    configuration, *words = name.split("__")
    mixing = words.pop() if words and words[-1] in MIXINGS else None
    return ConfigurationName(configuration, "__".join(words) or None, mixing)


def configuration_name(name: str, slice_axis: int) -> str:
    """A configuration's own name; `2d` is replaced by the slice-wise configuration along the planned axis.

    Args:
        name: With or without a network and mixing.
        slice_axis: The axis that slices are taken along.
    """
    parts = split_name(name)
    own_name = ANATOMICAL[slice_axis] if parts.configuration == ALIAS else parts.configuration
    return parts._replace(configuration=own_name).text


def network_of_views(name: str) -> str | None:
    """The network in the name of a configuration that is its views', as only they can have it: `rstn` in `mv__rstn`.

    Args:
        name: Of a configuration that exists, with or without a network.

    Returns:
        None if the name has no network, or one that the configuration itself can have.
    """
    configuration, network, _ = split_name(name)
    representation, rule = CONFIGURATIONS[configuration], NETWORK_RULES.get(network or "")
    if rule is None or representation.network_dims in rule.dims or not representation.fuses_views:
        return None
    return network if {CONFIGURATIONS[view].network_dims for view in representation.needs} <= rule.dims else None


def needed_configurations(name: str) -> tuple[str, ...]:
    """The configurations that are planned with one, because their predictions are its input.

    Args:
        name: Of a configuration that exists, with or without a network.
    """
    network, needs = network_of_views(name), CONFIGURATIONS[split_name(name)[0]].needs
    return tuple(f"{need}__{network}" for need in needs) if network else needs


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


def flat_configurations(flat_axis: int | None, rules: PlanningRules = DEFAULT_RULES) -> tuple[list[str], list[str]]:
    """The configurations that a recipe is meant for: those to plan, and those that need a third dimension.

    Args:
        flat_axis: The axis along which all images have one voxel; None: there is none, and all are to be planned.
        rules: Of the recipe.
    """
    meant = [name for name in CONFIGURATIONS if rules.allows(name)]
    useless = [
        name
        for name in meant
        if flat_axis is not None and not CONFIGURATIONS[name].suits_single_slices(name, flat_axis)
    ]
    return [name for name in meant if name not in useless], useless


def configuration_names(
    configurations: Sequence[str] | None,
    slice_axis: int,
    rules: PlanningRules = DEFAULT_RULES,
    flat_axis: int | None = None,
) -> list[str]:
    """The configurations to plan, `2d` replaced, in the order of `CONFIGURATIONS`, each once.

    Args:
        configurations: Their names, with or without a network and mixing; None or empty: all that the recipe is meant
            for and the images suit. Those that one needs are added, such as the views that `mv` fuses.
        slice_axis: The slicing axis of `2d`.
        rules: Of the recipe.
        flat_axis: The axis along which all images have one voxel; None: there is none, or it is not known yet.

    Raises:
        InputError: If a name is unknown, the recipe is not meant for it, it needs a third dimension that the images do
            not have, the network cannot have its dimension, or slices cannot be mixed; lists those that can.
    """
    suited, useless = flat_configurations(flat_axis, rules)
    meant = [name for name in CONFIGURATIONS if name in (*suited, *useless)]
    wanted = [configuration_name(name, slice_axis) for name in configurations or suited]
    bases = {split_name(name)[0] for name in wanted}
    check_configurations(sorted(bases))
    others = sorted(bases - set(meant))
    if others:
        raise InputError(f"recipe {rules.name} is not meant for {', '.join(others)}, but for {', '.join(meant)}")
    asked_for = [name for name in useless if name in bases] if configurations else useless if not suited else []
    if asked_for:
        raise InputError(f"{single_slice_reason(asked_for)}; {_what_to_plan(suited, rules)}")
    for name in wanted:
        configuration, network, mixing = split_name(name)
        if mixing is not None:
            _check_mixing(name, rules, flat_axis)
        if network is not None and network_of_views(name) is None:
            representation = CONFIGURATIONS[configuration]
            check_network(network, representation.network_dims, MIXINGS if representation.mixes_slices else ())
    order = list(CONFIGURATIONS)
    wanted += [need for name in wanted for need in needed_configurations(name)]
    return sorted(dict.fromkeys(wanted), key=lambda name: order.index(split_name(name)[0]))


def _check_mixing(name: str, rules: PlanningRules, flat_axis: int | None) -> None:
    """Check that there are slices to mix, and a network that can mix them.

    Args:
        name: Of a configuration that exists, with mixing.
        rules: Of the recipe.
        flat_axis: The axis along which all images have one voxel, or None.

    Raises:
        InputError: If not; says what can.
    """
    configuration, network, mixing = split_name(name)
    if not CONFIGURATIONS[configuration].mixes_slices:
        able = ", ".join(known_names(lambda each: each.mixes_slices))
        raise InputError(
            f"{name}: {mixing} is for networks of 2 dimensions that get the slices of a window side by side, which are "
            f"those of {able}; take one of these, or {configuration} without {mixing}"
        )
    if network in NETWORK_RULES and network not in networks_that_mix():
        raise InputError(f"{name}: {network} cannot mix slices; choose one of {', '.join(networks_that_mix())}")
    if flat_axis is not None or rules.of(configuration).num_slices == 1:
        whose = f"recipe {rules.name} trains" if flat_axis is None else "these images have"
        raise InputError(f"{name}: {whose} single slices, without neighbours to mix; leave {mixing} out")


def single_slice_reason(useless: Sequence[str]) -> str:
    """Say in a sentence why configurations are not planned for images of one slice."""
    verb = "needs" if len(useless) == 1 else "need"
    return f"{', '.join(useless)} {verb} a third dimension, which images of one slice do not have"


def _what_to_plan(suited: Sequence[str], rules: PlanningRules) -> str:
    return f"plan {' or '.join(suited)}" if suited else f"plan with another recipe than {rules.name}"
