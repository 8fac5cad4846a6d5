"""Folds of the papers, from the recipe to the file: as many, and shuffled with the seed, that methods.md gives."""

import json

import numpy as np
import pytest

from seg25d.api import plan_and_preprocess
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset
from seg25d.workflows.options import PlanningOptions

NUM_CASES = 9


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("folds")
    write_phantom_dataset(root / "raw" / DATASET_NAME, num_training=NUM_CASES, num_test=0, shape=(8, 32, 32))
    return Workspace.resolve(root, {})


@pytest.mark.parametrize(
    ("recipe", "configuration", "num_folds", "seed"),
    [
        ("default", "2d", 5, 12345),
        ("sobirov2022", "si", 5, 786),
        ("sobirov2022_atria", "si", 4, 786),
        ("sobirov2022_atria64", "3d", 4, 786),
        ("angermann2022", "2d", 7, 12345),
        ("xia2018", "axial", 4, 12345),
    ],
)
def test_folds_are_those_of_the_paper(
    workspace: Workspace, recipe: str, configuration: str, num_folds: int, seed: int
) -> None:
    options = PlanningOptions(configurations=(configuration,), recipe=recipe, plan_only=True, num_processes=0)
    plan_and_preprocess(workspace, ["900"], options)
    folds = json.loads(workspace.preprocessed_dataset(DATASET_NAME).recipe_splits(recipe).read_text())
    # scikit-learn's KFold, shuffled: the shuffled cases in so many parts.
    cases = np.array(sorted({case for fold in folds for case in fold["val"]}))
    assert len(cases) == NUM_CASES
    order = np.arange(NUM_CASES)
    np.random.RandomState(seed).shuffle(order)
    expected = [sorted(cases[part].tolist()) for part in np.array_split(order, num_folds)]
    assert [fold["val"] for fold in folds] == expected
