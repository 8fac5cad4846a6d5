"""What `seg25d info` tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.records import write_record
from seg25d.core.workspace import Workspace
from seg25d.runs import information
from seg25d.runs.imported import ImportedRun
from seg25d.runs.information import Information, gather_information, to_text

NAME = "Dataset004_Some"
DESCRIPTION = {
    "channel_names": {"0": "CT", "1": "MRI"},
    "labels": {"background": 0, "organ": [1, 2], "lesion": 2},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
PLANS = {
    "schema_version": 1,
    "dataset_name": NAME,
    "gpu_memory_gb": 8.0,
    "recipe": "sobirov2022",
    "reasons": {},
    "configurations": {
        "si": {
            "spacing_mm": [2.5, 0.75, 0.75],
            "window": [4, 16, 16],
            "batch_size": 2,
            "representation": {"name": "super_image", "grid": [2, 2]},
            "network": {"name": "unet", "features": [4, 8]},
            "estimated_memory_gb": 1.234,
            "num_parameters": 1_500_000,
            "store": "spacing",
        }
    },
}
IMPORTED = ImportedRun(
    program="nnU-Net", trainer="nnUNetTrainer", plans="nnUNetPlans", configuration="2d", folds=(0, 1), num_cases=2
)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def score(dice: float) -> dict[str, Any]:
    return {"foreground_mean": {"dice": dice, "hd95_mm": 1.0}, "mean": {}, "per_case": []}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A data set with plans, a trained and an unfinished fold, an imported run and a choice."""
    workspace = Workspace.resolve(tmp_path, {})
    raw, folder = workspace.raw_dataset(NAME), workspace.preprocessed_dataset(NAME)
    write(raw / "dataset.json", DESCRIPTION)
    for case in "ab":
        for file in (f"imagesTr/{case}_0000", f"imagesTr/{case}_0001", f"labelsTr/{case}"):
            write(raw / f"{file}.nii.gz", "")
    write(folder.plans(recipe="sobirov2022"), PLANS)
    write(folder.splits, [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}])
    run = workspace.run(NAME, "si")
    write(run.fold(0).model_final, "")
    write(run.fold(0).log, '{"epoch": 1}\n{"epoch": 7, "iteration": 700}\n')
    write(run.fold(0).validation / "summary.json", score(0.75))
    write(run.fold(1).checkpoint, "")
    write(run.fold(1).log, '{"epoch": 2, "iteration": 20, "total_seconds": 60.0}\n')
    write(run.fold(1).config, {"epochs": 8, "iterations_per_epoch": 10, "iterations": None})
    write(run.crossval, score(0.5))
    (run.root / "fold_2").mkdir()
    write_record(workspace.run(NAME, "nnunet__nnUNetTrainer__nnUNetPlans__2d").imported, IMPORTED)
    write(workspace.best(NAME), {"schema_version": 1, "name": "si + 2d", "members": [], "dice": 0.8})
    return workspace


def test_everything_is_told(workspace: Workspace) -> None:
    told = gather_information(workspace)
    assert told.problems == ()
    (dataset,) = told.datasets
    assert (dataset.name, dataset.raw, dataset.preprocessed, dataset.results) == (NAME, True, True, True)
    assert dataset.num_cases == 2
    assert dataset.channels == ("CT", "MRI")
    assert dataset.labels == {"background": 0, "organ": (1, 2), "lesion": 2}
    plans = dataset.plans["plans__sobirov2022.json"]
    assert (plans.recipe, plans.gpu_memory_gb) == ("sobirov2022", 8)
    planned = plans.configurations["si"]
    assert (planned.representation, planned.network, planned.window) == ("super_image", "unet", (4, 16, 16))
    imported, run = dataset.runs
    assert imported.imported == IMPORTED
    assert [fold.state for fold in imported.folds] == ["imported", "imported"]
    assert run.dice is None  # of before one of its folds was unfinished
    assert [fold.model_dump(exclude={"fold"}) for fold in run.folds] == [
        {"state": "trained", "epoch": 7, "progress": None, "dice": 0.75},
        {"state": "unfinished", "epoch": 2, "progress": 0.25, "dice": None},
    ]
    assert dataset.best is not None
    assert (dataset.best.name, dataset.best.dice) == ("si + 2d", 0.8)


@pytest.mark.parametrize(
    ("config", "progress"),
    [
        ({"epochs": 8, "iterations_per_epoch": 10, "time_budget_seconds": 240}, 0.25),
        ({"epochs": 8, "iterations_per_epoch": 10, "iterations": 40}, 0.5),
        ({"epochs": 1, "iterations_per_epoch": 10}, 1.0),
        ({"epochs": None}, None),
        ([], None),
    ],
)
def test_progress(workspace: Workspace, config: Any, progress: float | None) -> None:
    write(workspace.run(NAME, "si").fold(1).config, config)
    assert gather_information(workspace).datasets[0].runs[1].folds[1].progress == progress


@pytest.mark.parametrize(
    ("config", "log", "state", "progress"),
    [
        ({}, '{"iteration": 7}\n', "trained", None),
        ({"epochs": 5, "iterations_per_epoch": 10}, '{"iteration": 50}\n', "trained", None),
        ({"epochs": 50, "iterations_per_epoch": 10}, '{"iteration": 50}\n', "unfinished", 0.1),
        (
            {"epochs": 50, "iterations_per_epoch": 10, "time_budget_seconds": 4},
            '{"total_seconds": 5}\n',
            "trained",
            None,
        ),
        (
            {"epochs": 50, "iterations_per_epoch": 10, "early_stopping": 1},
            '{"iteration": 10, "validation_loss": 0.1}\n{"iteration": 20, "validation_loss": 0.2}\n',
            "trained",
            None,
        ),
        ({"epochs": 50, "iterations_per_epoch": 10}, "", "trained", None),
    ],
)
def test_a_fold_that_is_being_trained_for_longer_is_unfinished_and_has_no_scores(
    workspace: Workspace, config: Any, log: str, state: str, progress: float | None
) -> None:
    folder = workspace.run(NAME, "si").fold(0)
    write(folder.config, config)
    write(folder.log, log)
    told = gather_information(workspace).datasets[0].runs[1].folds[0]
    assert (told.state, told.progress) == (state, progress)
    assert told.dice == (0.75 if state == "trained" else None)


@pytest.mark.parametrize("unfinished", ["1", "all", None])
def test_a_cross_validation_has_a_score_while_none_of_its_folds_is_trained_for_longer(
    workspace: Workspace, unfinished: str | None
) -> None:
    run = workspace.run(NAME, "si")
    for fold in (run.fold("1"), run.fold("all")):
        if fold != run.fold(unfinished or "0"):
            write(fold.model_final, "")
            write(fold.config, {})
        else:
            write(fold.checkpoint, "")
    information = gather_information(workspace)
    assert information.datasets[0].runs[1].dice == (None if unfinished == "1" else 0.5)
    row = [line.split() for line in to_text(information).splitlines() if line.split()[:2] == ["si", "cv"]]
    assert row == ([] if unfinished == "1" else [["si", "cv", "trained", "-", "-", "0.500"]])


def test_damaged_files_are_named_and_all_else_is_told(workspace: Workspace) -> None:
    folder, run = workspace.preprocessed_dataset(NAME), workspace.run(NAME, "si")
    damaged = [
        workspace.raw_dataset(NAME) / "dataset.json",
        folder.root / "plans.json",
        folder.splits,
        run.fold(0).log,
        run.fold(0).validation / "summary.json",
        run.fold(1).config,
        run.crossval,
        workspace.run(NAME, "nnunet__nnUNetTrainer__nnUNetPlans__2d").imported,
        workspace.best(NAME),
    ]
    for path in damaged:
        write(path, "{")
    write(folder.root / "other.json", {"configurations": {"si": {"window": 3}}})
    told = gather_information(workspace)
    for path in (*damaged, folder.root / "other.json"):
        assert any(str(path) in problem for problem in told.problems), path
    assert list(told.datasets[0].plans) == ["plans__sobirov2022.json"]
    assert [fold.state for fold in told.datasets[0].runs[0].folds] == ["trained", "unfinished"]
    assert "cannot be used:" in to_text(told)


def test_a_data_set_that_is_not_whole(workspace: Workspace) -> None:
    (workspace.raw_dataset(NAME) / "labelsTr" / "a.nii.gz").unlink()
    (workspace.raw / "Dataset005_Unfinished").mkdir()
    whole, unfinished = gather_information(workspace).datasets
    assert whole.num_cases == 1
    assert (unfinished.num_cases, unfinished.channels, unfinished.runs) == (None, None, ())
    problems = gather_information(workspace).problems
    assert any("1 problem(s); `seg25d plan_and_preprocess --verify-only`" in problem for problem in problems)
    assert any("Dataset005_Unfinished has no dataset.json" in problem for problem in problems)


def test_text_is_aligned(workspace: Workspace) -> None:
    lines = to_text(gather_information(workspace, "4")).splitlines()
    assert lines[0] == f"{NAME}: 2 cases; raw, preprocessed, results"
    assert "  labels: background 0, organ [1, 2], lesion 2" in lines
    wanted = """
  plans__sobirov2022.json: recipe sobirov2022, for 8 GB
    configuration  representation  network         spacing mm   window  batch    GB  parameters
    si                super_image     unet  2.5 x 0.75 x 0.75  4x16x16      2  1.23      1.50 M
  run                                     fold       state  epoch  progress   Dice
  nnunet__nnUNetTrainer__nnUNetPlans__2d     0    imported      -         -      -
  nnunet__nnUNetTrainer__nnUNetPlans__2d     1    imported      -         -      -
  si                                         0     trained      7         -  0.750
  si                                         1  unfinished      2       25%      -
  best: si + 2d, Dice 0.800
"""
    assert wanted.strip("\n").splitlines() == lines[3 : 3 + 9]


def test_unknown_data_sets_are_an_error(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="known: Dataset004_Some"):
        gather_information(workspace, "9")


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert to_text(gather_information(Workspace.resolve(tmp_path / "absent", {}))).startswith("no data sets")


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "describe_device", lambda: "cuda (Some GPU)")
    words = ["info", "--workspace", str(workspace.raw.parent)]
    assert main([*words, "4", "--json"]) == 0
    told = Information.model_validate_json(capsys.readouterr().out)
    assert told.device == "cuda (Some GPU)"
    assert told.datasets == gather_information(workspace).datasets
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "device:       cuda (Some GPU)"
    assert main([*words, "9"]) == 2


def test_the_device_is_told_or_why_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert information.describe_device().split(" ")[0] in ("cpu", "cuda", "mps")

    def fail(_: None) -> None:
        raise RuntimeError("driver too old\nmore")

    monkeypatch.setattr("seg25d.core.device.choose_execution", fail)
    assert information.describe_device() == "unknown (driver too old)"
