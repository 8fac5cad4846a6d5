"""Models that are replaced while they are read are told: a prediction is of those that its record names."""

import os
from pathlib import Path

import pytest

from seg25d.core.errors import ModelError
from seg25d.core.workspace import RunFolder
from seg25d.inference.postprocessing import PostProcessing
from seg25d.inference.predictor import PredictorOptions
from seg25d.selection import chosen_model as module
from seg25d.selection.chosen_model import ChosenMember, ChosenModel


@pytest.fixture
def chosen(tmp_path: Path) -> ChosenModel:
    runs = [RunFolder(root=tmp_path / name) for name in ("si", "3d")]
    for run in runs:
        run.fold(0).root.mkdir(parents=True)
        run.fold(0).model_final.write_bytes(b"weights")
    return ChosenModel(tuple(ChosenMember.of(run, ("0",), 0.5) for run in runs), PostProcessing())


def replaced(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [replaced, Path.unlink])
@pytest.mark.parametrize("number", [0, 1])
def test_a_model_that_is_replaced_while_others_are_read_is_told(
    chosen: ChosenModel, monkeypatch: pytest.MonkeyPatch, change, number: int
) -> None:
    path = chosen.members[number].models[0]
    monkeypatch.setattr(module, "load_predictor", lambda models, *_: models == [path] and change(path))
    with pytest.raises(ModelError, match=r"(si|3d) was trained or installed anew while .* run the command again"):
        chosen.load(PredictorOptions(), "cpu")


def test_models_that_stay_are_loaded(chosen: ChosenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_predictor", lambda models, *_: models)
    monkeypatch.setattr(module, "CasePredictor", lambda predictors, *_: predictors)
    assert chosen.load(PredictorOptions(), "cpu") == [member.models for member in chosen.members]
