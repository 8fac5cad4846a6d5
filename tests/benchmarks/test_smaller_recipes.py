"""benchmarks/smaller_recipes.py: recipes of papers of which the common size alone is another one."""

import sys
from collections.abc import Iterator

import pytest
import smaller_recipes
from smaller_recipes import SMALLER, add_smaller_recipes, made_smaller

from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset
from seg25d.planning.plans_file import read_plans
from seg25d.planning.recipe_names import PLACES
from seg25d.planning.recipe_rules import find_rules
from seg25d.training.recipes import RECIPES, find_recipe


@pytest.fixture(autouse=True)
def _forget_smaller_recipes() -> Iterator[None]:
    """What a script makes known is not known to other tests."""
    yield
    for name in SMALLER:
        PLACES.pop(name, None)
        RECIPES.pop(name, None)


def test_nothing_but_the_size_is_changed() -> None:
    add_smaller_recipes()
    for name, (paper, rules) in SMALLER.items():
        assert find_rules(name) == rules
        changed = {"name", "source", "common_shape"}
        assert rules.model_dump(exclude=changed) == find_rules(paper).model_dump(exclude=changed)
        assert (rules.common_shape or ())[0] == (find_rules(paper).common_shape or ())[0], "slices"
        assert find_recipe(name).model_dump(exclude={"recipe"}) == find_recipe(paper).model_dump(exclude={"recipe"})
        assert find_recipe(name).recipe == name


def test_it_is_said_what_is_smaller() -> None:
    assert made_smaller("shivdeo2021") == ""
    assert made_smaller("shivdeo2021_64") == " Cases are resized to 64 x 64 voxels instead of 512 x 512."
    sizes = "88 x 32 x 32 voxels instead of 88 x 160 x 160"
    assert made_smaller("sobirov2022_atria_32") == f" Cases are resized to {sizes}."


@pytest.mark.slow
def test_a_data_set_is_planned_with_the_published_networks_in_small(tmp_path, monkeypatch):
    workspace = Workspace.resolve(tmp_path, {})
    write_phantom_dataset(workspace.raw / DATASET_NAME, num_training=5, num_test=1, shape=(8, 32, 32))
    words = ["--dataset", "900", "--recipe", "shivdeo2021_64", "sobirov2022_atria_32", "--workspace", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["smaller_recipes.py", *words, "--num-processes", "0"])
    smaller_recipes.main()
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    plans = read_plans(folder.plans(recipe="shivdeo2021_64"))
    stack, slices = plans.configurations["stack"], plans.configurations["axial"]
    assert (stack.window, stack.network.name, stack.batch_size) == ((32, 64, 64), "vnet", 1)
    assert stack.network.model_dump()["widths"] == (16, 32, 64, 128, 256)
    assert (slices.window, slices.network.name, slices.batch_size) == ((1, 64, 64), "xception_cbam_unet", 16)
    assert "made smaller" in plans.reasons["spacing_mm"]
    atria = read_plans(folder.plans(recipe="sobirov2022_atria_32")).configurations
    assert (atria["si"].window, atria["3d"].window) == ((88, 32, 32), (88, 32, 32))
    assert atria["si"].representation.model_dump()["grid"] == (11, 8)
