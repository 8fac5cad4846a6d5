"""Data sets made for nnU-Net: their folds and the names of their channels, from raw data to plans and training."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.api import plan_and_preprocess
from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.records import digest, read_record
from seg25d.core.workspace import Workspace
from seg25d.data.description import read_description
from seg25d.planning.explanation import explain
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import Plans
from seg25d.preprocessing.store import Store
from seg25d.workflows.options import PlanningOptions, TrainingOptions
from seg25d.workflows.planned_run import planned_run

NAME = "Dataset001_Probabilities"
FOLDS = [{"train": ["c", "b"], "val": ["a"]}, {"train": ["a", "b"], "val": ["c"]}]
OTHER = [{"train": ["a"], "val": ["b", "c"]}]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def describe(workspace: Workspace, *channels: str) -> None:
    description = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 3,
        "file_ending": ".nrrd",
    }
    (workspace.raw / NAME / "dataset.json").write_text(json.dumps(description))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three cases of 8 x 16 x 16 with three channels: 0.25 and 0.5, 51 to 204, 10 to 30."""
    raw = tmp_path / "raw" / NAME
    labels = np.zeros((8, 16, 16), np.uint8)
    labels[2:6, 4:12, 4:12] = 1
    for shift, name in enumerate("abc"):
        save(raw / "imagesTr" / f"{name}_0000.nrrd", np.where(labels, 0.5, 0.25).astype(np.float32))
        save(raw / "imagesTr" / f"{name}_0001.nrrd", np.where(labels, 204, 51 + shift).astype(np.uint8))
        save(raw / "imagesTr" / f"{name}_0002.nrrd", np.where(labels, 30 + shift, 10).astype(np.int16))
        save(raw / "labelsTr" / f"{name}.nrrd", labels)
    workspace = Workspace.resolve(tmp_path, {})
    describe(workspace, "noNorm", "rgb_to_0_1", "rescale_to_0_1")
    return workspace


def write_folds(folder: Path, name: str, folds: Any = FOLDS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(folds))
    return folder / name


def plan(workspace: Workspace, **options: Any) -> Plans:
    chosen = PlanningOptions(**({"configurations": ("si",), "num_processes": 0, "plan_only": True} | options))
    return plan_and_preprocess(workspace, ["1"], chosen)[NAME]


def planned_folds(workspace: Workspace) -> Any:
    return json.loads(workspace.preprocessed_dataset(NAME).splits.read_text())


def test_channels_are_normalised_as_their_names_say(workspace: Workspace) -> None:
    plans = plan(workspace, plan_only=False)
    schemes = [channel.scheme for channel in plans.configurations["si"].normalization]
    assert schemes == ["none", "rgb_0_1", "rescale_0_1"]
    for words in ("'noNorm' asks for none", "'rgb_to_0_1' asks for rgb_0_1", "'rescale_to_0_1' asks for rescale_0_1"):
        assert words in plans.reasons["normalization"]
    store = Store(workspace.preprocessed_dataset(NAME).store(plans.configurations["si"].store))
    image = store.open_image("c")[:]
    assert image[0].min() == 0.25
    assert image[0].max() == 0.5
    assert image[1].min() == pytest.approx(53 / 255)
    assert image[1].max() == pytest.approx(204 / 255)
    assert image[2].min() == 0
    assert image[2].max() == 1


@pytest.mark.parametrize(
    ("channel", "again"),
    [("noNorm", True), ("none", True), ("CT ", True), ("CT", False), ("MRI", False), ("ct_window:40:400", False)],
)
def test_plans_that_took_the_names_for_something_else_are_made_again(
    workspace: Workspace, channel: str, again: bool, caplog: Any
) -> None:
    describe(workspace, channel, channel, channel)
    plan(workspace)
    folder = workspace.preprocessed_dataset(NAME)
    content = json.loads(folder.plans().read_text())
    fingerprint, description = read_record(folder.fingerprint, Fingerprint), read_description(folder.dataset)
    labels = description.labels.model_dump(mode="json")
    as_before = {"fingerprint": fingerprint.model_dump(mode="json"), "channel_names": (channel,) * 3, "labels": labels}
    folder.plans().write_text(json.dumps(content | {"planned_from": digest(as_before)}))
    with caplog.at_level(logging.WARNING):
        plan(workspace)
    assert ("planning si again" in caplog.text) == again


def test_colours_out_of_range_name_the_case_and_nothing_is_written(workspace: Workspace, capsys: Any) -> None:
    save(workspace.raw / NAME / "imagesTr" / "b_0001.nrrd", np.full((8, 16, 16), 700, np.int16))
    words = ["plan_and_preprocess", "-d", "1", "-c", "si", "--workspace", str(workspace.raw.parent), "-np", "0"]
    assert main(words) == 2
    assert "b_0001.nrrd: expected values from 0 to 255" in capsys.readouterr().err
    assert not workspace.preprocessed.exists()


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
def test_folds_of_nnunet_are_used_and_told(workspace: Workspace, place: str, caplog: Any) -> None:
    write_folds(getattr(workspace, place) / NAME, "splits_final.json")
    with caplog.at_level(logging.INFO):
        plans = plan(workspace)
    reason = f"2, those of {place}/{NAME}/splits_final.json"
    assert planned_folds(workspace) == FOLDS
    assert plans.reasons["folds"] == reason
    assert f"folds: {reason}" in explain(plans)
    assert f"{NAME}, folds: {reason}" in caplog.text
    assert plan(workspace) == plans


def test_folds_lie_in_nnunets_own_folder_too(workspace: Workspace, tmp_path: Path) -> None:
    write_folds(tmp_path / "pp" / NAME, "splits_final.json")
    plans = plan(workspace.model_copy(update={"nnunet_preprocessed": tmp_path / "pp"}))
    assert planned_folds(workspace) == FOLDS
    assert plans.reasons["folds"].endswith(f"pp/{NAME}/splits_final.json")
    plan(workspace)
    assert len(planned_folds(workspace)) == 3


def test_our_own_file_counts_and_the_other_is_named(workspace: Workspace, caplog: Any) -> None:
    write_folds(workspace.raw / NAME, "splits.json", OTHER)
    theirs = write_folds(workspace.raw / NAME, "splits_final.json")
    with caplog.at_level(logging.WARNING):
        plans = plan(workspace)
    assert planned_folds(workspace) == OTHER
    assert "splits_final.json has others and does not count" in plans.reasons["folds"]
    assert f"raw/{NAME}/splits.json counts" in caplog.text
    write_folds(theirs.parent, theirs.name, OTHER)
    assert plan(workspace).reasons["folds"] == f"1, those of raw/{NAME}/splits.json"


def test_folds_that_do_not_fit_are_refused(workspace: Workspace) -> None:
    write_folds(workspace.preprocessed / NAME, "splits_final.json", [{"train": ["a"], "val": ["x"]}])
    with pytest.raises(InputError, match=rf"x .*preprocessed/{NAME}/splits_final.json fold 0 names an unknown case"):
        plan(workspace)
    assert [path.name for path in (workspace.preprocessed / NAME).iterdir()] == ["splits_final.json"]


@pytest.mark.parametrize(("place", "name"), [("raw", "splits.json"), ("preprocessed", "splits_final.json")])
def test_training_takes_no_other_folds_than_those_that_are_there(workspace: Workspace, place: str, name: str) -> None:
    plan(workspace, plan_only=False)
    planned_run(workspace, "1", "si", TrainingOptions(device="cpu"))
    path = write_folds(getattr(workspace, place) / NAME, name)
    with pytest.raises(InputError, match=f"{place}/{NAME}/{name} has other folds .* plan_and_preprocess -d 1` again"):
        planned_run(workspace, "1", "si", TrainingOptions(device="cpu"))
    plan(workspace, plan_only=False)
    assert len(planned_run(workspace, "1", "si", TrainingOptions(device="cpu")).splits) == 2
    path.unlink()
    assert planned_run(workspace, "1", "si", TrainingOptions(device="cpu")).splits
