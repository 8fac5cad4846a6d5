"""`seg25d run` from a raw data set to the page; models are written instead of trained."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.locks import file_lock
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.data.splits import read_splits
from seg25d.orchestration import run as run_module
from seg25d.orchestration import training_graph
from seg25d.orchestration.options import RunOptions
from seg25d.orchestration.run import _all_trainings, _planned_graph
from seg25d.orchestration.wanted_runs import wanted_runs
from seg25d.planning.plans_file import read_plans
from seg25d.workflows.options import TrainingOptions
from tests.untraced import untraced

IN_THIS_PROCESS = ["--num-processes", "0", "--device", "cpu"]
TINY = ["--epochs", "1", "--iterations", "2"]


@pytest.fixture(scope="module")
def planned(three_folds, shrink_networks, tmp_path_factory) -> Path:
    """A workspace with plans and no arrays."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    words = ["plan_and_preprocess", "-d", "900", "-c", "2d", "si", "--plan-only", "--workspace", str(root)]
    with untraced():
        assert main([*words, "--num-processes", "0"]) == 0
    shrink_networks(root)
    return root


@pytest.fixture
def workspace(planned, tmp_path, monkeypatch) -> Workspace:
    shutil.copytree(planned, tmp_path / "workspace")
    monkeypatch.setenv("SEG25D_WORKSPACE", str(tmp_path / "workspace"))
    return Workspace.resolve()


def run(*words: str, status: int = 0) -> None:
    assert main(["run", "900", *IN_THIS_PROCESS, *words]) == status


def record_of(workspace: Workspace) -> dict:
    return json.loads((workspace.results / DATASET_NAME / "run.json").read_text())


@pytest.mark.slow
def test_one_command_leads_from_raw_images_to_predictions(workspace, written_models, capsys, tmp_path):
    run("-c", "2d", "si", *TINY)
    assert written_models.trained == [f"{name}/fold_{fold}" for name in ("axial", "si") for fold in range(3)]
    told = capsys.readouterr()
    assert "predict with: seg25d predict -i IN -o OUT" in told.out
    assert f"report: {workspace.report(DATASET_NAME)}" in told.out
    graph = told.err[told.err.index("task") : told.err.index("of training in all")]
    assert all(word in graph for word in ("preprocess", "axial_fold_2", "si_crossval", "choose", "report", "GB", " s"))
    record = record_of(workspace)
    assert {line["state"] for line in record["tasks"]} == {"done"}
    assert record["predict"] == "seg25d predict -i IN -o OUT"
    for name in ("axial", "si"):
        assert workspace.run(DATASET_NAME, name).crossval.exists()
    assert workspace.report(DATASET_NAME).stat().st_size > 10_000
    log = (workspace.results / DATASET_NAME / "tasks" / "axial_fold_1.log").read_text()
    assert log.startswith(f"$ seg25d train {DATASET_NAME} axial 1 --epochs 1 --iterations 2")
    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *IN_THIS_PROCESS]) == 0
    assert list((tmp_path / "out").glob("*.nii.gz"))


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_was_cut_off(workspace, written_models, capsys, monkeypatch):
    monkeypatch.setattr(training_graph.TrainingGraph, "choice", lambda *_: [])  # seconds
    written_models.cut_off_at = "axial/fold_1"
    run("-c", "2d", *TINY, status=130)
    assert "the same command continues" in capsys.readouterr().err
    assert [line["state"] for line in record_of(workspace)["tasks"]] == [
        "done",
        "done",
        "waiting",
        "waiting",
        "waiting",
    ]
    written_models.cut_off_at = ""
    written_models.trained.clear()
    run("-c", "2d", *TINY)
    assert written_models.trained == ["axial/fold_1", "axial/fold_2"]
    graph = capsys.readouterr().err
    assert re.search(r"axial_fold_0 +preprocess +done ", graph)
    assert re.search(r"axial_fold_1 +preprocess +[\d.]+ s ", graph)
    written_models.trained.clear()
    run("-c", "2d", *TINY)
    assert written_models.trained == []
    run("-c", "2d", "--epochs", "2", "--iterations", "4")
    assert written_models.trained == [f"axial/fold_{fold}" for fold in range(3)]


@pytest.mark.slow
def test_a_failed_task_is_named_and_the_others_are_done(workspace, written_models, capsys, monkeypatch):
    usual = training_graph.TrainingGraph._train

    def wrong(graph, wanted, fold):
        words = usual(graph, wanted, fold)
        return (*words, "--set", "learning_rate=-1") if (wanted.configuration, fold) == ("si", 1) else words

    monkeypatch.setattr(training_graph.TrainingGraph, "_train", wrong)
    run("-c", "2d", "si", *TINY, status=1)
    told = capsys.readouterr().err
    assert "error: 2 task(s) failed, all that do not need them were done:" in told
    assert "si_fold_1: --set is not valid" in told
    assert "si_crossval: needs si_fold_1, which failed" in told
    assert (workspace.run(DATASET_NAME, "si").fold(2).validation / "summary.json").exists()
    assert json.loads(workspace.best(DATASET_NAME).read_text())["name"] == "axial"
    assert record_of(workspace)["predict"]


def test_a_fold_that_others_need_too_keeps_its_own_probabilities(planned):
    workspace = Workspace.resolve(planned, {})
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    plans, splits = read_plans(folder.plans()), read_splits(folder.splits)
    graph = training_graph.TrainingGraph(workspace, plans, splits, (0, 1, 2), TrainingOptions())
    for names in (["2d", "2d__fine"], ["2d__fine", "2d"]):
        tasks = {task.name: task for task in _all_trainings(graph, wanted_runs(plans, names))}
        kept = {name for name, task in tasks.items() if "--keep-probabilities" in task.words}
        assert kept == {f"{run}_fold_{fold}" for run in ("axial", "axial__fine") for fold in range(3)}


@pytest.mark.slow
def test_some_folds_and_the_one_on_all_cases(workspace, written_models, capsys):
    run("-c", "2d", "-f", "all", *TINY)
    assert written_models.trained == ["axial/fold_all"]
    assert "-c axial -f all" in capsys.readouterr().out
    assert not workspace.best(DATASET_NAME).exists()
    run("-c", "2d", "-f", "0", "2", *TINY)
    best = json.loads(workspace.best(DATASET_NAME).read_text())
    assert best["folds"] == [0, 2]


@pytest.mark.slow
def test_a_time_for_everything_is_spent_and_the_page_says_how(workspace, written_models):
    run("-c", "2d", "si", "--time-budget", "20min")
    record = record_of(workspace)
    assert {each["name"] for each in record["rounds"][0]["runs"]} == {"axial", "si"}
    assert any("gets" in each["what"] for each in record["decisions"])
    assert json.loads(workspace.best(DATASET_NAME).read_text())["members"][0]["folds"] == ["0", "1", "2"]
    page = workspace.report(DATASET_NAME).read_text()
    assert all(each["what"] in page for each in record["decisions"])
    written_models.trained.clear()
    run("-c", "2d", "si", "--time-budget", "20min")
    assert written_models.trained == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time-budget", "1h", "--epochs", "3"], "drop it, or --epochs"),
        (["-c", "4d"], "there is no configuration '4d'"),
        (["-c", "si__joint"], "has no such variant"),
        (["-c", "2d", "-f", "7"], "there is no fold '7'"),
        (["-c", "2d", "--on", "ray", "--device", "cuda:0,cuda:1"], "expected one device, or none"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(words, said, workspace, written_models, capsys):
    run(*words, status=2)
    assert said in capsys.readouterr().err
    assert not written_models.trained
    assert not (workspace.results / DATASET_NAME / "tasks").exists()


def test_what_was_trained_with_another_plan_is_told(workspace, capsys, monkeypatch):
    monkeypatch.setattr("seg25d.orchestration.run.timed_trainings", lambda *_, **__: pytest.fail("it goes on"))
    folder, axial = workspace.preprocessed_dataset(DATASET_NAME), workspace.run(DATASET_NAME, "axial")
    (axial.root / "fold_0").mkdir(parents=True)
    axial.fold(0).checkpoint.touch()
    plans = json.loads(folder.plans().read_text())
    plans["configurations"]["axial"]["batch_size"] += 1
    axial.plans.write_text(json.dumps(plans))
    run("-c", "2d", status=2)
    assert "the plan of axial changed since fold_0" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_cluster_may_have_a_device_that_is_not_here(workspace):
    graph, _ = _planned_graph(workspace, DATASET_NAME, RunOptions(configurations=("2d",), on="slurm", device="cuda"))
    assert graph.seconds_per_update == {}
    with pytest.raises(InputError, match="cuda"):
        _planned_graph(workspace, DATASET_NAME, RunOptions(configurations=("2d",), device="cuda"))


def test_two_at_once_are_one_too_many(workspace, capsys):
    with file_lock(workspace.results / DATASET_NAME / "run.json", "seg25d run"):
        run("-c", "2d", *TINY, status=2)
    assert "is in use (process" in capsys.readouterr().err


def test_a_workspace_is_found_by_tasks_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for environment in (
        {},
        {"SEG25D_WORKSPACE": "w"},
        {"seg25d_raw": "a", "seg25d_results": "b"},
        {"nnUNet_raw": "a", "nnUNet_results": "b"},
        {"nnUNet_raw": "a", "nnUNet_preprocessed": "p", "seg25d_preprocessed": "q"},
    ):
        workspace = Workspace.resolve(None, environment)
        again = Workspace.resolve(None, workspace.environment())
        fields = ("raw", "preprocessed", "results", "nnunet_preprocessed")
        for field in fields:
            before = getattr(workspace, field)
            assert getattr(again, field) == (before and before.absolute()), (environment, field)


@pytest.mark.parametrize(
    ("options", "planned_for"),
    [
        ({}, ("auto", "auto", None)),
        ({"gpu_memory_gb": 24, "device": "cpu"}, (24, "auto", "cpu")),
        ({"on": "slurm"}, ("auto", None, None)),
    ],
)
def test_plans_are_for_this_machine_unless_others_train(workspace, monkeypatch, options, planned_for):
    def note(_, __, planning):
        assert (planning.gpu_memory_gb, planning.cpu_gflops, planning.device) == planned_for
        raise InputError("enough")

    monkeypatch.setattr(run_module, "prepare_datasets", note)
    with pytest.raises(InputError, match="enough"):
        _planned_graph(workspace, DATASET_NAME, RunOptions(**options))


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, None),
        ({"time_budget_s": 3660}, 0.75 * 3600 / 3),
        ({"time_budget_s": 3660, "folds": ("0", "all")}, 0.75 * 3600 / 2),
        ({"time_budget_s": 3660, "folds": ("cv", "0", "all")}, 0.75 * 3600 / 4),
        ({"time_budget_s": 70}, 20),
        # Nothing is known of how fast these are.
        ({"time_budget_s": 3660, "device": None, "gpu_memory_gb": 24}, None),
        ({"time_budget_s": 3660, "on": "slurm"}, None),
    ],
)
def test_new_plans_are_for_the_time_that_each_training_gets(workspace, monkeypatch, options, seconds):
    """Less than all of it, as configurations are compared before; plans that are there stay as they are."""
    noted = []

    def note(_, __, planning):
        noted.append(planning.time_budget_s)
        raise InputError("enough")

    monkeypatch.setattr(run_module, "prepare_datasets", note)
    plans = workspace.preprocessed_dataset(DATASET_NAME).plans()
    for _ in range(2):
        with pytest.raises(InputError, match="enough"):
            _planned_graph(workspace, DATASET_NAME, RunOptions(**{"device": "cpu"} | options))
        plans.unlink(missing_ok=True)
    assert noted == [None, pytest.approx(seconds) if seconds else None]


def test_kept_plans_for_another_time_are_told(workspace, monkeypatch, caplog):
    monkeypatch.setattr(run_module, "timed_trainings", lambda *_, **__: {})
    caplog.set_level("INFO")
    path = workspace.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    for gflops, seconds, told in ((0, 1060, False), (64, 1060, True), (64, 100_000, False)):
        path.write_text(json.dumps(plans | {"cpu_gflops": gflops}))
        caplog.clear()
        options = RunOptions(configurations=("2d",), device="cpu", num_processes=0, time_budget_s=seconds)
        _planned_graph(workspace, DATASET_NAME, options)
        assert (f"plan_and_preprocess -d {DATASET_NAME} --time-budget 250s` plans for" in caplog.text) == told
