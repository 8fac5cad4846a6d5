"""Names of configurations, runs and folds, as users write them and as folders are named."""

import logging
from collections.abc import Sequence

from seg25d.core.errors import InputError
from seg25d.core.names import is_number
from seg25d.planning.configurations import (
    check_configurations,
    configuration_name,
    configuration_names,
    network_of_views,
    split_name,
)
from seg25d.planning.network_rules import NETWORK_RULES
from seg25d.planning.plan import LEFT_OUT, ConfigurationPlan, Plans
from seg25d.planning.recipe_rules import PlanningRules, find_rules

logger = logging.getLogger(__name__)


def check_names(configurations: Sequence[str], recipe: str) -> PlanningRules:
    """Check that configurations and recipe exist and go together, before any work is done.

    Returns:
        The planning rules of the recipe.

    Raises:
        InputError: If not; lists the available ones.
    """
    rules = find_rules(recipe)
    check_configurations(configurations)
    # A recipe is for all axes or none, so it does not matter which of them `2d` will be.
    configuration_names(configurations, 0, rules)
    return rules


def find_configuration(plans: Plans, name: str) -> tuple[str, ConfigurationPlan]:
    """The name and the plan of a configuration.

    Raises:
        InputError: If the configuration does not exist or is not planned (lists the choices), or if its plan cannot be
            read (names the place).
    """
    own_name = configuration_name(name, plans.slice_axis)
    plans.check_readable([own_name])
    if own_name not in plans.configurations:
        check_names([name], plans.recipe)
        known = ", ".join(plans.configurations)
        cure = plans.reasons.get(LEFT_OUT, f"plan_and_preprocess with -c {name} adds it")
        raise InputError(f"{plans.dataset_name} has no configuration {name!r} in its plans; known: {known}; {cure}")
    return own_name, plans.configurations[own_name]


def with_network(plans: Plans, name: str, network: str | None) -> str:
    """The name of a planned configuration with a network: its own name if it has that network, else `CONFIG__NETWORK`.

    Mixing stays in the name: `si__shift` with a network is `si__NETWORK__shift`.

    Raises:
        InputError: If the configuration is not planned, or the network does not support its dimension; lists those that
        do. Also if the network is that of views which are not planned.
    """
    if network is None:
        return find_configuration(plans, name)[0]
    parts = split_name(configuration_name(name, plans.slice_axis))
    full_name = parts._replace(network=network).text
    plans.check_readable([full_name])
    if full_name in plans.configurations:
        return full_name
    own_name, plan = find_configuration(plans, name)
    rules = find_rules(plans.recipe)
    # Its error also lists the available networks.
    configuration_names([full_name], plans.slice_axis, rules)
    if network_of_views(full_name) is not None:
        return find_configuration(plans, full_name)[0]  # planned with its views, or an error that says how
    asked_for = parts.network or rules.of(parts.configuration).network
    default = plan.representation.default_network
    if plan.network.name != NETWORK_RULES[asked_for or default].network:
        # The plan was edited: its own network counts.
        own = network == plan.network.name
    elif asked_for is None:
        # The planner's default V-Net has another size than the one requested by name.
        own = network == default and default != "vnet"
    else:
        own = network == asked_for
    return own_name if own else full_name


def parse_folds(words: Sequence[str], num_folds: int) -> list[int | str]:
    """Parse folds: numbers, `cv` for all of them, `all` for one model on all cases; duplicates are removed.

    Raises:
        InputError: If a word is none of these, or there is no such fold.
    """
    folds: list[int | str] = []
    for word in words:
        if word == "cv":
            folds += range(num_folds)
        elif word == "all":
            folds.append(word)
        elif is_number(word) and int(word) < num_folds:
            folds.append(int(word))
        else:
            raise InputError(f"there is no fold {word!r}; expected numbers from 0 to {num_folds - 1}, `cv` or `all`")
    return list(dict.fromkeys(folds))
