"""What words of the user come to."""

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.training.config import TrainingConfig
from seg25d.workflows.options import PretrainingOptions, TrainingOptions
from seg25d.workflows.settings import resolve_settings


def config_of(options: TrainingOptions) -> TrainingConfig:
    return resolve_settings(options, options.settings).config


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
    assert (config_of(TrainingOptions(settings=settings)).fine is not None) is asked


def test_parts_of_the_fine_settings_change_them_and_the_coarse_model_has_lengths_and_seed_alone() -> None:
    options = TrainingOptions(settings={"fine": "true", "fine.margin": "3", "learning_rate": "0.1"}, epochs=2, seed=4)
    assert config_of(options).fine == FineConfig(margin=3)
    coarse = resolve_settings(options, {}).config
    assert (coarse.fine, coarse.learning_rate, coarse.epochs, coarse.seed) == (None, 0.003, 2, 4)


def test_fine_is_true_or_false() -> None:
    with pytest.raises(RecordError, match=r"valid boolean.*got maybe"):
        config_of(TrainingOptions(settings={"fine": "maybe"}))


def test_organs_of_xia_are_of_one_piece() -> None:
    options = TrainingOptions(settings={"fine": "true"}, recipe="xia2018")
    assert config_of(options).fine == FineConfig(large_components=True)
    assert config_of(TrainingOptions(recipe="xia2018")).fine is None


def test_pretraining_learns_nothing_about_labels() -> None:
    config = config_of(PretrainingOptions(task="jigsaw", recipe="shivdeo2021"))
    assert (config.epochs, config.threshold, config.foreground_share) == (300, None, 0)
    assert config.pretext is not None
    assert config.pretext.task == "jigsaw"


def test_a_setting_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="no setting 'epoch'"):
        config_of(TrainingOptions(settings={"epoch": "3"}))


def test_a_run_ends_after_a_time_or_a_number_of_updates() -> None:
    with pytest.raises(InputError, match="drop --time-budget"):
        config_of(TrainingOptions(epochs=2, time_budget_s=3))
