"""From trained folds to the best configuration or ensemble, and its use, on a tiny made-up data set."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.files import write_json
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_channel, read_image, read_labels
from seg25d.data.phantom import DATASET_NAME
from seg25d.ensembling.case_predictor import CasePredictor
from seg25d.evaluation.predicted_dice import Calibration, Line
from seg25d.inference.postprocessing import PostProcessing
from seg25d.preprocessing.store import Store
from seg25d.runs.imported import ImportedRun
from seg25d.selection import cost, find_best, predict_validation, scoring
from seg25d.selection.best import Best, Member
from seg25d.selection.candidates import read_validated_run
from tests.selection.maps import write_probability_map

IN_THIS_PROCESS = ["--num-processes", "0", "--device", "cpu"]
CASE = "phantom_003"


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are measured in this process, as it takes seconds to load torch into another one."""
    monkeypatch.setattr(find_best, "measure_cost", cost._measure)


def run(workspace: Workspace, *words: str, status: int = 0) -> None:
    place = ["--workspace", str(workspace.raw.parent)]
    assert main([*words, *place, *IN_THIS_PROCESS]) == status


@pytest.fixture
def trained(trained_once, tmp_path) -> Workspace:
    shutil.copytree(trained_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


@pytest.fixture
def chosen(chosen_once, tmp_path) -> Workspace:
    shutil.copytree(chosen_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def best_of(workspace: Workspace) -> Best:
    return read_record(workspace.best(DATASET_NAME), Best)


def choose(workspace: Workspace, **changes) -> Best:
    """Write another choice."""
    best = best_of(workspace).model_copy(update=changes)
    write_record(workspace.best(DATASET_NAME), best)
    return best


def predict(workspace: Workspace, out: str, *words: str, status: int = 0) -> Path:
    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    run(workspace, "predict", "-i", str(images), "-o", str(workspace.results / out), *words, status=status)
    return workspace.results / out


MEMBERS = (Member(run="axial", folds=("0", "1", "2"), weight=0.25), Member(run="si", folds=("0", "1"), weight=0.75))


def test_compares_runs_and_ensembles_on_all_cases(chosen):
    best = best_of(chosen)
    assert best.num_cases == 3
    names = {row.name for row in best.candidates}
    assert {"axial", "si", "axial + si"} <= names
    assert "3d" not in names, "its folds are missing"
    assert best.candidates[0].name == best.name
    assert best.dice_without_postprocessing == max(row.dice for row in best.candidates)
    singles = [row for row in best.candidates if len(row.runs) == 1]
    crossval = json.loads(chosen.run(DATASET_NAME, "si").crossval.read_text())["foreground_mean"]["dice"]
    assert next(row.dice for row in singles if row.name == "si") == pytest.approx(crossval, abs=0.002)
    pair = next(row for row in best.candidates if row.name == "axial + si")
    assert pair.cost.num_parameters == sum(row.cost.num_parameters for row in singles)
    assert pair.cost.seconds_per_case == pytest.approx(sum(row.cost.seconds_per_case for row in singles), abs=2e-4)
    assert all(row.cost.flops_per_case > 0 for row in singles)
    assert any(row.on_pareto_front for row in best.candidates)


def test_what_is_known_is_not_computed_again(chosen, monkeypatch):
    before = best_of(chosen)
    for module, name in ((predict_validation, "load_predictor"), (scoring, "score_case"), (cost, "_measure")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(find_best, "measure_cost", lambda *_: pytest.fail("measured again"))
    run(chosen, "find_best_configuration", "900", "--no-postprocessing")
    assert best_of(chosen).candidates == tuple(row for row in before.candidates if row.weights is None)


@pytest.mark.usefixtures("measured_here")
def test_missing_folds_are_named_with_what_trains_them(trained, capsys):
    run(trained, "find_best_configuration", "900", "-c", "2d", "3d", status=2)
    assert f"seg25d train {DATASET_NAME} 3d 0 2" in capsys.readouterr().err
    assert not trained.best(DATASET_NAME).exists()
    run(trained, "find_best_configuration", "900", "-f", "1", "-c", "2d", "3d")
    best = best_of(trained)
    assert (best.num_cases, best.folds) == (1, (1,))
    assert {row.name for row in best.candidates} == {"axial", "3d", "3d + axial"}
    run(trained, "find_best_configuration", "900", "-c", "mip", status=2)
    assert "trained: 3d, axial, si" in capsys.readouterr().err


def test_limits_restrict_the_choice(chosen, capsys):
    best = best_of(chosen)
    cheapest = min((row for row in best.candidates if len(row.runs) == 1), key=lambda row: row.cost.num_parameters)
    limit = str(cheapest.cost.num_parameters)
    run(chosen, "find_best_configuration", "900", "--max-parameters", limit)
    assert best_of(chosen).name == cheapest.name
    assert f"({'si' if cheapest.name == 'axial' else 'axial'})" in capsys.readouterr().out
    run(chosen, "find_best_configuration", "900", "--max-parameters", "10", status=2)
    message = capsys.readouterr().err
    assert "no configuration is within the limits" in message
    assert f"{cheapest.cost.num_parameters:,}" in message
    assert best_of(chosen).name == cheapest.name, "a failure leaves the choice alone"


def test_the_ensemble_that_was_chosen_predicts(chosen, capsys):
    choose(chosen, members=MEMBERS, postprocessing=PostProcessing())
    out = predict(chosen, "out", "--save-probabilities")
    singles = [
        predict(chosen, name, "-c", name, "-f", *folds, "--save-probabilities")
        for name, folds in (("axial", "012"), ("si", "01"))
    ]
    mean = sum(
        weight * np.load(folder / f"{CASE}.npz")["probabilities"]
        for weight, folder in zip((0.25, 0.75), singles, strict=True)
    )
    np.testing.assert_allclose(np.load(out / f"{CASE}.npz")["probabilities"], mean, atol=1e-6)
    record = json.loads((out / "prediction.json").read_text())
    assert [member["configuration"] for member in record["model"]["ensemble"]] == ["axial", "si"]
    predict(chosen, "out", "-c", "si", status=2)
    assert "another model" in capsys.readouterr().err


def test_predictions_say_how_sure_they_are(chosen, capsys):
    calibration = best_of(chosen).predicted_dice
    assert {case.case for case in calibration.cases} == validated_cases(chosen)
    line = Line(slope=0.5, offset=0.3, always=True)
    marked = calibration.model_copy(update={"marked_below": 1.0, "lines": dict.fromkeys(calibration.lines, line)})
    choose(chosen, members=MEMBERS, postprocessing=PostProcessing(largest_foreground=True), predicted_dice=marked)
    out = predict(chosen, "out", "--uncertainty", "--statistics", str(chosen.results / "table.csv"))
    said = capsys.readouterr().err
    assert "1 of 1 cases have a predicted Dice below 1.00" in said
    assert f"  {CASE}: " in said
    record = json.loads((out / "prediction.json").read_text())
    assert set(record["predicted_dice"]) == {CASE}
    assert all(0 <= dice <= 1 for dice in record["predicted_dice"][CASE].values())
    values = read_channel(out / "uncertainty" / f"{CASE}.nii.gz")[0]
    assert values.shape == read_labels(out / f"{CASE}.nii.gz")[0].shape
    assert 0 <= values.min() < values.max() <= 1
    rows = list(csv.DictReader((chosen.results / "table.csv").open()))
    assert [float(row["predicted_dice"]) for row in rows] == list(record["predicted_dice"][CASE].values())
    # A map that is lost is made again, with the same figures.
    (out / "uncertainty" / f"{CASE}.nii.gz").unlink()
    predict(chosen, "out", "--uncertainty")
    np.testing.assert_array_equal(read_channel(out / "uncertainty" / f"{CASE}.nii.gz")[0], values)
    assert json.loads((out / "prediction.json").read_text())["predicted_dice"] == record["predicted_dice"]
    # What is predicted again without it loses its figure, and the map is said to be an old one.
    capsys.readouterr()
    predict(chosen, "out", "--overwrite")
    assert json.loads((out / "prediction.json").read_text())["predicted_dice"] == {}
    assert "is of an earlier prediction, and says something else now" in capsys.readouterr().err


def test_single_runs_are_calibrated_by_their_own_folds(chosen, capsys):
    path = chosen.run(DATASET_NAME, "si").predicted_dice
    own = read_record(path, Calibration)
    assert {case.case for case in own.cases} == validated_cases(chosen)
    predict(chosen, "own", "-c", "si", "--uncertainty", "--save-probabilities")
    plain = predict(chosen, "plain", "-c", "si", "--uncertainty")
    first, second = (
        json.loads((chosen.results / name / "prediction.json").read_text())["predicted_dice"][CASE]
        for name in ("own", "plain")
    )
    assert first == pytest.approx(second, abs=2e-4)
    capsys.readouterr()
    predict(chosen, "best", "-c", "si", "--uncertainty", "-chk", "best")
    assert "no Dice is predicted, only maps are written" in capsys.readouterr().err
    assert (chosen.results / "best" / "uncertainty" / f"{CASE}.nii.gz").exists()
    assert json.loads((chosen.results / "best" / "prediction.json").read_text())["predicted_dice"] == {}
    # Figures that could not be predicted at first are predicted by the same command.
    moved = path.rename(path.with_name("away.json"))
    predict(chosen, "late", "-c", "si", "--uncertainty")
    moved.rename(path)
    late = predict(chosen, "late", "-c", "si", "--uncertainty")
    assert json.loads((late / "prediction.json").read_text())["predicted_dice"] == {CASE: second}
    predict(chosen, "less", "-c", "si", "--uncertainty", "--disable-tta")
    assert "less sure for other models and options" in capsys.readouterr().err
    # One that was fitted to another figure is as good as none.
    stored = path.read_text()
    path.write_text(json.dumps(json.loads(stored) | {"schema_version": 1}))
    other = predict(chosen, "other", "-c", "si", "--uncertainty")
    said = capsys.readouterr().err
    assert "predicted_dice.json is not used" in said
    assert "no Dice is predicted, only maps are written" in said
    assert json.loads((other / "prediction.json").read_text())["predicted_dice"] == {}
    path.write_text(stored.replace('"slope"', '"steepness"'))
    predict(chosen, "wrong", "-c", "si", "--uncertainty", status=2)
    assert "predicted_dice.json is not valid" in capsys.readouterr().err
    assert not plain.with_name("wrong").exists()
    predict(chosen, "without", "-c", "si")


@pytest.mark.usefixtures("measured_here")
def test_the_best_model_predicts_no_dice_by_lines_of_another_figure(chosen, capsys):
    path = chosen.best(DATASET_NAME)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"predicted_dice": stored["predicted_dice"] | {"schema_version": 1}}))
    capsys.readouterr()
    out = predict(chosen, "out", "--uncertainty")
    said = capsys.readouterr().err
    assert "`seg25d find_best_configuration DATASET` makes it again" in said
    assert "no Dice is predicted, only maps are written" in said
    assert json.loads((out / "prediction.json").read_text())["predicted_dice"] == {}
    run(chosen, "find_best_configuration", "900")
    assert best_of(chosen).predicted_dice is not None


def validated_cases(workspace: Workspace) -> set[str]:
    return set(read_validated_run(workspace.run(DATASET_NAME, "si")).case_folds)


def test_post_processing_is_applied(chosen):
    members = (Member(run="si", folds=("0",), weight=1.0),)
    choose(chosen, members=members, postprocessing=PostProcessing())
    before = read_labels(predict(chosen, "before") / f"{CASE}.nii.gz")[0]
    choose(chosen, members=members, postprocessing=PostProcessing(largest_foreground=True))
    after = read_labels(predict(chosen, "after") / f"{CASE}.nii.gz")[0]
    assert before.any()
    assert (after[after > 0] == before[after > 0]).all()
    assert after.astype(bool).sum() <= before.astype(bool).sum()


@pytest.mark.slow
def test_two_devices_share_the_cases_and_give_the_same(chosen):
    images = chosen.raw_dataset(DATASET_NAME) / "imagesTs"
    for number in range(4, 7):
        for channel in ("0000", "0001"):
            shutil.copy(images / f"{CASE}_{channel}.nii.gz", images / f"phantom_{number:03d}_{channel}.nii.gz")
    place = ["--workspace", str(chosen.raw.parent)]
    alone, shared = chosen.results / "alone", chosen.results / "shared"
    for out, device in ((alone, "cpu"), (shared, "cpu,cpu")):
        words = ["-i", str(images), "-o", str(out), "-c", "si", "--uncertainty"]
        assert main(["predict", *words, *place, "--device", device]) == 0
    for path in sorted(alone.glob("*.nii.gz")):
        np.testing.assert_array_equal(read_labels(path)[0], read_labels(shared / path.name)[0])
    first, second = (json.loads((folder / "prediction.json").read_text()) for folder in (alone, shared))
    assert set(second["seconds"]) == {path.name.removesuffix(".nii.gz") for path in alone.glob("*.nii.gz")}
    assert second["predicted_dice"] == first["predicted_dice"] != {}


def test_a_device_that_is_not_there_is_an_error(chosen, capsys):
    images = chosen.raw_dataset(DATASET_NAME) / "imagesTs"
    words = ["predict", "-i", str(images), "-o", str(chosen.results / "out"), "--device", "cpu,cuda:17"]
    assert main([*words, "--workspace", str(chosen.raw.parent)]) == 2
    assert "cuda:17" in capsys.readouterr().err
    assert not (chosen.results / "out").exists()


def test_a_model_stays_loaded_and_predicts_arrays(chosen):
    choose(chosen, members=MEMBERS)
    model = api.load_model(chosen, api.PredictionOptions(dataset="900", device="cpu"))
    assert isinstance(model, CasePredictor)
    images = chosen.raw_dataset(DATASET_NAME) / "imagesTs"
    image, geometry = read_image([images / f"{CASE}_0000.nii.gz", images / f"{CASE}_0001.nii.gz"])
    values = model.predict_array(image, geometry.canonical_spacing_mm)
    np.testing.assert_array_equal(values, read_labels(predict(chosen, "out") / f"{CASE}.nii.gz")[0])


def test_runs_that_are_gone_are_named(chosen, capsys):
    choose(chosen, members=MEMBERS)
    shutil.rmtree(chosen.run(DATASET_NAME, "si").root)
    predict(chosen, "out", status=2)
    assert "find_best_configuration" in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_folds_cost_less(chosen):
    """Neither costs nor scores of some folds are taken for those of all; costs are those of a process of its own."""
    before = next(row for row in best_of(chosen).candidates if row.name == "si")
    run(chosen, "find_best_configuration", "900", "-c", "si", "-f", "1", "--no-postprocessing")
    fewer = best_of(chosen).candidates[0]
    assert fewer.cost.num_parameters * 3 == before.cost.num_parameters
    assert best_of(chosen).members[0].folds == ("1",)
    run(chosen, "find_best_configuration", "900", "-c", "si", "--no-postprocessing")
    again = best_of(chosen).candidates[0]
    assert (again.cost.num_parameters, again.dice) == (before.cost.num_parameters, before.dice)


@pytest.mark.usefixtures("measured_here")
def test_what_was_made_of_older_arrays_is_made_again(chosen, monkeypatch):
    single = chosen.run(DATASET_NAME, "si")
    store = chosen.preprocessed_dataset(DATASET_NAME).store(read_validated_run(single).store)
    os.utime(store / "phantom_001.json")
    predicted = []
    write = predict_validation.probability_map_writer
    monkeypatch.setattr(
        predict_validation,
        "probability_map_writer",
        lambda path, num_threads: (predicted.append(path), write(path, num_threads))[1],
    )
    run(chosen, "find_best_configuration", "900", "-c", "si", "--no-postprocessing")
    assert predicted == [single.fold(1).probabilities / "phantom_001.b2nd"]


def test_installed_models_are_left_out(chosen, capsys):
    chosen.run(DATASET_NAME, "si").splits.unlink()
    run(chosen, "find_best_configuration", "900", "--no-postprocessing")
    assert [row.name for row in best_of(chosen).candidates] == ["axial"]
    assert "left out, as their validation cases are not known: si" in capsys.readouterr().err
    run(chosen, "find_best_configuration", "900", "-c", "si", status=2)
    assert "no splits.json" in capsys.readouterr().err


def test_folds_that_cannot_be_compared(chosen, capsys):
    run(chosen, "find_best_configuration", "900", "-f", "all", status=2)
    assert "`all` has no validation cases" in capsys.readouterr().err
    run(chosen, "find_best_configuration", "900", "-c", "si", "-f", "3", status=2)
    assert "si: there is no fold '3'" in capsys.readouterr().err


@pytest.mark.usefixtures("measured_here")
def test_results_of_another_program_may_win(chosen, capsys):
    """Names may differ in capitals; nothing that only seg25d would do is chosen for what it does not predict."""
    ours, foreign = (chosen.run(DATASET_NAME, name) for name in ("si", "nnunet__T__P__3d"))
    shutil.copytree(ours.root, foreign.root)
    candidate = read_validated_run(ours)
    store = Store(chosen.preprocessed_dataset(DATASET_NAME).store(candidate.store))
    for fold in candidate.folds:
        foreign.fold(fold).model_final.unlink()
    for case, fold in list(candidate.case_folds.items())[1:]:
        truth = store.read_reference(case)
        right = np.stack([truth == index for index in range(candidate.description.labels.num_outputs)])
        write_probability_map(foreign.fold(fold).probabilities / f"{case}.b2nd", right.astype(np.float32))
    dataset = json.loads(foreign.dataset.read_text())
    dataset["labels"] = {name.upper(): value for name, value in dataset["labels"].items()}
    write_json(foreign.dataset, dataset)
    imported = ImportedRun(
        program="nnU-Net", trainer="T", plans="P", configuration="3d", folds=candidate.folds, num_cases=3
    )
    write_record(foreign.imported, imported)
    run(chosen, "find_best_configuration", "900", "--no-ensembles")
    best = best_of(chosen)
    assert best.name == "nnunet__T__P__3d"
    assert best.postprocessing.does_nothing
    assert best.dice == best.dice_without_postprocessing
    assert "no post-processing is fitted" in capsys.readouterr().err
    predict(chosen, "out", status=2)
    assert "nnUNetv2_predict" in capsys.readouterr().err


def test_a_model_that_was_trained_again_is_told(chosen, capsys):
    choose(chosen, members=MEMBERS)
    os.utime(chosen.run(DATASET_NAME, "si").fold(0).model_final)
    predict(chosen, "out")
    assert "si was trained again since it was chosen" in capsys.readouterr().err
