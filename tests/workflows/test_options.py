"""What options say about a run."""

from pathlib import Path

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.workflows.options import PretrainingOptions, TrainingOptions


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, False),
        ({"learning_rate": "0.1"}, False),
        ({"fine": "true"}, True),
        ({"fine.margin": "3"}, True),
        ({"fine": "True"}, True),
        ({"fine": "false"}, False),
    ],
)
def test_a_fine_model_is_asked_for_by_name_or_by_a_part(settings: dict[str, str], asked: bool) -> None:
    options = TrainingOptions(settings=settings)
    assert options.fine is asked
    assert (options.config("axial").fine is not None) is asked


def test_parts_of_the_fine_settings_change_them() -> None:
    options = TrainingOptions(settings={"fine": "true", "fine.margin": "3", "learning_rate": "0.1"}, epochs=2, seed=4)
    assert options.config("axial").fine == FineConfig(margin=3)
    coarse = options.of_coarse().config("axial")
    assert (coarse.fine, coarse.learning_rate, coarse.epochs, coarse.seed) == (None, 0.003, 2, 4)


def test_fine_is_true_or_false() -> None:
    with pytest.raises(RecordError, match=r"valid boolean.*got maybe"):
        TrainingOptions(settings={"fine": "maybe"}).config("axial")


def test_organs_of_xia_are_of_one_piece() -> None:
    options = TrainingOptions(settings={"fine": "true"}, recipe="xia2018")
    assert options.config("axial").fine == FineConfig(large_components=True)
    assert TrainingOptions(recipe="xia2018").config("axial").fine is None


def test_pretraining_does_not_ignore_a_file_to_begin_with() -> None:
    options = PretrainingOptions(task="jigsaw", pretrained=Path("resnet34.pth"))
    with pytest.raises(InputError, match="fresh weights"):
        options.base("si")
