"""benchmarks/mixing.py: which rows are trained where, what is planned for them, and how nnU-Net's are made."""

import argparse
import shutil
from pathlib import Path
from types import SimpleNamespace

import mixing
import pytest
from contest import Training, facts_of
from finished import keep_training
from mixing import MIXED, NNUNET, PLAIN, batch_of, contenders, plan_missing, read_options, rows_to_train
from peers import Place

from seg25d.core.errors import InputError
from seg25d.core.files import read_json, write_json
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.evaluation.evaluate import evaluate
from seg25d.networks import MIXINGS


def options_of(folder: Path, *words: str) -> argparse.Namespace:
    place = ["--workspace", str(folder), "--output", str(folder / "mixing.json"), "--device", "cpu"]
    return read_options(["--dataset", "900", "--seeds", "0", "1", *place, *words])


@pytest.fixture
def _without_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that knows all mixings but `shift`."""

    def check(names: list[str], recipe: str) -> None:
        assert recipe == "default"
        if "shift" in names[0]:
            raise InputError("there is no network 'shift'; known: unet")

    monkeypatch.setattr(mixing, "check_names", check)


@pytest.mark.parametrize(
    ("planned", "configuration", "batch"),
    [(281, "2d", 28), (56, "2d", 12), (7, "3d_fullres", 2), (9, "2d", 9), (2, "3d_fullres", 2)],
)
def test_batches_of_nnunet_are_those_of_the_earlier_measurements(planned: int, configuration: str, batch: int) -> None:
    assert batch_of(planned, configuration) == batch


def test_every_row_is_there_and_is_compared_with_what_it_is_to_beat() -> None:
    names = [each.name for each in contenders()]
    assert names == [*PLAIN, *MIXED, *NNUNET]
    assert MIXED == tuple(f"{name}__{mixing}" for mixing in MIXINGS for name in ("2d", "si"))
    assert set(mixing.TABLE.references) <= set(names)


@pytest.mark.usefixtures("_without_shift")
def test_what_cannot_be_trained_is_left_out_or_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = [name for name in MIXED if "shift" not in name]
    timed = ["--time-budget", "60s", "--nnunet", "python"]
    assert rows_to_train(options_of(tmp_path, *timed)) == [*PLAIN, *known, *NNUNET]
    told = capsys.readouterr().out
    assert "left out: si__shift: this version does not know it: there is no network 'shift'; known: unet" in told
    assert rows_to_train(options_of(tmp_path, "--time-budget", "60s")) == [*PLAIN, *known]
    assert rows_to_train(options_of(tmp_path, "--iterations", "9", "--nnunet", "python")) == [*PLAIN, *known]
    assert rows_to_train(options_of(tmp_path, *timed, "--only", "si", "nnU-Net 2d")) == ["si", "nnU-Net 2d"]
    for words, message in (
        ([*timed, "--only", "si", "si__shift"], "si__shift cannot be trained here: this version does not know it"),
        (["--time-budget", "60s", "--only", "nnU-Net 2d"], "nnU-Net 2d cannot be trained here: it wants --nnunet"),
        (["--iterations", "9", "--nnunet", "x", "--only", "nnU-Net 2d"], "in equal time alone: give --time-budget"),
    ):
        with pytest.raises(SystemExit, match=message):
            rows_to_train(options_of(tmp_path, *words))


@pytest.mark.slow
def test_only_what_is_missing_is_planned(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(mixing, "subprocess", SimpleNamespace(run=lambda words, check: calls.append(words[3:])))
    folder = tmp_path / "workspace"
    shutil.copytree(trained_once, folder)
    options = options_of(folder, "--iterations", "9")
    plan_missing(["2d", "si", "3d", "nnU-Net 2d"], options)
    assert calls == [], "all of them are planned"
    plan_missing(["2d", "stack"], options)
    (words,) = calls
    assert words[:6] == ["plan_and_preprocess", "-d", DATASET_NAME, "-c", "2d", "stack"]
    assert "--cpu-gflops" not in words, "as planned before"
    # Finished on some machine.
    for seed in (0, 1):
        keep_training(options.output, {**facts_of("mixing", "stack", seed, options), "seed": seed})
    plan_missing(["2d", "stack"], options)
    assert len(calls) == 1
    shutil.rmtree(folder / "preprocessed")
    plan_missing(["stack"], options)
    assert len(calls) == 1
    plan_missing(["si"], options)
    assert calls[1][calls[1].index("--cpu-gflops") + 1] == "64"


@pytest.mark.slow
def test_nnunet_is_trained_on_our_folds_with_its_batch_and_scored_like_ours(
    trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commands = tmp_path / "workspace", {}
    shutil.copytree(trained_once, folder)

    def stage(place: Place, name: str, command: list[str]) -> dict[str, float]:
        """What the programs of a stage would leave."""
        commands[name] = command
        (place.root / "stages").mkdir(exist_ok=True)
        kind, own = name.rsplit("_", maxsplit=1)[-1], place.root / "nnunet"
        if kind == "plan":
            sizes = {"2d": {"batch_size": 281}, "3d_fullres": {"batch_size": 7}}
            write_json(own / "preprocessed" / DATASET_NAME / "nnUNetPlans.json", {"configurations": sizes})
        elif kind == "train":
            model = own / "results" / DATASET_NAME / f"nnUNetTrainer__{command[6]}__{command[3]}"
            write_json(model / "fold_0" / "timed.json", {"updates": 30, "seconds": 60.0})
        elif kind == "predict":
            shutil.copytree(place.root / "labels", command[command.index("-o") + 1])
        elif kind == "evaluation":
            evaluate(Path(command[4]), Path(command[5]), output=Path(command[-1]))
        else:
            write_json(Path(command[-2]), {"num_parameters": 5, "flops_per_case": 7.0, "seconds_per_case": 0.5})
        return {"memory_gb": 1.5}

    monkeypatch.setattr(Place, "stage", stage)
    options = options_of(folder, "--time-budget", "60s", "--nnunet", "/environment/bin/python")
    by_name = {each.name: each for each in contenders()}
    workspace = Workspace.resolve(folder, {})
    place = folder / "benchmarks" / "mixing" / "60s_default" / "nnU-Net_2d" / "seed_1"
    training = Training(by_name["nnU-Net 2d"], 1, "mixing", workspace, DATASET_NAME, place, options)
    row = mixing.train_nnunet(training)
    assert row["cases"] == ["phantom_000"]
    assert row["scores"]["dice"] == [1.0]
    assert (row["batch"], row["iterations"], row["training_s"], row["seconds_per_update"]) == (28, [30], [60.0], 2.0)
    assert (row["training_memory_gb"], row["cost"]["num_parameters"]) == (1.5, 5)
    assert row["machine"]["precision"] == "float32"
    assert training.is_kept({**training.facts, **row})
    shared = place.parents[1] / f"nnunet_{DATASET_NAME}" / "nnunet" / "preprocessed" / DATASET_NAME
    assert read_json(shared / "splits_final.json") == read_json(folder / "raw" / DATASET_NAME / "splits.json")
    assert read_json(shared / "nnUNetPlans_batch28.json")["configurations"]["2d"]["batch_size"] == 28
    train = commands["nnunet_2d_batch28_seed1_train"]
    assert train[0] == "/environment/bin/python"
    assert train[2:] == [DATASET_NAME, "2d", "0", "60", "nnUNetPlans_batch28", "1e12", "cpu"]
    assert "--disable_tta" in commands["nnunet_2d_batch28_seed1_predict"]
    assert commands["nnunet_2d_batch28_seed1_cost"][5] == "phantom_000"
