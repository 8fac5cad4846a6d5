"""From raw images to scores on a tiny made-up data set."""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seg25d import api
from seg25d.core.errors import BusyError, DatasetError, InputError, RecordError
from seg25d.core.locks import folder_lock
from seg25d.core.workspace import Workspace
from seg25d.data import vessels
from seg25d.data.image_io import read_geometry, read_labels
from seg25d.data.phantom import DATASET_NAME, LABELS, write_phantom_dataset
from seg25d.demo.phantom import PHANTOM
from seg25d.inference.predictor import Predictor
from seg25d.planning import recipe_rules
from seg25d.planning.model_file import load_header
from seg25d.preprocessing.store import Store
from seg25d.workflows.planned_run import planned_run
from tests.commands import IN_THIS_PROCESS, run
from tests.untraced import untraced

SHAPE = (8, 32, 32)
CASES = [f"phantom_{index:03d}" for index in range(4)]
TINY = ["--epochs", "1", "--iterations", "2", "--set", "validation_windows=1", "--set", "augmentation.enabled=false"]
WRITTEN = pytest.mark.usefixtures("written_models")
"""Constant models stand in for training."""


@pytest.fixture(scope="module")
def raw_data(tmp_path_factory) -> Path:
    """A workspace with a raw data set of four cases, two folds and one held-out case."""
    root = tmp_path_factory.mktemp("raw_data")
    folder = root / "raw" / DATASET_NAME
    write_phantom_dataset(folder, num_training=4, num_test=1, shape=SHAPE)
    halves = CASES[:2], CASES[2:]
    splits = [{"train": halves[fold], "val": halves[1 - fold]} for fold in range(2)]
    (folder / "splits.json").write_text(json.dumps(splits))
    return root


@pytest.fixture
def workspace(raw_data, tmp_path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(raw_data, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


@pytest.fixture(scope="module")
def planned_once(raw_data, tmp_path_factory) -> Path:
    """The same with `si` planned and preprocessed."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(raw_data, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "si")
    return root


@pytest.fixture
def planned(planned_once, tmp_path) -> Workspace:
    """A copy of that."""
    shutil.copytree(planned_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def check_ensemble_of_folds(workspace: Workspace, raw: Path) -> None:
    """Predict with each fold by itself, and fuse."""
    members = [str(workspace.results / f"out_{fold}") for fold in "01"]
    for fold, member in zip("01", members, strict=True):
        words = ["-i", str(raw / "imagesTs"), "-o", member, "-f", fold, "--save-probabilities"]
        run(workspace, "predict", *words)
    fused = workspace.results / "fused"
    run(workspace, "ensemble", "-i", *members, "-o", str(fused), "--fit-weights", str(raw / "labelsTs"))
    assert read_geometry(fused / "phantom_004.nii.gz") == read_geometry(raw / "imagesTs" / "phantom_004_0000.nii.gz")
    model = json.loads((fused / "prediction.json").read_text())["model"]
    assert [each["model"]["folds"] for each in model["folders"]] == [["0"], ["1"]]
    assert sum(model["weights"]) == pytest.approx(1)


def test_the_whole_story(workspace, capsys):
    raw = workspace.raw_dataset(DATASET_NAME)
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d", "si", "--explain")
    assert "super" in capsys.readouterr().out
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    plans = json.loads(folder.plans().read_text())
    assert set(plans["configurations"]) == {"axial", "si"}
    assert (folder.root / "dataset.json").read_bytes() == (raw / "dataset.json").read_bytes()

    shutil.move(raw, workspace.raw / "elsewhere")
    run(workspace, "train", "900", "2d", "cv", *TINY)
    results = workspace.run(DATASET_NAME, "axial")
    assert results.trained_folds() == ["0", "1"]
    for fold in range(2):
        files = {path.name for path in results.fold(fold).root.iterdir()}
        assert {"config.json", "log.jsonl", "progress.png", "model_best.safetensors", "validation"} <= files
    per_case = json.loads(results.crossval.read_text())["per_case"]
    assert [case["case"] for case in per_case] == CASES
    shutil.move(workspace.raw / "elsewhere", raw)

    out = workspace.results / "out"
    run(workspace, "predict", "-i", str(raw / "imagesTs"), "-o", str(out))
    predicted = out / "phantom_004.nii.gz"
    assert read_geometry(predicted) == read_geometry(raw / "imagesTs" / "phantom_004_0000.nii.gz")
    assert set(np.unique(read_labels(predicted)[0])) <= set(LABELS.values())
    assert "arguments" in json.loads((out / "prediction.json").read_text())
    before = predicted.stat().st_mtime_ns
    run(workspace, "predict", "-i", str(raw / "imagesTs"), "-o", str(out), "-c", "2d")
    run(workspace, "predict", "-i", str(raw / "imagesTs"), "-o", str(out), "-c", "2d", "-f", "0", status=2)
    assert "predictions of another model" in capsys.readouterr().err
    assert predicted.stat().st_mtime_ns == before

    check_ensemble_of_folds(workspace, raw)

    capsys.readouterr()
    run(workspace, "evaluate", str(raw / "labelsTs"), str(out), "--csv", str(out / "scores.csv"))
    assert "all labels" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["mean"]) == {"1", "2", "3", "4"}
    assert (out / "scores.csv").read_text().count("phantom_004") >= 4


@WRITTEN
def test_a_validation_that_was_cut_off_goes_on_with_the_next_case(planned, monkeypatch):
    run(planned, "train", "900", "si", "0", *TINY)
    validation = planned.run(DATASET_NAME, "si").fold(0).validation
    before = (validation / "summary.json").read_text()
    (validation / "summary.json").unlink()
    (validation / f"{CASES[3]}.nii.gz").unlink()
    predict, calls = Predictor.predict_preprocessed, []
    monkeypatch.setattr(Predictor, "predict_preprocessed", lambda *arguments: calls.append(1) or predict(*arguments))
    run(planned, "train", "900", "si", "0", *TINY)
    assert len(calls) == 1
    assert (validation / "summary.json").read_text() == before


def test_bad_data_sets_are_reported_and_nothing_is_written(workspace, capsys):
    raw = workspace.raw_dataset(DATASET_NAME)
    (raw / "labelsTr" / "phantom_001.nii.gz").unlink()
    (raw / "imagesTr" / "phantom_002_0001.nii.gz").write_bytes(b"")
    run(workspace, "plan_and_preprocess", "-d", "900", status=2)
    message = capsys.readouterr().err
    assert "error: " in message
    assert "phantom_001" in message
    assert "phantom_002" in message
    assert "Traceback" not in message
    assert not workspace.preprocessed.exists()
    with pytest.raises(DatasetError):
        api.plan_and_preprocess(workspace, ["900"], api.PlanningOptions(num_processes=0))


def test_verifying_writes_nothing(workspace):
    run(workspace, "plan_and_preprocess", "-d", "900", "--verify-only")
    assert not workspace.preprocessed.exists()


def test_planning_adds_to_the_plans_that_are_there(workspace):
    for name in ("si", "axial"):
        options = api.PlanningOptions(configurations=(name,), plan_only=True, num_processes=0)
        plans = api.plan_and_preprocess(workspace, ["900"], options)[DATASET_NAME]
    assert set(plans.configurations) == {"si", "axial"}
    with pytest.raises(InputError, match="not preprocessed"):
        api.train(workspace, "900", "si", ["0"])


@pytest.mark.parametrize(
    ("configuration", "fold", "options", "message"),
    [
        ("si", "0", {"recipe": "none"}, "no recipe 'none'"),
        ("si", "0", {}, "is not planned; run `seg25d plan_and_preprocess"),
    ],
)
def test_wrong_arguments_stop_training_before_anything_is_written(workspace, configuration, fold, options, message):
    with pytest.raises(InputError, match=message):
        api.train(workspace, "900", configuration, [fold], api.TrainingOptions(**options))
    assert not workspace.results.exists()


@WRITTEN
def test_changed_plans_do_not_go_on_with_an_old_run(planned):
    run(planned, "train", "900", "si", "0", *TINY)
    path = planned.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    plans["configurations"]["si"]["batch_size"] += 1
    path.write_text(json.dumps(plans))
    with pytest.raises(InputError, match="plan of si changed"):
        api.train(planned, "900", "si", ["0"])


@WRITTEN
def test_a_fold_that_another_command_trained_longer_meanwhile_is_noticed(planned):
    found = planned_run(planned, "900", "si", api.TrainingOptions(device="cpu", iterations=1))
    task = found.run(found.settings, [0])
    run(planned, "train", "900", "si", "0", *TINY)
    with pytest.raises(InputError, match=r"2 updates .* is not longer: 1 update "):
        task.settled(0)


@WRITTEN
def test_fine_models_of_fused_views_are_refused_before_anything_is_trained(workspace):
    api.plan_and_preprocess(workspace, ["900"], api.PlanningOptions(configurations=("mv",), num_processes=0))
    options = api.TrainingOptions(settings={"fine": "true"}, device="cpu")
    with pytest.raises(InputError, match=r"mv cannot be trained coarse-to-fine.*that of mv is `fusion\.fine`"):
        api.train(workspace, "900", "mv", ["0"], options)
    assert not workspace.results.exists()


@WRITTEN
def test_folds_with_unlike_settings_are_pointed_out(workspace, capsys):
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d")
    begin = ["train", "900", "2d"]
    run(workspace, *begin, "0", *TINY, "--set", "optimizer=adamw")
    run(workspace, *begin, "1", "--iterations", "3", "--seed", "5", *TINY[4:], "--set", "optimizer=adamw")
    assert "other settings" not in capsys.readouterr().err
    run(workspace, *begin, "1", *TINY, "--restart")
    assert "fold 1 begins with other settings than fold 0 was trained with (optimizer)" in capsys.readouterr().err
    first = workspace.run(DATASET_NAME, "axial").fold(0)
    first.config.write_text('{"of_another": "version"}')
    run(workspace, *begin, "1", *TINY, "--restart")


@WRITTEN
def test_one_restarted_fold_does_not_break_the_others(planned):
    run(planned, "train", "900", "si", "cv", *TINY)
    results = planned.run(DATASET_NAME, "si")
    assert results.crossval.exists()
    path = planned.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    plans["configurations"]["si"]["batch_size"] += 1
    path.write_text(json.dumps(plans))
    before = results.fold(0).model_final.stat().st_mtime_ns
    run(planned, "train", "900", "si", "0", "--restart", *TINY, status=2)
    assert results.fold(0).model_final.stat().st_mtime_ns == before
    run(planned, "train", "900", "si", "0", "1", "--restart", *TINY)
    assert results.fold(0).model_final.stat().st_mtime_ns > before
    assert json.loads(results.plans.read_text()) == plans
    results.crossval.write_text("old")
    run(planned, "train", "900", "si", "1", "--restart", *TINY)
    assert json.loads(results.crossval.read_text())["per_case"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_fold_has_one_master_and_the_second_writes_nothing(planned, restart):
    results = planned.run(DATASET_NAME, "si")
    with folder_lock(results.fold(0).root, "training"):
        with pytest.raises(BusyError, match="in use"):
            api.train(planned, "900", "si", ["0"], api.TrainingOptions(restart=restart, device="cpu"))
        assert [path.name for path in results.root.rglob("*")] == ["fold_0", ".lock"]


def test_edited_plans_are_kept_and_wrong_edits_named(workspace):
    plan = ["plan_and_preprocess", "-d", "900", "-c", "si", "--plan-only"]
    run(workspace, *plan)
    path = workspace.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    plans["configurations"]["si"]["batch_size"] = 5
    path.write_text(json.dumps(plans))
    run(workspace, *plan)
    assert json.loads(path.read_text()) == plans
    plans["configurations"]["si"]["batch_size"] = 0
    path.write_text(json.dumps(plans))
    options = api.PlanningOptions(configurations=("si",), plan_only=True, num_processes=0)
    with pytest.raises(RecordError, match=r"configurations\.si\.batch_size"):
        api.plan_and_preprocess(workspace, ["900"], options)
    run(workspace, *plan, "--clean")
    assert json.loads(path.read_text())["configurations"]["si"]["batch_size"] > 0


@pytest.mark.slow
def test_a_plan_that_cannot_be_read_stops_no_other(workspace, capsys):
    """Neither in the plans of the data set nor in those beside trained models."""
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si")
    path = workspace.preprocessed_dataset(DATASET_NAME).plans()
    content = json.loads(path.read_text())
    content["configurations"]["foreign"] = content["configurations"]["si"] | {"representation": {"name": "cubes"}}
    path.write_text(json.dumps(content))
    run(workspace, "train", "900", "si", "0", *TINY)
    assert "configuration foreign is left out" in capsys.readouterr().err
    assert json.loads(path.read_text()) == content
    beside = workspace.run(DATASET_NAME, "si").plans
    trained = json.loads(beside.read_text())
    assert list(trained["configurations"]) == ["si"]
    beside.write_text(json.dumps(content))
    archive, images = workspace.results / "si.zip", workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    run(workspace, "export_model", "900", "-c", "si", "-f", "0", "-o", str(archive))
    run(workspace, "predict", "-i", str(images), "-o", str(workspace.results / "out"), "-m", str(archive))
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si", "2d", "--plan-only")
    assert set(json.loads(path.read_text())["configurations"]) == {"si", "axial", "foreign"}
    content["configurations"]["si"]["batch_size"] = 0
    path.write_text(json.dumps(content))
    capsys.readouterr()
    run(workspace, "train", "900", "si", "0", *TINY, status=2)
    assert "configurations.si.batch_size" in capsys.readouterr().err


def test_clean_keeps_only_the_arrays_of_other_plans(workspace):
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    for name in ("spacing_mine", "spacing_other"):
        folder.store(name).mkdir(parents=True)
    folder.plans("other").write_text('{"store": "spacing_other"}')
    folder.fingerprint_cases.mkdir()
    (folder.fingerprint_cases / "old.json").touch()
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si", "--plan-only", "--clean")
    assert not folder.store("spacing_mine").exists()
    assert folder.store("spacing_other").exists()
    assert not (folder.fingerprint_cases / "old.json").exists()


def test_problems_of_several_data_sets_are_reported_together(workspace):
    raw = workspace.raw_dataset(DATASET_NAME)
    second = workspace.raw_dataset("Dataset901_Second")
    shutil.copytree(raw, second)
    (raw / "labelsTr" / "phantom_001.nii.gz").unlink()
    (second / "labelsTr" / "phantom_003.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)phantom_001.*Dataset901_Second.*phantom_003"):
        api.plan_and_preprocess(workspace, ["900", "901"], api.PlanningOptions(num_processes=0))
    assert not workspace.preprocessed.exists()


@pytest.mark.parametrize(
    ("channel", "memory", "message"), [("ct_window:40", 8.0, "ct_window:LEVEL:WIDTH"), ("CT", 0.5, "not enough")]
)
def test_wrong_choices_are_refused_before_anything_is_written(workspace, channel, memory, message):
    path = workspace.raw_dataset(DATASET_NAME) / "dataset.json"
    description = json.loads(path.read_text())
    description["channel_names"]["0"] = channel
    path.write_text(json.dumps(description))
    options = api.PlanningOptions(num_processes=0, gpu_memory_gb=memory)
    with pytest.raises(InputError, match=message):
        api.plan_and_preprocess(workspace, ["900"], options)
    assert not workspace.preprocessed.exists()


# The first process scores folds: of all but the last while the others wait for it, then alone.
LEAVING_TOGETHER = """
import sys
from torch import distributed
from seg25d.workflows import folds
from seg25d.cli.main import main

score = folds.validate_fold

def watched(folder, *arguments, **options):
    assert distributed.is_initialized() == (folder.root.name != "fold_1"), folder.root.name
    return score(folder, *arguments, **options)

folds.validate_fold = watched
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_two_processes_restart_all_folds_together(workspace):
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si")
    path = workspace.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    plans["configurations"]["si"]["batch_size"] = 2  # one window for each process
    path.write_text(json.dumps(plans))
    run(workspace, "train", "900", "si", "0", *TINY)
    results = workspace.run(DATASET_NAME, "si")
    before = results.fold(0).model_final.stat().st_mtime_ns
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    words = ["train", "900", "si", "cv", "--restart", *TINY, *IN_THIS_PROCESS]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVING_TOGETHER, *words, "--workspace", str(workspace.raw.parent)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert results.fold(0).model_final.stat().st_mtime_ns > before
    assert results.trained_folds() == ["0", "1"]
    assert results.crossval.exists()


@WRITTEN
@pytest.mark.slow
def test_demo_tells_the_story_and_can_be_repeated(workspace, capsys):
    for _ in range(2):
        run(workspace, "demo", "--time-budget", "1s")
        output = capsys.readouterr().out
        assert "organ_a" in output
        assert "all labels" in output
    folder = workspace.results / DATASET_NAME / "demo"
    assert (folder / "slice.png").exists()
    assert (folder / "super_image.png").exists()
    assert set(PHANTOM.configurations) <= {path.name for path in folder.iterdir()}
    run(workspace, "demo", "--time-budget", "0.5s", status=2)
    assert "or start over with --restart" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_of_vessels_has_the_paper_beside_it(tmp_path, capsys):
    workspace = Workspace.resolve(tmp_path, {})
    raw = workspace.raw_dataset(vessels.DATASET_NAME)
    vessels.write_vessels_dataset(raw, num_training=4, num_test=2, shape=(32, 32, 24))
    run(workspace, "demo", "--kind", "vessels", "--time-budget", "1s")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["held-out cases", "mip", "2d"]
    assert "85.6 ± 1.9" in lines[3]
    results = workspace.results / vessels.DATASET_NAME
    assert {path.name for path in results.iterdir()} == {
        "mip__angermann2022",
        "sagittal__angermann2022",
        "demo",
        "report.html",
    }
    assert {path.name for path in (results / "demo").glob("*.png")} == {"maximum_projection.png", "slice.png"}


@WRITTEN
@pytest.mark.slow
def test_a_recipe_has_files_and_results_of_its_own(workspace, shrink_networks, monkeypatch, capsys):
    # Slices of 512 x 512 would take minutes.
    small = recipe_rules.SHIVDEO2021.model_copy(update={"common_shape": (None, 32, 64)})
    monkeypatch.setattr(recipe_rules, "SHIVDEO2021", small)
    path = workspace.raw_dataset(DATASET_NAME) / "dataset.json"
    content = json.loads(path.read_text())
    content["labels"] = {"background": 0, "some": [1, 2], "others": [3, 4]}
    path.write_text(json.dumps(content | {"regions_class_order": [1, 3]}))
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "axial")
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    before = {file: file.read_bytes() for file in (folder.plans(), folder.splits)}
    run(workspace, "train", "900", "axial", "0", "--recipe", "shivdeo2021", *TINY, status=2)
    assert "plan_and_preprocess -d 900 --recipe shivdeo2021" in capsys.readouterr().err
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "axial", "--recipe", "shivdeo2021")
    assert {file: file.read_bytes() for file in before} == before
    shrink_networks(workspace.raw.parent)
    run(workspace, "train", "900", "axial", "0", "--recipe", "shivdeo2021", *TINY)
    results = workspace.results / DATASET_NAME
    assert [each.name for each in results.iterdir()] == ["axial__shivdeo2021"]
    model = workspace.run(DATASET_NAME, "axial__shivdeo2021").fold(0).model_final
    header = load_header(model)
    assert header.threshold == 0.2
    assert (header.plan.batch_size, header.plan.window) == (16, (1, 32, 64))
    store = Store(folder.store(header.plan.store))
    assert {store.record(case).grid.shape[1:] for case in store.cases()} == {(32, 64)}

    images = str(workspace.raw_dataset(DATASET_NAME) / "imagesTs")
    out = workspace.results / "out"
    run(workspace, "predict", "-i", images, "-o", str(out), "-c", "axial", status=2)
    assert "trained: axial__shivdeo2021" in capsys.readouterr().err
    run(workspace, "predict", "-i", images, "-o", str(out), "-c", "axial", "--recipe", "shivdeo2021")
    assert json.loads((out / "prediction.json").read_text())["model"]["configuration"] == "axial__shivdeo2021"
    # Resized to a common size, and back.
    assert read_geometry(out / "phantom_004.nii.gz") == read_geometry(Path(images) / "phantom_004_0000.nii.gz")


@WRITTEN
@pytest.mark.slow
def test_another_network_is_planned_once_and_has_results_of_its_own(workspace, capsys):
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d")
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    content = json.loads(folder.plans().read_text())
    content["configurations"]["axial"]["mirror_axes"] = [1]
    folder.plans().write_text(json.dumps(content))
    run(workspace, "train", "900", "2d", "0", "--network", "vnet", *TINY)
    planned = json.loads(folder.plans().read_text())["configurations"]
    assert list(planned) == ["axial", "axial__vnet"]
    assert planned["axial__vnet"]["network"]["name"] == "vnet"
    assert "asked for" in planned["axial__vnet"]["reasons"]["network"]
    assert planned["axial__vnet"]["mirror_axes"] == [1]
    assert {name: planned["axial"][name] for name in ("store", "spacing_mm")} == {
        name: planned["axial__vnet"][name] for name in ("store", "spacing_mm")
    }
    # The same command again finds its plan and its results; a second fold joins the first.
    before = folder.plans().read_bytes()
    run(workspace, "train", "900", "2d__vnet", "0", "1", *TINY)
    assert folder.plans().read_bytes() == before
    assert [each.name for each in (workspace.results / DATASET_NAME).iterdir()] == ["axial__vnet"]
    assert workspace.run(DATASET_NAME, "axial__vnet").trained_folds() == ["0", "1"]
    images, out = str(workspace.raw_dataset(DATASET_NAME) / "imagesTs"), workspace.results / "out"
    run(workspace, "predict", "-i", images, "-o", str(out), "-c", "2d__vnet")
    assert (out / "phantom_004.nii.gz").exists()
    # Planning again keeps it; for another memory it is planned anew like all others.
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d")
    assert folder.plans().read_bytes() == before
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d", "--gpu-memory-gb", "16", "--plan-only")
    assert list(json.loads(folder.plans().read_text())["configurations"]) == ["axial", "axial__vnet"]
    capsys.readouterr()
    run(workspace, "train", "900", "2d", "0", "--network", "resnet", *TINY, status=2)
    assert "unknown network 'resnet'; for 2 dimensions there are unet, se_unet" in capsys.readouterr().err


def test_a_threshold_for_several_classes_is_refused_before_anything_is_written(planned, capsys):
    run(planned, "train", "900", "si", "0", *TINY, "--set", "threshold=0.2", status=2)
    assert "this data set has 4 classes" in capsys.readouterr().err
    assert not planned.results.exists()


def test_the_former_name_of_the_api_warns():
    with pytest.warns(DeprecationWarning, match=r"is called seg25d\.api now"):
        former = importlib.reload(importlib.import_module("seg25d.pipeline"))
    assert former.train is api.train
    assert set(api.__all__) <= set(dir(former))
