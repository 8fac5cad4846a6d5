"""Names of configurations, runs and folds, as users write them and as folders have them."""

import logging
import re
from collections.abc import Sequence

from seg25d.core.errors import InputError
from seg25d.planning.configurations import check_configurations, configuration_name, configuration_names, split_name
from seg25d.planning.network_rules import NETWORK_RULES
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.recipe_rules import PlanningRules, find_rules

logger = logging.getLogger(__name__)


def check_names(configurations: Sequence[str], recipe: str) -> PlanningRules:
    """Make sure that there are such configurations and such a recipe for them, before any work is done.

    Returns:
        What the recipe fixes.

    Raises:
        InputError: If not; lists those that there are.
    """
    rules = find_rules(recipe)
    check_configurations(configurations)
    # A recipe is meant for all axes or none, whichever of them `2d` will be.
    configuration_names(configurations, 0, rules)
    return rules


def find_configuration(plans: Plans, name: str) -> tuple[str, ConfigurationPlan]:
    """The name and the plan of a configuration.

    Raises:
        InputError: If there is no such configuration, or it is not planned; lists the choices. Also if its plan cannot
            be read; names the place.
    """
    own_name = configuration_name(name, plans.slice_axis)
    plans.check_readable([own_name])
    if own_name not in plans.configurations:
        check_names([name], plans.recipe)
        known = ", ".join(plans.configurations)
        raise InputError(
            f"{plans.dataset_name} has no configuration {name!r} in its plans; known: {known}; "
            f"plan_and_preprocess with -c {name} adds it"
        )
    return own_name, plans.configurations[own_name]


def with_network(plans: Plans, name: str, network: str | None) -> str:
    """The name of a planned configuration with a network: its own if that is planned, else `CONFIG__NETWORK`.

    Raises:
        InputError: If the configuration is not planned, or the network cannot have its dimension; lists those that can.
    """
    if network is None:
        return find_configuration(plans, name)[0]
    configuration, planned = split_name(configuration_name(name, plans.slice_axis))
    full_name = f"{configuration}__{network}"
    plans.check_readable([full_name])
    if full_name in plans.configurations:
        return full_name
    own_name, plan = find_configuration(plans, name)
    rules = find_rules(plans.recipe)
    # Also says which networks there are.
    configuration_names([full_name], plans.slice_axis, rules)
    asked_for = planned or rules.of(configuration).network
    default = plan.representation.default_network
    if plan.network.name != NETWORK_RULES[asked_for or default].network:
        # Somebody edited the plan: it has the network that it says.
        own = network == plan.network.name
    elif asked_for is None:
        # The planner's own V-Net has another size than the one that can be asked for.
        own = network == default and default != "vnet"
    else:
        own = network == asked_for
    return own_name if own else full_name


def parse_folds(words: Sequence[str], num_folds: int) -> list[int | str]:
    """The folds that are meant: numbers, `cv` for all of them, `all` for one model on all cases; none twice.

    Raises:
        InputError: If a word is none of these, or there is no such fold.
    """
    folds: list[int | str] = []
    for word in words:
        if word == "cv":
            folds += range(num_folds)
        elif word == "all":
            folds.append(word)
        elif re.fullmatch(r"\d+", word) and int(word) < num_folds:
            folds.append(int(word))
        else:
            raise InputError(f"there is no fold {word!r}; wanted numbers from 0 to {num_folds - 1}, `cv` or `all`")
    return list(dict.fromkeys(folds))
