"""Recipes of papers with a smaller common size, by which their protocols can be trained on two cores, and their plans.

    python benchmarks/smaller_recipes.py --dataset 4 --recipe shivdeo2021_64 --workspace WORKSPACE

The command plans and preprocesses a data set by such a recipe. Nothing but the size is changed: networks, batches,
folds and training are those of the recipe. Plans and runs bear its name, so that nobody takes them for the paper's.
"""

import argparse
from pathlib import Path

from seg25d import api
from seg25d.cli.common import configure_logging
from seg25d.core.limits import CommonShape
from seg25d.core.workspace import Workspace
from seg25d.planning.recipe_names import PLACES
from seg25d.planning.recipe_rules import (
    SHIVDEO2021,
    SOBIROV2022_ATRIA,
    SOBIROV2022_ATRIA64,
    PlanningRules,
    find_rules,
)
from seg25d.training.recipes import RECIPES


def smaller(rules: PlanningRules, name: str, common_shape: CommonShape) -> PlanningRules:
    """The rules of a recipe with another common size.

    Args:
        rules: Of the paper's recipe.
        name: Of the smaller recipe.
        common_shape: Voxels along (D, H, W) that every case is resized to; None: as many as its spacing gives it.
    """
    return rules.model_copy(
        update={"name": name, "source": f"{rules.source}, made smaller", "common_shape": common_shape}
    )


SHIVDEO2021_64 = smaller(SHIVDEO2021, "shivdeo2021_64", (None, 64, 64))
"""64 x 64 instead of 512 x 512: the next size above that of the hippocampus' slices, 50 x 35 voxels, that both networks
take (the U-Net divides by 32, the V-Net by 16)."""
SOBIROV2022_ATRIA_32 = smaller(SOBIROV2022_ATRIA, "sobirov2022_atria_32", (88, 32, 32))
SOBIROV2022_ATRIA64_32 = smaller(SOBIROV2022_ATRIA64, "sobirov2022_atria64_32", (64, 32, 32))
"""32 x 32 instead of 160 x 160; as many slices as in the paper, for its grids of 11 x 8 and 8 x 8."""

GPU_MEMORY_GB = 8.0
"""Memory that plans are made for, as in all_tables.py: they do not depend on the machine."""
SMALLER = {
    rules.name: (paper, rules)
    for paper, rules in (
        ("shivdeo2021", SHIVDEO2021_64),
        ("sobirov2022_atria", SOBIROV2022_ATRIA_32),
        ("sobirov2022_atria64", SOBIROV2022_ATRIA64_32),
    )
}
"""Name of the paper's recipe, and rules, by the name of the smaller recipe."""


def made_smaller(recipe: str) -> str:
    """A sentence on what a smaller recipe changes; empty for other recipes."""
    if recipe not in SMALLER:
        return ""
    paper, rules = SMALLER[recipe]
    shapes = [each.common_shape or () for each in (rules, find_rules(paper))]
    here, there = (" x ".join(str(size) for size in shape if size is not None) for shape in shapes)
    return f" Cases are resized to {here} voxels instead of {there}."


def add_smaller_recipes() -> None:
    """Make the smaller recipes known in this process: `find_rules` and `find_recipe` have them from then on."""
    for name, (paper, _) in SMALLER.items():
        PLACES[name] = f"smaller_recipes:{name.upper()}"
        RECIPES[name] = RECIPES[paper].model_copy(update={"recipe": name})


def main() -> None:
    """Plan and preprocess a data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", required=True, help="1, 001 or Dataset001_Name")
    parser.add_argument("--recipe", nargs="+", required=True, choices=list(SMALLER))
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--num-processes", type=int)
    options = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    add_smaller_recipes()
    for recipe in options.recipe:
        planning = api.PlanningOptions(recipe=recipe, gpu_memory_gb=GPU_MEMORY_GB, num_processes=options.num_processes)
        api.plan_and_preprocess(Workspace.resolve(options.workspace), [options.dataset], planning)


if __name__ == "__main__":
    main()
