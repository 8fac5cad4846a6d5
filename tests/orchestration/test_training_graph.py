"""Which commands a run consists of, and that they are those that train what one command after the other would."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.data.splits import read_splits
from seg25d.inference.predictor import Predictor
from seg25d.inference.probability_maps import open_probability_map
from seg25d.orchestration.training_graph import TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun, wanted_runs
from seg25d.planning.ceiling import advised_against
from seg25d.planning.plans_file import read_plans
from seg25d.workflows.options import TrainingOptions
from tests.untraced import untraced

IN_THIS_PROCESS = ["--num-processes", "0", "--device", "cpu"]
SHORT = TrainingOptions(epochs=1, iterations=2)
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(scope="module")
def planned(three_folds, shrink_networks, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    words = ["plan_and_preprocess", "-d", "900", "-c", "2d", "mv", "si", "si__se_unet", "--workspace", str(root)]
    with untraced():
        assert main([*words, "--num-processes", "0"]) == 0
    shrink_networks(root)
    return root


@pytest.fixture
def graph(planned) -> TrainingGraph:
    workspace = Workspace.resolve(planned, {})
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    splits = read_splits(folder.splits)
    return TrainingGraph(workspace, read_plans(folder.plans()), splits, (0, 1, 2), SHORT)


def told(tasks) -> dict[str, tuple[str, ...]]:
    return {task.name: task.needs for task in tasks}


def test_a_configuration_is_a_training_for_each_fold(graph):
    tasks = graph.trainings(WantedRun("axial"))
    assert told(tasks) == {f"axial_fold_{fold}": ("preprocess",) for fold in range(3)}
    words = ("train", DATASET_NAME, "axial", "1", "--epochs", "1", "--iterations", "2", "--keep-probabilities")
    assert tasks[1].words == words
    fold = graph.workspace.run(DATASET_NAME, "axial").fold(1)
    assert tasks[1].outputs == (fold.model_final, fold.validation / "summary.json")
    last = graph.cross_validation(WantedRun("axial"), tasks)
    assert last.needs == ("axial_fold_0", "axial_fold_1", "axial_fold_2")
    assert last.words[2:6] == ("axial", "0", "1", "2")


def test_coarse_models_come_before_fine_ones_and_pretraining_before_its_fine_tuning(graph):
    fine = told(graph.fold(WantedRun("axial", ("fine",)), 2))
    assert fine == {"axial_fold_2": ("preprocess",), "axial__fine_fold_2": ("axial_fold_2",)}
    pretrained = list(replace(graph, pretext="inpainting").fold(WantedRun("axial"), 0))
    assert told(pretrained) == {
        "axial_inpainting": ("preprocess",),
        "axial_fold_0": ("axial_inpainting",),
    }
    assert pretrained[0].words[:5] == ("pretrain", DATASET_NAME, "axial", "--task", "inpainting")
    assert pretrained[1].words[4:6] == ("--pretrained", str(pretrained[0].outputs[0]))


def test_a_fusion_of_views_needs_all_models_of_its_views(graph):
    tasks = told(graph.trainings(WantedRun("mv")))
    views = ("axial", "coronal", "sagittal")
    folds = {f"{view}_fold_{fold}" for view in views for fold in range(3)}
    pairs = {f"{view}_pair_{pair}" for view in views for pair in ("0_1", "0_2", "1_2")}
    assert set(tasks) == folds | pairs | {f"mv_fold_{fold}" for fold in range(3)}
    assert set(tasks["mv_fold_0"]) == {
        *(f"{view}_fold_0" for view in views),
        *(f"{view}_pair_{pair}" for view in views for pair in ("0_1", "0_2")),
    }
    assert tasks["coronal_pair_0_2"] == ("coronal_fold_0",)
    joint = told(graph.fold(WantedRun("mv", ("joint",)), 0))
    assert joint["mv__joint_fold_0"] == ("mv_fold_0",)
    fine = told(graph.fold(WantedRun("mv", ("fine",)), 0))
    assert fine["axial__fine_pair_0_1"] == ("axial_pair_0_1",)
    assert "axial__fine_fold_0" in fine["mv__fine_fold_0"]


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("mv", "mv__fine", "mv__joint", "mv__holdout")]


@pytest.mark.parametrize("name", ["axial", "si__se_unet", "axial__fine", *LONG])
def test_tasks_one_by_one_train_what_one_command_does(name, graph, planned, trained, tmp_path):
    """The last task of a fold finds all that it needs, and trains nothing but itself."""
    shutil.copytree(planned, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    (wanted,) = wanted_runs(graph.plans, [name])
    tasks = list(replace(graph, workspace=workspace).fold(wanted, 0))
    for task in tasks:
        trained.clear()
        assert main([*task.words, *IN_THIS_PROCESS, "--workspace", str(tmp_path / "workspace")]) == 0
        assert len(trained) == 1, task.name
        assert task.name == trained[0].replace("/", "_")
        assert all(path.exists() for path in task.outputs)
    one_by_one = {task.name for task in tasks}
    shutil.rmtree(tmp_path / "workspace" / "results")
    trained.clear()
    assert main([*tasks[-1].words, *IN_THIS_PROCESS, "--workspace", str(tmp_path / "workspace")]) == 0
    assert {each.replace("/", "_") for each in trained} == one_by_one


def test_quick_scores_do_not_mirror_and_give_way_to_the_usual_ones(graph, planned, tmp_path, monkeypatch):
    shutil.copytree(planned, tmp_path / "workspace")
    place = [*IN_THIS_PROCESS, "--workspace", str(tmp_path / "workspace")]
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    mirrored = []
    predict = Predictor.predict_preprocessed

    def noting(self, *image):
        mirrored.append(self.options.mirroring)
        return predict(self, *image)

    monkeypatch.setattr(Predictor, "predict_preprocessed", noting)
    (wanted,) = wanted_runs(graph.plans, ["2d"])
    (usual,), (quick,) = (
        list(replace(graph, workspace=workspace).fold(wanted, 0, quick=each)) for each in (False, True)
    )
    folder = workspace.run(DATASET_NAME, "axial").fold(0)
    for task, there, gone in (
        (quick, folder.validation_quick, folder.validation),
        (usual, folder.validation, folder.validation_quick),
        (quick, folder.validation, folder.validation_quick),
    ):
        assert main([*task.words, *place]) == 0
        assert (there / "summary.json").exists()
        assert not gone.exists()
    assert mirrored == [False, True]
    assert main([*quick.words, "--npz", *place]) == 2


@pytest.mark.slow
def test_kept_probabilities_are_those_that_the_choice_would_predict(planned, tmp_path, capsys):
    shutil.copytree(planned, tmp_path / "workspace")
    place = [*IN_THIS_PROCESS, "--workspace", str(tmp_path / "workspace")]
    run = Workspace.resolve(tmp_path / "workspace", {}).run(DATASET_NAME, "axial")
    words = ["train", "900", "2d", "0", "1", "--epochs", "1", "--iterations", "2"]
    assert main([*words, "--keep-probabilities", *place]) == 0
    kept = {path: open_probability_map(path)[...] for fold in (0, 1) for path in run.fold(fold).probabilities.iterdir()}
    assert len(kept) == 2
    choose = ["find_best_configuration", "900", "-c", "2d", "-f", "0", "1", *place]
    assert main(choose) == 0
    assert "predicting cases" not in capsys.readouterr().err
    for path in kept:
        path.unlink()
    assert main(choose) == 0
    assert "predicting cases" in capsys.readouterr().err
    for path, probabilities in kept.items():
        np.testing.assert_array_equal(open_probability_map(path)[...], probabilities)
    shutil.rmtree(run.root)
    assert main([*words, *place]) == 0
    assert not run.fold(0).probabilities.exists()


def test_runs_are_named_as_configurations_with_network_and_variants(graph):
    assert wanted_runs(graph.plans, ["2d", "2d__fine", "si__se_unet", "mv__no_image", "axial"]) == [
        WantedRun("axial"),
        WantedRun("axial", ("fine",)),
        WantedRun("si__se_unet"),
        WantedRun("mv", ("no_image",)),
    ]
    advised = {name for name, plan in graph.plans.configurations.items() if advised_against(plan) is None}
    assert "si" in advised
    assert {each.configuration for each in wanted_runs(graph.plans, None)} == advised
    plan = graph.plans.configurations["si"]
    coarse = plan.model_copy(update={"reasons": {**plan.reasons, "warning": "its pixels are coarse"}})
    left = wanted_runs(graph.plans.with_plan("si", coarse), None)
    assert {each.configuration for each in left} == advised - {"si"}
    unfused = advised - {"mv"}
    assert {each.configuration for each in wanted_runs(graph.plans, None, "inpainting")} == unfused
    with pytest.raises(InputError, match="mv trains several"):
        wanted_runs(graph.plans, ["mv"], "inpainting")
    with pytest.raises(InputError, match="has no such variant"):
        wanted_runs(graph.plans, ["si__joint"])
    with pytest.raises(InputError, match="there is no configuration"):
        wanted_runs(graph.plans, ["4d"])


def test_a_part_is_refused_where_there_is_none(planned, capsys):
    place = [*IN_THIS_PROCESS, "--workspace", str(planned)]
    assert main(["train", "900", "2d", "0", "--part", "axial/pair_0_1", *place]) == 2
    assert "--part is for what fuses views" in capsys.readouterr().err
    assert main(["train", "900", "mv", "0", "--part", "axial/pair_1_2", *place]) == 2
    assert "needs no axial/pair_1_2; it needs axial/fold_0" in capsys.readouterr().err
    assert main(["train", "900", "mv", "0", "--part", "axial/pair_0_1", "--val", *place]) == 2
    assert "leave --restart and --val out" in capsys.readouterr().err
