"""Training recipes by name."""

from seg25d.core.errors import InputError
from seg25d.training.config import TrainingConfig

RECIPES: dict[str, TrainingConfig] = {
    "default": TrainingConfig(),
}
"""The recipes: one record each."""


def find_recipe(name: str) -> TrainingConfig:
    """The settings of a recipe.

    Raises:
        InputError: If there is no such recipe; lists those that there are.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
