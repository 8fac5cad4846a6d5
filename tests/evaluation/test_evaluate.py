import csv
import json
import logging
import math
import re
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.cli.main import main as command
from seg25d.core.errors import DatasetError, InputError
from seg25d.core.locks import file_lock
from seg25d.core.records import read_record
from seg25d.data import sizes
from seg25d.evaluation import evaluate as module
from seg25d.evaluation import pairs
from seg25d.evaluation.area_plot import FILES, AreaPlotOptions
from seg25d.evaluation.evaluate import evaluate, evaluate_folders, write_csv
from seg25d.evaluation.summary import Summary
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM
from tests.killed import calls_of, run_until


def write(folder, name, values, ending=".nii.gz", spacing=(1.0, 1.0, 1.0)):
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(values))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / f"{name}{ending}"))


def blocks(dtype=np.uint8, **places):
    """Label n at the given z planes of a 4 x 5 x 6 volume."""
    labels = np.zeros((4, 5, 6), dtype)
    for name, (start, stop) in places.items():
        labels[start:stop] = int(name.removeprefix("l"))
    return labels


@pytest.fixture
def folders(tmp_path):
    """Labels 1 and 70; 70 is in the reference of b only, 9 in a prediction only."""
    reference, prediction = tmp_path / "truth" / "labelsTs", tmp_path / "out"
    write(reference, "a", blocks(l1=(0, 2)))
    write(prediction, "a", blocks(l1=(1, 3), l9=(3, 4)))
    write(reference, "b", blocks(np.float32, l1=(0, 1), l70=(2, 4)))
    write(prediction, "b", blocks(np.int16, l1=(0, 1), l70=(2, 3)), ending=".nrrd")
    write(prediction, "further", blocks())
    return reference, prediction


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_pairs_by_name_and_takes_the_values_of_the_references(folders, num_workers):
    summary = evaluate_folders(*folders, num_workers)
    assert [case.case for case in summary.per_case] == ["a", "b"]
    assert list(summary.mean) == ["1", "70"]
    first, second = summary.per_case
    assert first.metrics["1"].dice == pytest.approx(0.5)
    assert first.metrics["70"].dice is None
    assert first.metrics["70"].tn == 120
    assert second.metrics["70"].dice == pytest.approx(2 / 3)
    assert summary.foreground_mean.dice == pytest.approx((0.75 + 2 / 3) / 2)


def describe(folder, labels, **more):
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 1} | more
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("place", ["beside predictions", "beside references", "parent"])
def test_a_dataset_json_says_regions_and_ignored_value(tmp_path, place):
    reference, prediction = tmp_path / "truth" / "labelsTs", tmp_path / "out"
    write(reference, "a", blocks(l1=(0, 1), l2=(1, 2), l3=(3, 4)))
    write(prediction, "a", blocks(l2=(0, 2), l1=(3, 4)))
    chosen = {"beside predictions": prediction, "beside references": reference, "parent": reference.parent}[place]
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    describe(chosen, labels, regions_class_order=[1, 2])
    metrics = evaluate_folders(reference, prediction, 0).per_case[0].metrics
    assert set(metrics) == {"whole", "core"}
    assert metrics["whole"].dice == 1
    assert metrics["core"].dice == pytest.approx(2 / 3)
    assert metrics["whole"].tp + metrics["whole"].tn == 90


def test_a_value_that_is_not_declared_names_the_file(folders):
    describe(folders[1], {"background": 0, "organ": 1, "lesion": 70})
    with pytest.raises(DatasetError, match=r"a\.nii\.gz.*9"):
        evaluate_folders(*folders, 0)


def test_missing_predictions_are_named(folders):
    for path in list(folders[1].iterdir()):
        path.unlink()
    with pytest.raises(InputError, match=r"no prediction for 2 of 2 cases: a, b"):
        evaluate_folders(*folders, 0)


def test_five_missing_predictions_are_named_and_all_are_counted(tmp_path):
    for name in "abcdefg":
        write(tmp_path / "truth", name, blocks(l1=(0, 1)))
    write(tmp_path / "out", "b", blocks(l1=(0, 1)))
    with pytest.raises(InputError, match=r"6 of 7 cases: a, c, d, e, f and 1 more; .* --common$"):
        evaluate_folders(tmp_path / "truth", tmp_path / "out", 0)
    write(tmp_path / "out", "a", blocks(l1=(0, 1)))
    with pytest.raises(InputError, match=r"5 of 7 cases: c, d, e, f, g; "):
        evaluate_folders(tmp_path / "truth", tmp_path / "out", 0)


def test_further_predictions_are_told(folders, caplog):
    with caplog.at_level(logging.INFO):
        evaluate_folders(*folders, 0)
    assert "left out, as they have no reference: 1 of 3 prediction(s) (further)" in caplog.text


def test_common_cases_are_scored_and_the_others_are_counted(folders, tmp_path, caplog):
    for name in "cdefgh":
        write(folders[0], name, blocks(l70=(0, 1)))
    write(folders[0], "c", blocks(), ending=".mha")  # twice, but not among the common ones
    (folders[1] / "a.nii.gz").unlink()
    with caplog.at_level(logging.INFO):
        summary = evaluate(
            *folders, common=True, csv=tmp_path / "t.csv", areas=AreaPlotOptions(tmp_path), num_processes=0
        )
    assert [case.case for case in summary.per_case] == ["b"]
    assert summary.mean["70"].dice == pytest.approx(2 / 3)
    assert (
        "scoring the 1 case(s) that both folders have; left out: "
        "7 of 8 reference(s) (a, c, d, e, f and 2 more), 1 of 2 prediction(s) (further)"
    ) in caplog.text
    assert {path.name for path in tmp_path.glob("*.png")} == {"b.png"}
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


def test_common_with_all_cases_leaves_nothing_out(folders, caplog):
    (folders[1] / "further.nii.gz").unlink()
    with caplog.at_level(logging.INFO):
        assert evaluate(*folders, common=True, num_processes=0) == evaluate_folders(*folders, 0)
    assert "the 2 case(s) that both folders have; left out: 0 of 2 reference(s), 0 of 2 prediction(s)" in caplog.text


def test_folders_with_no_common_case_are_refused(folders):
    for path in folders[1].glob("[ab].*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no case in common: .* got a, b against further; rename"):
        evaluate(*folders, common=True, num_processes=0)
    assert not (folders[1] / "summary.json").exists()
    (folders[1] / "further.nii.gz").unlink()
    with pytest.raises(InputError, match="got a, b against no segmentations"):
        evaluate(*folders, common=True, num_processes=0)


def test_the_command_scores_common_cases(folders, capsys):
    (folders[1] / "a.nii.gz").unlink()
    words = ["evaluate", *map(str, folders), "--num-processes", "0"]
    assert command(words) == 2
    assert "no prediction for 1 of 2 cases: a; " in capsys.readouterr().err
    assert not (folders[1] / "summary.json").exists()
    assert command([*words, "--common"]) == 0
    out = capsys.readouterr()
    assert "1 of 2 reference(s) (a), 1 of 2 prediction(s) (further)" in out.out + out.err
    assert [case.case for case in read_record(folders[1] / "summary.json", Summary).per_case] == ["b"]


def test_many_doubled_files_are_counted(folders):
    for name in "abcdefg":
        write(folders[0], name, blocks(l1=(0, 1)))
        write(folders[1], name, blocks(l1=(0, 1)))
        write(folders[1], name, blocks(l1=(0, 1)), ending=".mha")
    with pytest.raises(InputError, match=r"(?s)e\.mha and e\.nii\.gz in .*\n  and 2 more$"):
        evaluate_folders(*folders, 0)


def test_grids_that_differ_name_the_case(folders):
    write(folders[1], "a", blocks(), spacing=(1.0, 1.0, 2.0))
    with pytest.raises(InputError, match=r"a: the grid .* spacing"):
        evaluate_folders(*folders, 0)


def test_two_files_of_one_case_are_refused(folders):
    write(folders[1], "a", blocks(), ending=".nrrd")
    with pytest.raises(InputError, match=r"a\.nii\.gz and a\.nrrd"):
        evaluate_folders(*folders, 0)


def test_folders_without_segmentations_are_refused(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        evaluate_folders(tmp_path / "gone", tmp_path, 0)
    with pytest.raises(InputError, match="holds no segmentations"):
        evaluate_folders(tmp_path, tmp_path, 0)


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_images_in_place_of_segmentations_are_refused(tmp_path, bad):
    write(tmp_path / "truth", "a", np.full((4, 5, 6), bad, np.float32))
    write(tmp_path / "out", "a", blocks())
    with pytest.raises(InputError, match="a: expected segmentations"):
        evaluate_folders(tmp_path / "truth", tmp_path / "out", 0)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("folder", ["truth", "out"])
def test_voxels_that_are_no_numbers_are_no_background(tmp_path, folder, bad, declared):
    for name in ("truth", "out"):
        labels = blocks(np.float32, l1=(0, 2))
        write(tmp_path / name, "a", np.where(labels == 1, bad, 0).astype(np.float32) if name == folder else labels)
    if declared:
        describe(tmp_path / "truth", {"background": 0, "x": 1})
    with pytest.raises(InputError, match=f"{folder}/a.nii.gz: .* voxels are NaN and .* are infinite; give each voxel"):
        evaluate_folders(tmp_path / "truth", tmp_path / "out", 0)


@pytest.mark.parametrize("stray", [("out",), ("truth",), ("truth", "out")])
def test_a_stray_medical_image_hides_no_pictures(tmp_path, stray, caplog):
    for name in ("truth", "out"):
        for case in ("a", "b"):
            write(tmp_path / name, case, blocks(l1=(0, 2))[:, 0], ending=".png")
    for name in stray:
        write(tmp_path / name, f"old_{name}", blocks())
    with caplog.at_level(logging.INFO):
        summary = evaluate_folders(tmp_path / "truth", tmp_path / "out", 0)
    assert [case.case for case in summary.per_case] == ["a", "b"]
    for name in stray:
        assert f"left out in {tmp_path / name}: 1 medical image(s) (old_{name}.nii.gz)" in caplog.text


def test_plots_beside_segmentations_are_no_segmentations(folders, caplog):
    for case in ("a", "b", "c"):
        write(folders[1], case, blocks()[0], ending=".png")
    with caplog.at_level(logging.INFO):
        assert len(evaluate_folders(*folders, 0).per_case) == 2
    assert f"left out in {folders[1]}: 3 picture(s) (a.png, b.png, c.png)" in caplog.text


def test_table_has_a_row_per_case_and_label(folders, tmp_path):
    write_csv(evaluate_folders(*folders, 0), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["label"]) for row in rows] == [("a", "1"), ("a", "70"), ("b", "1"), ("b", "70")]
    assert float(rows[0]["dice"]) == pytest.approx(0.5)
    assert rows[1]["dice"] == ""
    assert rows[0]["tp"] == "30"


def test_all_that_was_asked_for_is_written(folders, tmp_path):
    plots = tmp_path / "plots"
    summary = evaluate(
        *folders,
        output=tmp_path / "new" / "scores.json",
        num_processes=0,
        surface_tolerance_mm=0.5,
        areas=AreaPlotOptions(plots),
    )
    assert read_record(tmp_path / "new" / "scores.json", Summary) == summary
    assert summary.surface_tolerance_mm == 0.5
    assert {path.name for path in plots.iterdir()} == {"a.png", "b.png", "area_plots.csv", "area_plots.json"}
    # Planes 0 and 1 against 1 and 2, all of it surface: one plane of each is a voxel off.
    assert summary.per_case[0].metrics["1"].surface_dice == pytest.approx(0.5)
    assert summary.per_case[0].metrics["70"].num_true_components == 0


@pytest.mark.parametrize("tolerance_mm", [0.0, -1.0, math.inf, math.nan])
def test_a_tolerance_is_above_0(folders, tolerance_mm):
    with pytest.raises(InputError, match="it must be a number above 0"):
        evaluate_folders(*folders, 0, tolerance_mm)


@pytest.mark.parametrize("option", [["-o", "{folder}"], ["--csv", "{folder}"], ["--area-plots", "{file}"]])
def test_places_that_cannot_be_written_are_refused_at_once(folders, tmp_path, option, capsys):
    places = {"folder": tmp_path / "truth", "file": folders[0] / "a.nii.gz"}
    words = [word.format(**places) for word in option]
    assert command(["evaluate", *map(str, folders), *words]) == 2
    assert re.search(r"^error: .* cannot be written: .*\n$", capsys.readouterr().err, re.MULTILINE)
    assert not (folders[1] / "summary.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "x/../scores", "--csv", "scores"],
        ["--csv", "out/summary.json"],
        ["--csv", "plots/area_plots.csv", "--area-plots", "plots"],
    ],
)
def test_a_file_for_two_outputs_is_refused_at_once(folders, tmp_path, options, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(["evaluate", *map(str, folders), "-np", "0", *options]) == 2
    assert re.search(r"^error: .* would hold two outputs, expected a file for each; ", capsys.readouterr().err, re.M)
    assert not (folders[1] / "summary.json").exists()


def test_a_folder_of_predictions_that_cannot_be_written_is_refused_at_once(folders, monkeypatch, capsys):
    def refuse(path):
        raise InputError(f"{path} cannot be written: not today")

    monkeypatch.setattr(module, "check_writable_file", refuse)
    monkeypatch.setattr(module, "_evaluate_pairs", None)
    assert command(["evaluate", *map(str, folders), "-np", "0"]) == 2
    assert "summary.json cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--surface-tolerance-mm", "0"], ["--area-axis", "D"], ["--area-axis", "axial"]])
def test_options_that_cannot_be_right_are_refused(folders, words, capsys):
    try:
        status = command(["evaluate", *map(str, folders), *words])
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (folders[1] / "summary.json").exists()


def test_nothing_is_written_where_a_case_is_at_fault(folders, tmp_path, capsys):
    (folders[1] / "b.nrrd").unlink()
    write(folders[1], "b", blocks(), spacing=(1.0, 1.0, 2.0))
    assert command(["evaluate", *map(str, folders), "-np", "0", "--area-plots", str(tmp_path / "plots")]) == 2
    assert "error: b: the grid" in capsys.readouterr().err
    assert not (folders[1] / "summary.json").exists()
    assert not (tmp_path / "plots").exists()


def test_the_help_tells_the_default_tolerance(capsys):
    with pytest.raises(SystemExit):
        command(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"tolerated distance between surfaces in surface_dice (default: {SURFACE_TOLERANCE_MM:g})" in text


def test_the_values_of_files_take_little_memory(rng):
    """Beside the two results of a byte per voxel: it were 18 more, with copies of whole arrays."""
    reference, prediction = (rng.choice([0, 3, 700], (32, 64, 64)).astype(np.int16) for _ in range(2))
    tracemalloc.start()
    values, truth, guess = pairs._compact(reference, prediction, "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * reference.size
    assert values == [0, 3, 700]
    np.testing.assert_array_equal(np.array(values)[truth], reference)
    np.testing.assert_array_equal(np.array(values)[guess], prediction)


def test_the_number_of_workers_follows_the_largest_case(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(sizes, "choose_num_workers", lambda *arguments: asked.append(arguments) or 0)
    write(folders[0], "b", np.ones((8, 9, 10), np.uint8))
    write(folders[1], "b", np.ones((8, 9, 10), np.uint8), ending=".nrrd")
    evaluate_folders(*folders)
    assert asked == [(None, 8 * 9 * 10 * 22 + (200 << 20), 2)]
    evaluate_folders(*folders, 0)
    assert len(asked) == 1


SCORE, MEASURE = "seg25d.evaluation.evaluate:_score", "seg25d.evaluation.area_plot:_measure"


@pytest.fixture
def several(tmp_path):
    """Five cases, of which each has a class that no other one has, and the words of their evaluation."""
    reference, prediction = tmp_path / "truth", tmp_path / "out"
    for number, case in enumerate("abcde"):
        write(reference, case, blocks(l1=(0, 2), **{f"l{number + 3}": (2, 3)}))
        write(prediction, case, blocks(l1=(1, 3), **{f"l{number + 4}": (3, 4)}))
    return prediction, ["evaluate", reference, prediction]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_the_cases_that_are_left(several, tmp_path):
    prediction, words = several
    words = [*words, "--csv", tmp_path / "table.csv", "--area-plots", tmp_path / "areas"]
    outputs = [prediction / "summary.json", tmp_path / "table.csv", *(tmp_path / "areas" / name for name in FILES)]
    assert calls_of(SCORE, *words) == 5
    undisturbed = [path.read_bytes() for path in outputs]
    for path in outputs:
        path.unlink()
    run_until(SCORE, 3, *words)
    assert not outputs[0].exists()
    run_until(MEASURE, 2, *words)
    assert calls_of(MEASURE, *words) == 3
    assert [path.read_bytes() for path in outputs] == undisturbed
    assert {path.name for path in prediction.iterdir()} == {*(f"{case}.nii.gz" for case in "abcde"), "summary.json"}
    assert calls_of(SCORE, *words) == 5, "that is another evaluation"


@pytest.mark.slow
def test_what_changed_after_the_kill_is_scored_again(several):
    prediction, words = several
    run_until(SCORE, 3, *words)
    write(prediction, "b", blocks(l1=(0, 2), l4=(2, 3)))
    assert calls_of(SCORE, *words) == 3
    assert read_record(prediction / "summary.json", Summary).per_case[1].metrics["1"].dice == 1
    for change in (["--surface-tolerance-mm", "1"], []):
        run_until(SCORE, 3, *words)
        if not change:
            describe(prediction, {"background": 0, **{f"organ_{value}": value for value in range(1, 9)}})
        assert calls_of(SCORE, *words, *change) == 5


@pytest.mark.slow
def test_another_evaluation_of_the_same_file_waits_and_a_damaged_remainder_is_told(several, capsys):
    prediction, words = several
    with file_lock(prediction / "summary.json", "evaluating"):
        assert command([*map(str, words)]) == 2
    run_until(SCORE, 3, *words)
    first, *_ = sorted((prediction / ".summary.json.evaluating.part").iterdir())
    first.write_bytes(first.read_bytes()[:-20])
    assert calls_of(SCORE, *words) == 3
    assert f"what {first} holds of an unfinished command is done again" in capsys.readouterr().err
