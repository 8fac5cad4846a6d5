"""Post-processing of a folder: what is chosen, that it is applied, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.inference.postprocessing import PostProcessing
from seg25d.selection.crossval_folder import accumulate_crossval_results
from seg25d.selection.folder_postprocessing import apply_postprocessing, determine_postprocessing
from tests.killed import calls_of, run_until

LABELS = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.astype(np.uint8)), str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases whose predictions are the truth, a cube of 64 voxels, and a false voxel in a corner."""
    truth = np.zeros((8, 8, 8))
    truth[2:6, 2:6, 2:6] = 1
    guess = truth.copy()
    guess[0, 0, 0] = 1
    for case in "abc":
        write(tmp_path / "truth" / f"{case}.nii.gz", truth)
        write(tmp_path / "guess" / f"{case}.nii.gz", guess)
    (tmp_path / "guess" / "dataset.json").write_text(json.dumps(LABELS))
    return tmp_path / "guess", tmp_path / "truth"


def test_a_false_voxel_is_removed_where_that_raises_the_dice(folders: tuple[Path, Path], tmp_path: Path) -> None:
    guess, truth = folders
    rule = determine_postprocessing(guess, truth, num_processes=0)
    assert rule.postprocessing.largest_foreground
    assert rule.dice == 1
    assert rule.dice_without == pytest.approx(2 * 64 / (64 + 65))
    summary = json.loads((guess / "postprocessed" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == 1
    apply_postprocessing(guess, tmp_path / "out", guess / "postprocessing.json", num_processes=0)
    for case in "abc":
        expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(truth / f"{case}.nii.gz")))
        found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / f"{case}.nii.gz")))
        assert np.array_equal(found, expected)


def test_nothing_is_chosen_where_nothing_helps(folders: tuple[Path, Path]) -> None:
    _, truth = folders
    rule = determine_postprocessing(
        truth, truth, dataset_json=folders[0] / "dataset.json", num_processes=0, write_results=False
    )
    assert rule.postprocessing == PostProcessing()
    assert not (truth / "postprocessed").exists()


def test_what_cannot_be_applied_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    guess, truth = folders
    rule = determine_postprocessing(guess, truth, num_processes=0, write_results=False)
    path = guess / "postprocessing.json"
    with pytest.raises(InputError, match="would overwrite"):
        apply_postprocessing(guess, guess, path)
    with pytest.raises(InputError, match="is a pickle"):
        apply_postprocessing(guess, tmp_path / "out", tmp_path / "postprocessing.pkl")
    with pytest.raises(InputError, match="is not a folder"):
        apply_postprocessing(tmp_path / "empty", tmp_path / "out", path)
    thresholds = PostProcessing(thresholds={"1": 0.3})
    path.write_text(rule.model_copy(update={"postprocessing": thresholds}).model_dump_json())
    with pytest.raises(InputError, match="need probabilities"):
        apply_postprocessing(guess, tmp_path / "out", path)
    (guess / "dataset.json").unlink()
    with pytest.raises(InputError, match="-dataset_json FILE"):
        determine_postprocessing(guess, truth)
    assert not (tmp_path / "out").exists()


def test_cases_of_all_folds_come_into_one_folder(trained_once: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_once, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    folder = accumulate_crossval_results(workspace, "900", "si")
    assert folder.name == "crossval_results_folds_0_1_2"
    cases = [f"phantom_00{index}" for index in range(3)]
    names = {*(f"{case}.nii.gz" for case in cases), "dataset.json", "plans.json", "summary.json"}
    assert {path.name for path in folder.iterdir()} == names
    summary = json.loads((folder / "summary.json").read_text())
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == sorted(
        f"{case}.nii.gz" for case in cases
    )
    assert accumulate_crossval_results(workspace, "900", "si") == folder
    assert accumulate_crossval_results(workspace, "900", "si", ["1"], tmp_path / "one") == tmp_path / "one"
    # The same command again, as after a kill; but nothing of others is removed.
    assert accumulate_crossval_results(workspace, "900", "si", ["1"], tmp_path / "one") == tmp_path / "one"
    (tmp_path / "one" / "notes.txt").touch()
    with pytest.raises(InputError, match="is not empty"):
        accumulate_crossval_results(workspace, "900", "si", ["1"], tmp_path / "one")
    assert (tmp_path / "one" / "notes.txt").exists()
    before = sorted(path.name for path in folder.iterdir())
    (workspace.run("Dataset900_Phantom", "si").fold(1).validation / "phantom_001.nii.gz").unlink()
    (workspace.run("Dataset900_Phantom", "si").fold(1).validation / "phantom_000.nii.gz").touch()
    with pytest.raises(InputError, match="segmentations of validation cases are missing"):
        accumulate_crossval_results(workspace, "900", "si")
    assert sorted(path.name for path in folder.iterdir()) == before
    with pytest.raises(InputError, match="fold 0, 2 is not trained and scored"):
        accumulate_crossval_results(workspace, "900", "3d")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_choice_of_post_processing_goes_on_in_each_of_its_steps(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    guess, truth = folders
    words = ["determine_postprocessing", "-i", guess, "-ref", truth]
    own, places = "seg25d.selection.folder_postprocessing", ["_components", "_score_case", "_apply"]
    before = contents(guess)
    for place in places:
        run_until(f"{own}:{place}", 2, *words)
    assert calls_of(f"{own}:_apply", *words) == 1
    found = contents(guess)
    assert found.keys() - before.keys() == {
        "postprocessing.json",
        "postprocessed/summary.json",
        *(f"postprocessed/{case}.nii.gz" for case in "abc"),
    }
    for place in places:
        assert calls_of(f"{own}:{place}", *words) == 3, "a whole one begins anew"
        assert contents(guess) == found
    apply = ["apply_postprocessing", "-i", guess, "-o", tmp_path / "out", "-pp_pkl_file", guess / "postprocessing.json"]
    run_until(f"{own}:_apply", 2, *apply)
    (tmp_path / "out" / "a.nii.gz").unlink()
    assert calls_of(f"{own}:_apply", *apply) == 2
    assert contents(tmp_path / "out") == {f"{case}.nii.gz": found[f"postprocessed/{case}.nii.gz"] for case in "abc"}
