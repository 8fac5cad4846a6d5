import json
from pathlib import Path

import pytest

from seg25d.core.errors import InputError
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.planning.plan import Plans
from seg25d.runs.trained import ModelChoice, choose_folds, choose_run, prediction_command, trained_runs


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path, {})


def train_fake(workspace: Workspace, dataset: str, run: str, fold: int = 0) -> None:
    fold_folder = workspace.run(dataset, run).fold(fold)
    fold_folder.root.mkdir(parents=True)
    fold_folder.model_final.touch()


def choose(workspace: Workspace, *words: str | Path | None) -> RunFolder:
    """Data set, configuration, model, name of the plans, recipe."""
    names = ("dataset", "configuration", "model", "plans_name", "recipe")
    return choose_run(workspace, ModelChoice(**dict(zip(names, words, strict=False))))


def test_the_only_trained_run_is_taken(workspace):
    train_fake(workspace, "Dataset001_A", "si")
    assert choose(workspace, None, None, None) == workspace.run("Dataset001_A", "si")
    assert choose(workspace, "1", "si", None) == workspace.run("Dataset001_A", "si")
    assert trained_runs(workspace, "Dataset001_A") == ["si"]
    assert trained_runs(workspace, "Dataset002_B") == []


def test_unclear_choices_are_listed(workspace):
    with pytest.raises(InputError, match="nothing is trained"):
        choose(workspace, None, None, None)
    train_fake(workspace, "Dataset001_A", "si")
    train_fake(workspace, "Dataset001_A", "3d")
    with pytest.raises(InputError, match="-c: 3d, si"):
        choose(workspace, "1", None, None)
    with pytest.raises(InputError, match="mip is not trained on Dataset001_A; trained: 3d, si"):
        choose(workspace, "1", "mip", None)
    train_fake(workspace, "Dataset002_B", "si")
    with pytest.raises(InputError, match="-d: Dataset001_A, Dataset002_B"):
        choose(workspace, None, "si", None)
    (workspace.results / "Dataset003_C").mkdir()
    with pytest.raises(InputError, match="nothing is trained on Dataset003_C"):
        choose(workspace, "3", None, None)


def test_a_model_folder_stands_alone(workspace, tmp_path):
    train_fake(workspace, "Dataset001_A", "si")
    run = workspace.run("Dataset001_A", "si")
    assert choose(workspace, None, None, run.root) == run
    assert choose(workspace, None, None, run.root / "fold_0") == run
    with pytest.raises(InputError, match="has no trained model"):
        choose(workspace, None, None, tmp_path)


def test_a_model_folder_leaves_no_choice(workspace):
    train_fake(workspace, "Dataset001_A", "si")
    root = workspace.run("Dataset001_A", "si").root
    with pytest.raises(InputError, match="--recipe out"):
        choose(workspace, None, None, root, None, "default")
    for other in (("1", None), (None, "si")):
        with pytest.raises(InputError, match="-m already names the model"):
            choose(workspace, *other, root)
    with pytest.raises(InputError, match="-m already names the model"):
        choose(workspace, None, None, root, "big")


def write_plans(path: Path, plans_name: str = "plans", recipe: str = "default") -> Plans:
    plans = Plans(
        dataset_name="Dataset001_A",
        plans_name=plans_name,
        recipe=recipe,
        gpu_memory_gb=8,
        slice_axis=1,
        reasons={},
        configurations={},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plans.model_dump_json())
    return plans


def test_models_of_plans_of_another_name(workspace):
    for run, plans_name in (("coronal", "plans"), ("coronal__big", "big"), ("si__big", "big")):
        train_fake(workspace, "Dataset001_A", run)
        write_plans(workspace.run("Dataset001_A", run).plans, plans_name)
    chosen = [
        choose(workspace, "1", configuration, None, plans_name).root.name
        for configuration, plans_name in (("2d", None), ("2d", "big"), ("si", "big"), (None, "plans"))
    ]
    assert chosen == ["coronal", "coronal__big", "si__big", "coronal"]
    with pytest.raises(InputError, match="si is not trained"):
        choose(workspace, "1", "si", None)
    with pytest.raises(InputError, match="with plans small"):
        choose(workspace, "1", "si", None, "small")


def test_models_of_recipes(workspace):
    for run, plans_name, recipe in (
        ("coronal", "plans", "default"),
        ("coronal__shivdeo2021", "plans", "shivdeo2021"),
        ("coronal__shivdeo2021__big", "big", "shivdeo2021"),
        ("si__sobirov2022", "plans", "sobirov2022"),
        ("mv__fine__xia2018", "plans", "xia2018"),
    ):
        train_fake(workspace, "Dataset001_A", run)
        write_plans(workspace.run("Dataset001_A", run).plans, plans_name, recipe)
    chosen = [
        choose(workspace, "1", configuration, None, plans_name, recipe).root.name
        for configuration, plans_name, recipe in (
            ("coronal", None, "shivdeo2021"),
            ("2d", None, "shivdeo2021"),
            ("2d", "big", "shivdeo2021"),
            ("2d", None, None),
            (None, None, "default"),
            (None, None, "sobirov2022"),
            ("si__sobirov2022", None, None),
            ("mv", None, "xia2018"),
        )
    ]
    assert chosen == [
        "coronal__shivdeo2021",
        "coronal__shivdeo2021",
        "coronal__shivdeo2021__big",
        "coronal",
        "coronal",
        "si__sobirov2022",
        "si__sobirov2022",
        "mv__fine__xia2018",
    ]
    with pytest.raises(InputError, match="with recipe angermann2022"):
        choose(workspace, "1", None, None, None, "angermann2022")
    with pytest.raises(InputError, match="si is not trained"):
        choose(workspace, "1", "si", None)


def command_words(workspace: Workspace, run: str, *folds: str) -> list[str]:
    words = prediction_command(workspace, "1", workspace.run("Dataset001_A", run), folds).split()
    assert words[:6] == ["seg25d", "predict", "-i", "IN", "-o", "OUT"]
    return words[6:]


def test_the_command_that_predicts_names_what_is_needed(workspace, tmp_path, monkeypatch):
    train_fake(workspace, "Dataset001_A", "si__mine", 1)
    place = ["--workspace", str(tmp_path)]
    assert command_words(workspace, "si__mine", "1") == ["-d", "1", "-c", "si__mine", *place, "-f", "1"]
    monkeypatch.setenv("SEG25D_WORKSPACE", str(tmp_path))
    assert command_words(workspace, "si__mine", "1") == ["-d", "1", "-c", "si__mine", "-f", "1"]
    train_fake(workspace, "Dataset001_A", "si__mine", 0)
    splits = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    workspace.run("Dataset001_A", "si__mine").splits.write_text(json.dumps(splits))
    assert command_words(workspace, "si__mine", "0") == ["-d", "1", "-c", "si__mine"]
    assert command_words(workspace, "si__mine", "all") == ["-d", "1", "-c", "si__mine", "-f", "all"]
    elsewhere = workspace.model_copy(update={"raw": tmp_path / "other" / "place"})
    root = str(workspace.run("Dataset001_A", "si__mine").root)
    assert command_words(elsewhere, "si__mine", "0") == ["-m", root]


def test_a_model_of_an_earlier_length_is_used_and_it_is_told(workspace, caplog):
    train_fake(workspace, "Dataset001_A", "si")
    run = workspace.run("Dataset001_A", "si")
    run.fold(0).config.write_text('{"epochs": 2, "iterations_per_epoch": 100}')
    run.fold(0).log.write_text('{"iteration": 200}\n')
    assert choose_folds(run, None) == ["0"]
    assert not caplog.messages
    run.fold(0).log.write_text('{"iteration": 4}\n')
    assert choose_folds(run, ["0"]) == ["0"]
    assert "si fold_0 is being trained for longer, of which 2% is done: the model of its earlier" in caplog.text
