"""The recipes by name; imports nothing, as help texts list them."""

PLACES: dict[str, str] = {
    "default": "seg25d.planning.recipe_rules:DEFAULT_RULES",
    "sobirov2022": "seg25d.planning.recipe_rules:SOBIROV2022",
    "sobirov2022_pta": "seg25d.planning.recipe_rules:SOBIROV2022_PTA",
    "sobirov2022_atria": "seg25d.planning.recipe_rules:SOBIROV2022_ATRIA",
    "sobirov2022_atria64": "seg25d.planning.recipe_rules:SOBIROV2022_ATRIA64",
    "shivdeo2021": "seg25d.planning.recipe_rules:SHIVDEO2021",
    "angermann2022": "seg25d.planning.recipe_rules:ANGERMANN2022",
    "xia2018": "seg25d.planning.recipe_rules:XIA2018",
}
"""Location of the planning part of each recipe, see `Registry`; training/recipes.py has the other part."""

WITH_FINE_VIEWS = ("xia2018",)
"""Recipes whose views of `mv` are coarse-to-fine by default (methods.md 4.1: the baseline [18] of the paper)."""
