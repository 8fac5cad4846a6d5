"""`mv` by the recipe of Xia et al. 2018: coarse-to-fine views by default, where their results lie, and what uses them.

Constant models stand in for training; `tests/training/test_recipes.py` trains.
"""

import json
import shutil
from pathlib import Path

import pytest

from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.ensembling.fused_predictor import coarse_view_model, view_model
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import load_header
from seg25d.planning.plans_file import read_plans
from seg25d.training.config import read_config
from seg25d.views.training_times import timed_trainings
from tests.commands import run
from tests.untraced import untraced

TINY = ["--epochs", "1", "--iterations", "2"]
VIEWS = ("axial", "coronal", "sagittal")
SETS = ("fold_0", "pair_0_1", "pair_0_2")
RECIPE = ["--recipe", "xia2018"]
TRAIN = ["train", "900", "mv", "0", *TINY, *RECIPE]
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(scope="module")
def planned(three_folds, shrink_networks, tmp_path_factory) -> Path:
    """A workspace with a planned and preprocessed data set of three cases and three folds."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "mv", *RECIPE)
    shrink_networks(root)
    return root


@pytest.fixture
def workspace(planned, tmp_path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(planned, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


@pytest.mark.slow
def test_views_are_coarse_to_fine_and_their_results_are_found(workspace, trained, capsys):
    run(workspace, *TRAIN)
    names = [f"{view}{fine}__xia2018" for fine in ("", "__fine") for view in VIEWS]
    models = [f"{name}/{each}" for name in names for each in SETS]
    assert sorted(trained) == sorted([*models, "mv__fine__xia2018/fold_0"])
    folder = workspace.run(DATASET_NAME, "mv__fine__xia2018").fold(0)
    for view in VIEWS:
        fine, coarse = (workspace.run(DATASET_NAME, f"{view}{kind}__xia2018").fold(0) for kind in ("__fine", ""))
        assert read_config(coarse).fine is None
        assert load_header(view_model(folder.root, view)).fine == FineConfig(large_components=True)
        assert coarse_view_model(folder.root, view).read_bytes() == coarse.model_final.read_bytes()
        # methods.md 4.1: each stage has settings of its own.
        assert (read_config(coarse).largest_slices, read_config(fine).largest_slices) == (0.98, 1.0)
    trained.clear()
    run(workspace, *TRAIN)
    assert trained == []

    images, out = workspace.raw_dataset(DATASET_NAME) / "imagesTs", workspace.results / "out"
    run(workspace, "predict", "-d", "900", "-i", str(images), "-o", str(out), "-c", "mv", *RECIPE)
    assert json.loads((out / "prediction.json").read_text())["model"]["configuration"] == "mv__fine__xia2018"
    assert "mv__fine__xia2018 is the only variant that is trained" in capsys.readouterr().err
    run(workspace, "find_best_configuration", "900", "-c", "mv__fine__xia2018", "axial__fine__xia2018", "-f", "0")
    assert json.loads(workspace.best(DATASET_NAME).read_text())["members"]
    # What trains the other folds: the fine views are the recipe's own.
    capsys.readouterr()
    run(workspace, "find_best_configuration", "900", "-c", "mv__fine__xia2018", status=2)
    message = capsys.readouterr().err
    assert f"mv__fine__xia2018: seg25d train {DATASET_NAME} mv 1 2 --recipe xia2018" in message
    assert "--set" not in message


@pytest.mark.slow
def test_views_are_plain_where_that_is_asked_for_or_they_are_trained_with_the_fusion(workspace, trained, capsys):
    run(workspace, *TRAIN, "--set", "fusion.fine=false")
    plain = [*(f"{view}__xia2018/{each}" for each in SETS for view in VIEWS), "mv__xia2018/fold_0"]
    assert trained == plain
    run(workspace, "find_best_configuration", "900", "-c", "mv__xia2018", status=2)
    assert f"seg25d train {DATASET_NAME} mv 1 2 --recipe xia2018 with the same --set" in capsys.readouterr().err
    trained.clear()
    run(workspace, *TRAIN, "--set", "fusion.joint=true")
    assert trained == ["mv__joint__xia2018/fold_0"]


def test_what_is_told_of_times_counts_coarse_and_fine_models(planned):
    folder = Workspace.resolve(planned, {}).preprocessed_dataset(DATASET_NAME)
    times = timed_trainings(folder, read_plans(folder.plans(recipe="xia2018")), "cpu", 0)["mv"]
    assert times.num_models == 2 * 9 + 1
    assert times.updates_per_fold == 9 * (80_000 + 60_000) + 30_000


def test_slices_are_for_methods_of_slices(workspace, trained, capsys):
    run(workspace, *TRAIN, "--set", "largest_slices=0.5", "--set", "foreground_share=0.5", status=2)
    assert "largest_slices: expected a method of single slices" in capsys.readouterr().err
    assert not trained
