"""benchmarks/contest.py, and the tables that have their own loop: what is trained, once, and what stands in the files.

Constant models stand in for training; the processes that a contest starts are this one.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import contest
import fusions
import pretraining
import pytest
from contest import Contender, compete, make_parser
from machines import this_machine
from result_tables import COLUMNS, Row, Table

from seg25d.core.files import read_json, write_json
from seg25d.core.processor import this_processor
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from tests.commands import run

TABLE = Table(
    "duel", "A duel", {"": lambda row: row["name"], "Dice": COLUMNS["Dice"]}, references=("one",), deviations="all."
)
CPU = ["--device", "cpu", "--num-processes", "0"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("constant_models")]


@pytest.fixture(scope="module")
def planned(three_folds: Path, shrink_networks, tmp_path_factory) -> Path:
    """A workspace with a planned data set of three cases, by the default recipe and by two of papers."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    workspace = Workspace.resolve(root, {})
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "2d", "si", "mv", "mv__rstn")
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si", "--recipe", "sobirov2022")
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "mv", "--recipe", "xia2018")
    shrink_networks(root)
    return root


@pytest.fixture
def workspace(planned: Path, tmp_path: Path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(planned, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def options_of(workspace: Workspace, *words: str) -> argparse.Namespace:
    place = ["--workspace", str(workspace.raw.parent), "--output", str(workspace.raw.parent / "duel.json")]
    return make_parser("", "900").parse_args(["--iterations", "2", "--seeds", "0", "1", *CPU, *place, *words])


def duel(
    rows: Sequence[Contender], table: Table, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> list[Row]:
    """A contest whose processes are this one."""

    def here(words: Sequence[str], *, check: bool) -> SimpleNamespace:
        assert not check
        compete(rows, table, argparse.Namespace(**vars(options) | {"training": list(words[-2:])}))
        return SimpleNamespace(returncode=0)

    cost = {"num_parameters": 1, "seconds_per_case": 1.0, "flops_per_case": 1.0}
    monkeypatch.setattr(contest, "measure_cost", lambda _: SimpleNamespace(model_dump=lambda: cost))
    monkeypatch.setattr(contest, "subprocess", SimpleNamespace(run=here))
    return compete(rows, table, options)


def test_contenders_have_recipes_measures_and_every_seed_once(workspace, trained, monkeypatch):
    found: list[float] = []
    voxels = {"voxels": lambda case: found.append(case.prediction.size) or float(case.prediction.size)}
    rows = [
        Contender("one", "2d", measures=voxels),
        Contender("two", "si", recipe="sobirov2022", settings={"weight_averaging": "0.5"}),
    ]
    options = options_of(workspace)
    results = duel(rows, TABLE, options, monkeypatch)
    # All contenders with one seed before the next one.
    assert trained == ["axial/fold_0", "si__sobirov2022/fold_0"] * 2
    one, two = results
    assert (one["name"], two["name"]) == ("one", "two")
    assert one["seeds"] == [0, 1]
    assert one["cases"] == two["cases"] == ["phantom_000"]
    assert one["scores"]["voxels"] == [[found[0]], [found[1]]]
    assert len(one["scores"]["dice"]) == 2
    assert "voxels" not in two["scores"]
    assert two["differences"] == {}, "one case says nothing of cases"
    place = workspace.raw.parent / "benchmarks" / "duel" / "2_updates_default"
    assert sorted(path.name for path in place.iterdir()) == ["one", "two"]
    text = (workspace.raw.parent / "duel.md").read_text(encoding="utf-8")
    assert "Equal updates: 2 in each training." in text
    assert text.endswith("Otherwise than in the paper: all.\n")

    # Again: nothing is trained, measured or scored.
    trained.clear()
    found.clear()
    assert duel(rows, TABLE, options, monkeypatch) == results
    assert (trained, found) == ([], [])
    # With another setting it is another training, in another folder; another table shares nothing.
    words = ["--only", "two", "--seeds", "0"]
    duel(rows, TABLE, options_of(workspace, *words, "--set", "weight_averaging=0.3"), monkeypatch)
    assert trained == ["si__sobirov2022/fold_0"]
    assert len(list((place / "two").iterdir())) == 3
    trained.clear()
    duel(rows, replace(TABLE, name="other"), options_of(workspace, *words), monkeypatch)
    assert trained == ["si__sobirov2022/fold_0"]
    with pytest.raises(SystemExit, match="no rows three; there are one, two"):
        compete(rows, TABLE, options_of(workspace, "--only", "three"))


def forget(workspace: Workspace, *folders: str) -> None:
    """Remove folders of a workspace, as on a machine that never had them."""
    for name in folders:
        shutil.rmtree(workspace.raw.parent / name, ignore_errors=True)


def test_finished_trainings_need_nothing_but_the_file(workspace, trained, monkeypatch, caplog):
    rows = [Contender("one", "2d"), Contender("two", "si")]
    results = duel(rows, TABLE, options_of(workspace), monkeypatch)
    output = workspace.raw.parent / "duel.json"
    kept = read_json(output)["trainings"]
    assert [(each["name"], each["seed"]) for each in kept] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    assert all(len(each["scores"]["dice"]) == len(each["cases"]) == 1 for each in kept)
    here = kept[0]["machine"]
    assert here == this_machine("cpu")
    assert (here["threads"] >= 1, here["instruction_sets"]) == (True, list(this_processor().instruction_sets))
    # Another seed, where only the raw and the preprocessed data are.
    forget(workspace, "benchmarks", "results")
    trained.clear()
    more = duel(rows, TABLE, options_of(workspace, "--seeds", "0", "1", "2", "--only", "two"), monkeypatch)
    assert trained == ["si/fold_0"]
    assert [row["seeds"] for row in more] == [[0, 1], [0, 1, 2]]
    # By another plan it is another training.
    plans = workspace.preprocessed_dataset(DATASET_NAME).plans()
    content = read_json(plans)
    content["configurations"]["si"]["batch_size"] += 1
    write_json(plans, content)
    forget(workspace, "benchmarks", "results")
    trained.clear()
    duel(rows, TABLE, options_of(workspace, "--only", "two", "--seeds", "0"), monkeypatch)
    assert trained == ["si/fold_0"]
    assert caplog.text.count("two, seed 0: trained by another plan") == 1
    # Where nothing is at all, not even raw data.
    forget(workspace, "benchmarks", "results", "preprocessed", "raw")
    trained.clear()
    again = duel(rows, TABLE, options_of(workspace), monkeypatch)
    assert trained == []
    assert [row["cases"] for row in again] == [row["cases"] for row in results]
    assert again[0]["scores"] == results[0]["scores"]


def test_rows_of_several_machines_say_so(workspace, trained, monkeypatch):
    rows = [Contender("one", "2d"), Contender("two", "si")]
    duel(rows, TABLE, options_of(workspace), monkeypatch)
    output = workspace.raw.parent / "duel.json"
    assert "| machine |" not in output.with_suffix(".md").read_text(encoding="utf-8")
    document = read_json(output)
    document["trainings"][0]["machine"] |= {"device": "Processor X", "threads": 7}
    write_json(output, document)
    one, two = duel(rows, TABLE, options_of(workspace), monkeypatch)
    assert ([each["device"] for each in one["machines"]], len(two["machines"])) == (
        ["Processor X", this_processor().name],
        1,
    )
    head, _, first, second, *_, conditions, _ = (
        line for line in output.with_suffix(".md").read_text(encoding="utf-8").splitlines()[2:] if line
    )
    assert head.endswith("| machine |")
    assert (first[-8:], second[-5:]) == ("| A, B |", "| B |")
    assert "Machines: A: Processor X" in conditions
    assert "7 threads" in conditions


def fused_folder(workspace: Workspace) -> Path:
    """The folder of the models of seed 0 that were trained last."""
    folders = (workspace.raw.parent / "benchmarks" / "fusions" / "2_updates").glob("seed_0_*")
    return max(folders, key=lambda folder: folder.stat().st_mtime_ns)


def fuse(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict:
    output = workspace.raw.parent / "fusions.json"
    place = ["--workspace", str(workspace.raw.parent), "--output", str(output)]
    short = ["--dataset", "900", "--iterations", "2", "--seeds", "0", "--disable-tta"]
    monkeypatch.setattr(sys, "argv", ["fusions.py", *short, *CPU, *place, *words])
    fusions.main()
    return read_json(output)


def test_views_are_trained_and_predicted_once_for_all_fusions(workspace, trained, monkeypatch):
    predicted: list[str] = []
    predict = fusions.FusedPredictor.maps

    def count(predictor, image):
        predicted.append(predictor.options.fusion)
        return predict(predictor, image)

    monkeypatch.setattr(fusions.FusedPredictor, "maps", count)
    rows = fuse(workspace, monkeypatch, "--run", "mv__holdout")["rows"]
    views = ["axial/holdout_0", "coronal/holdout_0", "sagittal/holdout_0"]
    all_models = [*views, "mv__holdout/fold_0", "mv__holdout__no_image/fold_0"]
    assert trained == all_models
    names = ["axial", "coronal", "sagittal", *fusions.UNTRAINED, "VFN", "VFN without image"]
    assert [row["name"] for row in rows] == names
    own = [name for name in predicted if name != "network"]
    assert own == ["mean"], "the first of all fusions predicts the views; trainings score networks"
    results = fused_folder(workspace) / DATASET_NAME
    data = [results / name / "fold_0" / "fusion_data" for name in ("mv__holdout", "mv__holdout__no_image")]
    assert data[1].resolve() == data[0], "both networks learn from the same predictions"
    by_name = {row["name"]: row for row in rows}
    assert by_name["axial"]["seconds_per_case"] is None
    assert by_name["mean"]["seconds_per_case"] > 0
    assert all(row["cases"] == ["phantom_000"] for row in rows)
    assert set(by_name["VFN"]["differences"]) <= {"majority", "mean"}
    # Other settings, and another plan of a view, are another training.
    trained.clear()
    fuse(workspace, monkeypatch, "--run", "mv__holdout", "--set", "weight_averaging=0.5")
    assert trained == all_models
    plans = workspace.preprocessed_dataset(DATASET_NAME).plans()
    content = read_json(plans)
    content["configurations"]["coronal"]["batch_size"] += 1
    write_json(plans, content)
    trained.clear()
    fuse(workspace, monkeypatch, "--run", "mv__holdout")
    assert trained == all_models
    rows = read_json(workspace.raw.parent / "fusions.json")["rows"]
    trained.clear()
    predicted.clear()
    forget(workspace, "benchmarks", "results", "preprocessed", "raw")
    again = fuse(workspace, monkeypatch, "--run", "mv__holdout")
    assert (trained, predicted) == ([], [])
    assert again["rows"] == rows


def test_fusions_score_what_the_command_would_predict(workspace, trained, monkeypatch):
    rows = fuse(workspace, monkeypatch, "--run", "mv__holdout", "--without-ablation")["rows"]
    own = fused_folder(workspace) / DATASET_NAME / "mv__holdout"
    dice = {row["name"]: row["scores"]["dice"][0][0] for row in rows}
    images = str(workspace.raw_dataset(DATASET_NAME) / "imagesTr" / "phantom_000_0000.nii.gz")
    for method, key in (("network", "VFN"), ("majority", "majority")):
        out = workspace.results / method
        words = ["-i", images, "-o", str(out), "-m", str(own), "-f", "0", "--fusion", method, "--disable-tta"]
        run(workspace, "predict", *words)
        truth = str(workspace.raw_dataset(DATASET_NAME) / "labelsTr")
        run(workspace, "evaluate", truth, str(out), "-o", str(out / "scores.json"), "--common")
        metrics = read_json(out / "scores.json")["per_case"][0]["metrics"]
        known = [each["dice"] for each in metrics.values() if each["dice"] is not None]
        assert dice[key] == pytest.approx(sum(known) / len(known), abs=1e-4)
    assert max(dice.values()) > 0


def test_runs_are_named_by_their_parts(workspace, trained, monkeypatch):
    parse = fusions.FusedRun.parse
    assert parse("mv", "default").name() == "mv"
    assert parse("mv__rstn__holdout", "default").name("no_image") == "mv__rstn__holdout__no_image"
    fine = parse("mv__holdout__fine__xia2018", "xia2018")
    assert (fine.name(), fine.name("no_image")) == (
        "mv__holdout__fine__xia2018",
        "mv__holdout__no_image__fine__xia2018",
    )
    assert fine.settings == {"fusion.data": "holdout", "fusion.fine": "true"}
    rows = fuse(workspace, monkeypatch, "--run", "mv__rstn__holdout", "--without-ablation")["rows"]
    assert [row["name"] for row in rows][:3] == ["axial__rstn", "coronal__rstn", "sagittal__rstn"]
    assert trained[-1] == "mv__rstn__holdout/fold_0"
    trained.clear()
    words = ["--run", fine.name(), "--recipe", "xia2018", "--without-ablation", "--view-iterations", "3"]
    rows = fuse(workspace, monkeypatch, *words)["rows"]
    sets = [f"{view}{kind}__xia2018/holdout_0" for kind in ("", "__fine") for view in ("axial", "coronal", "sagittal")]
    assert trained == [*sets, f"{fine.name()}/fold_0"]
    own = fused_folder(workspace) / DATASET_NAME
    lengths = [read_json(own / name / "config.json")["iterations"] for name in (sets[0], f"{fine.name()}/fold_0")]
    assert lengths == [3, 2]


def test_pretraining_takes_some_rows_and_refuses_what_does_not_go_together(workspace, trained, monkeypatch, capsys):
    # Folds of a data set's own would count.
    (workspace.raw_dataset(DATASET_NAME) / "splits.json").unlink()
    words = ["--dataset", "900", "--configuration", "si", "--recipe", "sobirov2022", "--labels", "2", "--seeds", "2"]
    words += ["--iterations", "2", "--workspace", str(workspace.raw.parent), *CPU]
    output = workspace.raw.parent / "pretraining.json"
    words += ["--output", str(output), "--only", "scratch"]
    monkeypatch.setattr(sys, "argv", ["pretraining.py", *words])
    pretraining.main()
    assert trained == ["si__sobirov2022/fold_0", "si__sobirov2022/fold_1"]
    document = read_json(output)
    (row,) = document["rows"]
    assert [len(each) for each in row["scores"]["2"]] == [1, 1]
    assert "pretraining_iterations" not in document["settings"], "nothing was pretrained"
    trained.clear()
    forget(workspace, "benchmarks", "results", "preprocessed", "raw")
    pretraining.main()
    assert trained == []
    assert read_json(output)["rows"] == [row]
    for more, message in (
        (["--weights", "nothing.pth"], "--weights: nothing.pth is not a file; encoder_weights.py makes one"),
        (["--augmented-recipe", "sobirov2022_pta"], "--augmented-recipe: expected --weights, too"),
        (["--only", "scratch", "nothing"], "--only: no rows nothing; there are scratch; scratch, as long as both"),
    ):
        monkeypatch.setattr(sys, "argv", ["pretraining.py", *words, *more])
        with pytest.raises(SystemExit):
            pretraining.read_options()
        assert message in capsys.readouterr().err


def test_rows_with_weights_are_named_after_their_file() -> None:
    rows = pretraining.starts("sobirov2022", Path("resnet34_of_x.safetensors"), "sobirov2022_pta")
    assert [row.name for row in rows[-3:]] == [
        "resnet_unet, scratch",
        "resnet_unet, resnet34_of_x",
        "resnet_unet, resnet34_of_x, augmented",
    ]
    assert [row.recipe for row in rows[-3:]] == ["sobirov2022", "sobirov2022", "sobirov2022_pta"]
    assert len(pretraining.starts("default")) == 4
