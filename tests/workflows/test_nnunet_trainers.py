"""nnU-Net's trainers: what each changes, how its run is called, and which are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seg25d.api import (
    PredictionOptions,
    TrainingOptions,
    ValidationOptions,
    predict,
    train,
)
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.training.config import TrainingConfig, apply_settings
from seg25d.training.nnunet_trainers import NNUNET_TRAINERS, OTHERS, find_trainer
from seg25d.training.recipes import RECIPES


@pytest.mark.parametrize("name", NNUNET_TRAINERS)
def test_every_trainer_is_settings_that_there_are(name: str) -> None:
    changed = apply_settings(RECIPES["default"], find_trainer(name).settings)
    assert isinstance(changed, TrainingConfig)
    if "epochs" in name and "Benchmark" not in name:
        number = int(name.removeprefix("nnUNetTrainer_").partition("epochs")[0])
        assert (changed.epochs, changed.iterations_per_epoch) == (number, 250)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nnUNetTrainer", {}),
        ("nnUNetTrainer_1epoch", {"epochs": 1, "iterations_per_epoch": 250}),
        ("nnUNetTrainerDiceLoss", {"loss": "dice"}),
        ("nnUNetTrainerDiceCELoss_noSmooth", {"dice_smooth": 1e-8}),
        ("nnUNetTrainerVanillaAdam3en4", {"optimizer": "adam", "learning_rate": 3e-4, "schedule": "poly"}),
        ("nnUNetTrainerCosAnneal", {"optimizer": "sgd", "momentum": 0.99, "learning_rate": 0.01, "weight_decay": 3e-5}),
        ("nnUNetTrainer_probabilisticOversampling_033", {"foreground_share": 0.33}),
    ],
)
def test_settings_of_trainers(name: str, settings: dict[str, object]) -> None:
    changed = apply_settings(RECIPES["default"], find_trainer(name).settings).model_dump()
    assert {key: changed[key] for key in settings} == settings


@pytest.mark.parametrize("name", [*(f"{start}X" for start in OTHERS), "nnUNetTrainerMine"])
def test_other_trainers_are_refused_with_what_to_use_instead(name: str) -> None:
    cure = OTHERS.get(name.removesuffix("X"), "--set KEY=VALUE")
    with pytest.raises(InputError) as refused:
        find_trainer(name)
    assert cure in str(refused.value)
    assert "nnUNetTrainer_5epochs" in str(refused.value)


@pytest.fixture
def workspace(trained_once: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(trained_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def options(**given: object) -> TrainingOptions:
    return TrainingOptions(iterations=2, epochs=1, device="cpu", num_processes=0, **given)


def results(workspace: Workspace, run: str) -> Path:
    return workspace.results / "Dataset900_Phantom" / run


@pytest.mark.usefixtures("written_models")
def test_a_trainer_has_a_run_of_its_own_and_changes_its_plan_alone(workspace: Workspace) -> None:
    before = workspace.preprocessed_dataset("Dataset900_Phantom").plans().read_text()
    train(workspace, "900", "si", ["0"], options(trainer="nnUNetTrainerNoMirroring"))
    assert workspace.preprocessed_dataset("Dataset900_Phantom").plans().read_text() == before
    plans = json.loads((results(workspace, "si__nnUNetTrainerNoMirroring") / "plans.json").read_text())
    assert plans["configurations"]["si"]["mirror_axes"] == []
    train(workspace, "900", "si", ["1"], options(trainer="nnUNetTrainerBN"))
    plans = json.loads((results(workspace, "si__nnUNetTrainerBN") / "plans.json").read_text())
    assert plans["configurations"]["si"]["network"]["norm"] == "batch"
    with pytest.raises(InputError, match="coarse-to-fine"):
        train(workspace, "900", "si", ["0"], options(trainer="nnUNetTrainerBN", settings={"fine": "true"}))


@pytest.mark.usefixtures("written_models")
def test_validation_is_done_again_by_either_model_and_with_probabilities(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    fold = results(workspace, "si") / "fold_0"
    (case,) = (fold / "validation").glob("*.nii.gz")
    written = case.stat().st_mtime_ns
    again = ValidationOptions(validate_only=True, validate_best=True, save_probabilities=True)
    scores = train(workspace, "900", "si", ["0"], options(validation=again))
    assert list(scores) == ["0"]
    assert case.stat().st_mtime_ns > written
    name = case.name.removesuffix(".nii.gz")
    for folder in ("validation", "validation_best"):
        assert {path.name for path in (fold / folder).iterdir()} == {
            *("summary.json", "uncertainty", case.name, f"{name}.npz", f"{name}.pkl")
        }
    damaged = fold / "validation" / "uncertainty" / f"{name}.json"
    damaged.write_text("{")
    train(workspace, "900", "si", ["0"], options(validation=ValidationOptions(save_probabilities=True)))
    assert "the case is left out of what predicts the Dice: `train --val` makes it again" in caplog.text
    train(workspace, "900", "si", ["0"], options(validation=ValidationOptions(validate_only=True)))
    assert "structures" in json.loads(damaged.read_text())
    # Sums for the figure of unreleased versions are not added to those of today.
    sums = json.loads(damaged.read_text())
    damaged.write_text(json.dumps(sums | {"schema_version": 1}))
    calibration = results(workspace, "si") / "crossval" / "predicted_dice.json"
    assert name in calibration.read_text()
    train(workspace, "900", "si", ["0"], options())
    assert "1 cases of fold 0 are left out of what predicts the Dice" in caplog.text
    assert name not in calibration.read_text()
    train(workspace, "900", "si", ["0"], options(validation=ValidationOptions(validate_only=True)))
    assert json.loads(damaged.read_text()) == sums
    assert name in calibration.read_text()
    with pytest.raises(InputError, match=r"3d: fold 0 is not trained; train it first, without --val"):
        train(workspace, "900", "3d", ["0"], options(validation=ValidationOptions(validate_only=True)))


def test_best_and_final_models_predict_and_parts_share_a_folder(
    workspace: Workspace, tmp_path: Path, shrink_networks: Callable[[Path], None]
) -> None:
    del shrink_networks
    images = workspace.raw / "Dataset900_Phantom" / "imagesTr"
    given = {"dataset": "900", "configuration": "si", "folds": ("0",), "device": "cpu"}
    for part in (1, 0, 0):
        predict(workspace, images, tmp_path / "parts", PredictionOptions(num_parts=2, part_id=part, **given))
    record = json.loads((tmp_path / "parts" / "prediction.json").read_text())
    assert sorted(record["seconds"]) == ["phantom_000", "phantom_001", "phantom_002"]
    predict(workspace, images, tmp_path / "best", PredictionOptions(checkpoint="best", **given))
    record = json.loads((tmp_path / "best" / "prediction.json").read_text())
    assert record["model"]["checkpoint"] == "best"
    with pytest.raises(InputError, match="holds predictions of another model"):
        predict(workspace, images, tmp_path / "best", PredictionOptions(**given))
    with pytest.raises(InputError, match="expected a number from 0 to 1"):
        predict(workspace, images, tmp_path / "parts", PredictionOptions(num_parts=2, part_id=2, **given))
    (results(workspace, "si") / "fold_0" / "model_best.safetensors").unlink()
    with pytest.raises(InputError, match="take the final model"):
        predict(workspace, images, tmp_path / "other", PredictionOptions(checkpoint="best", **given))
    assert not (tmp_path / "other").exists()
