"""benchmarks/mixing.py: which rows are trained where, what is planned for them, and how nnU-Net's are made."""

import argparse
import shutil
from pathlib import Path
from types import SimpleNamespace

import mixing
import pytest
from contest import Training, add_differences, are_comparable
from finished import facts_of, keep_training
from mixing import MIXED, NNUNET, PLAIN, batch_of, contenders, plan_missing, read_options, rows_to_train
from peers import Place
from result_tables import Row, Table, write_tables

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


@pytest.mark.parametrize(("planned", "batch"), [(281, 28), (56, 6), (20, 2), (12, 2), (7, 2), (2, 2), (1, 1)])
def test_batches_of_nnunet_are_a_tenth_and_not_below_its_smallest(planned: int, batch: int) -> None:
    assert batch_of(planned) == batch


def test_every_row_is_there_and_is_compared_with_what_it_is_to_beat() -> None:
    names = [each.name for each in contenders()]
    assert names == [*PLAIN, *MIXED, *NNUNET]
    assert tuple(f"{name}__{mixing}" for mixing in MIXINGS for name in ("2d", "si")) == MIXED
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
    with pytest.raises(SystemExit, match=r"expected plans for CPUs of 64 GFLOP/s .*, got .* of 0 GFLOP/s"):
        plan_missing(["2d"], options)
    path = folder / "preprocessed" / DATASET_NAME / "plans.json"
    write_json(path, read_json(path) | {"cpu_gflops": 64, "gpu_memory_gb": 8})
    plan_missing(["2d", "si", "3d", "nnU-Net 2d"], options)
    assert calls == [], "all of them are planned"
    plan_missing(["2d", "stack"], options)
    (words,) = calls
    assert words[:6] == ["plan_and_preprocess", "-d", DATASET_NAME, "-c", "2d", "stack"]
    assert words[-8:-4] == ["--cpu-gflops", "64", "--gpu-memory-gb", "8"]
    # Finished on some machine.
    for seed in (0, 1):
        keep_training(options.output, facts_of("mixing", "stack", seed, options) | {"dataset": DATASET_NAME})
    plan_missing(["2d", "stack"], options)
    assert len(calls) == 1
    shutil.rmtree(folder / "preprocessed")
    plan_missing(["stack"], options)
    assert len(calls) == 1
    plan_missing(["si"], options)
    assert len(calls) == 2


class Stages:
    """Stands in place of `Place.stage`: leaves what the programs of each stage would leave."""

    def __init__(self) -> None:
        self.commands: dict[str, list[str]] = {}
        """The last command of each stage."""
        self.planned: list[Path] = []
        """Where nnU-Net planned."""

    def __call__(self, place: Place, name: str, command: list[str]) -> dict[str, float]:
        self.commands[name] = command
        (place.root / "stages").mkdir(exist_ok=True)
        kind, own = name.rsplit("_", maxsplit=1)[-1], place.root / "nnunet"
        if kind == "plan":
            self.planned.append(place.root)
            sizes = {"2d": {"batch_size": 281}, "3d_fullres": {"batch_size": 7}}
            write_json(own / "preprocessed" / DATASET_NAME / "nnUNetPlans.json", {"configurations": sizes})
        elif kind == "train":
            model = own / "results" / DATASET_NAME / f"nnUNetTrainer__{command[6]}__{command[3]}"
            write_json(model / f"fold_{command[4]}" / "timed.json", {"updates": 30, "seconds": 60.0})
        elif kind == "predict":
            shutil.copytree(place.root / "labels", command[command.index("-o") + 1])
        elif kind == "evaluation":
            evaluate(Path(command[4]), Path(command[5]), output=Path(command[-1]))
        else:
            cost = {"num_parameters": 5, "flops_per_case": 7.0, "seconds_per_case": 0.5}
            write_json(Path(command[-2]), cost | {"versions": {"torch": "2.99.0"}})
        return {"memory_gb": 1.5}


@pytest.fixture
def nnunet(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stages, list[Training]]:
    """Trainings of nnU-Net with two seeds, and what stands in place of its programs."""
    folder, stages = tmp_path / "workspace", Stages()
    shutil.copytree(trained_once, folder)
    monkeypatch.setattr(Place, "stage", lambda *words: stages(*words))  # noqa: PLW0108 - is to be bound
    options = options_of(folder, "--time-budget", "60s", "--nnunet", "/environment/bin/python")
    (contender,) = (each for each in contenders() if each.name == "nnU-Net 2d")
    place = folder / "benchmarks" / "mixing" / "60s_default"
    workspace = Workspace.resolve(folder, {})
    return stages, [Training(contender, seed, "mixing", workspace, DATASET_NAME, place, options) for seed in (0, 1)]


@pytest.mark.slow
def test_nnunet_is_trained_on_our_folds_with_its_batch_and_scored_like_ours(
    nnunet: tuple[Stages, list[Training]],
) -> None:
    stages, (training, _) = nnunet
    row = mixing.train_nnunet(training)
    assert row["cases"] == ["phantom_000"]
    assert row["scores"]["dice"] == [1.0]
    assert (row["batch"], row["iterations"], row["training_s"], row["seconds_per_update"]) == (28, [30], [60.0], 2.0)
    assert (row["training_memory_gb"], row["cost"]["num_parameters"]) == (1.5, 5)
    shared = training.place / f"nnunet_{DATASET_NAME}" / "nnunet" / "preprocessed" / DATASET_NAME
    splits = training.workspace.raw_dataset(DATASET_NAME) / "splits.json"
    assert read_json(shared / "splits_final.json") == read_json(splits)
    assert read_json(shared / "nnUNetPlans_batch28.json")["configurations"]["2d"]["batch_size"] == 28
    train = stages.commands["nnunet_2d_batch28_train"]
    assert train[0] == "/environment/bin/python"
    assert train[2:] == [DATASET_NAME, "2d", "0", "60", "nnUNetPlans_batch28", "1e12", "cpu"]
    assert "--disable_tta" in stages.commands["nnunet_2d_batch28_predict"]
    assert stages.commands["nnunet_2d_batch28_cost"][5] == "phantom_000"


@pytest.mark.slow
def test_nnunet_is_trained_on_all_folds_each_by_itself(nnunet: tuple[Stages, list[Training]]) -> None:
    stages, (training, _) = nnunet
    training.options.folds = ["0", "1"]
    row = mixing.train_nnunet(training)
    assert row["cases"] == ["phantom_000", "phantom_001"]
    assert row["scores"]["dice"] == [1.0, 1.0]
    assert (row["iterations"], row["training_s"], row["seconds_per_update"]) == ([30, 30], [60.0, 60.0], 2.0)
    assert len(stages.planned) == 2
    assert len(set(stages.planned)) == 1
    assert stages.commands["nnunet_2d_batch28_cost"][5] == "phantom_000"


@pytest.mark.slow
def test_seeds_of_nnunet_share_data_and_no_model_and_its_row_has_its_own_versions(
    nnunet: tuple[Stages, list[Training]],
) -> None:
    stages, trainings = nnunet
    rows = [mixing.train_nnunet(training) for training in trainings]
    models = [list(training.folder.rglob("timed.json")) for training in trainings]
    assert [len(each) for each in models] == [1, 1]
    assert models[0] != models[1]
    assert len(stages.planned) == 2
    assert len(set(stages.planned)) == 1
    training, row = trainings[1], rows[1]
    assert (row["machine"]["precision"], row["machine"]["versions"]) == ("float32", {"torch": "2.99.0"})
    assert "versions" not in row["cost"]
    assert row["plan"] is not None
    assert training.found() is None
    keep_training(training.options.output, training.facts | row)
    assert training.found() == training.facts | row


@pytest.mark.parametrize(("words", "same"), [(("--time-budget", "9s"), False), (("--iterations", "9"), True)])
def test_in_equal_time_rows_of_one_processor_are_compared(tmp_path: Path, words: tuple[str, ...], same: bool) -> None:
    machine = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
    options = options_of(tmp_path, *words)

    def beside(**changed: object) -> bool:
        return are_comparable({"machines": [machine]}, {"machines": [machine, {**machine, **changed}]}, options)

    assert beside(versions={"torch": "2.99.0"}), "another program has its own"
    assert beside(threads=2) == same


def test_dice_and_hd95_are_compared_where_both_rows_are_there(tmp_path: Path) -> None:
    machine = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}

    def row(name: str, dice: float, *cases: str) -> Row:
        scores = {"dice": [[dice, dice]] * 2, "hd95_mm": [[10 * dice, 10 * dice]] * 2}
        return {"name": name, "machines": [machine], "cases": list(cases), "scores": scores}

    rows = [row("3D", 0.5, "a", "b"), row("si", 0.75, "a", "b"), row("stack", 0.75, "a", "c")]
    table = Table("duel", "A duel", {"": lambda row: row["name"]}, references=("3D", "none"))
    add_differences(rows, table, options_of(tmp_path, "--iterations", "9"))
    assert rows[0]["differences"] == rows[2]["differences"] == {}, "itself, and other cases"
    assert {key: gain["mean"] for key, gain in rows[1]["differences"].items()} == {"3D": 0.25, "3D, HD95 mm": 2.5}
    write_tables(table, rows, {"settings": {"device": "cpu"}}, tmp_path / "duel.json")
    header, _, first, second, _ = (tmp_path / "duel.md").read_text(encoding="utf-8").splitlines()[2:7]
    assert header == "|  | minus 3D | minus 3D, HD95 mm | minus none | minus none, HD95 mm |"
    assert first == "| 3D | - | - | - | - |"
    assert second.startswith("| si | +0.250 (")
    assert "| +2.500 (" in second
