"""Settings by name, and lengths of runs."""

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.training.config import TrainingConfig, apply_settings, length_settings
from seg25d.training.recipes import find_recipe


def test_settings_are_found_by_name_and_read_as_json() -> None:
    settings = {
        "learning_rate": "0.01",
        "augmentation.noise": "0",
        "schedule": "poly",
        "augmentation.scaling": "[1, 2]",
    }
    config = apply_settings(TrainingConfig(), settings)
    assert (config.learning_rate, config.augmentation.noise, config.schedule) == (0.01, 0, "poly")
    assert config.augmentation.scaling == (1, 2)


@pytest.mark.parametrize("key", ["learning_rte", "augmentation", "augmentation.nose", "seed.x"])
def test_unknown_settings_list_the_known_ones(key: str) -> None:
    with pytest.raises(InputError, match=r"augmentation\.noise"):
        apply_settings(TrainingConfig(), {key: "1"})


@pytest.mark.parametrize(
    ("key", "runs"), [("pretrained.frozen_epochs", "runs with --pretrained"), ("pretext.piece", "`seg25d pretrain`")]
)
def test_settings_of_other_runs_say_of_which(key: str, runs: str) -> None:
    with pytest.raises(InputError, match=f"there is no setting '{key}' in this run, only in {runs}"):
        apply_settings(TrainingConfig(), {key: "1"})


def test_values_that_do_not_fit_name_the_place() -> None:
    with pytest.raises(RecordError, match=r"augmentation\.noise.*got 3"):
        apply_settings(TrainingConfig(), {"augmentation.noise": "3"})


def test_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="default"):
        find_recipe("defualt")


@pytest.mark.parametrize(
    ("epochs", "iterations", "expected"),
    [(None, None, 500 * 100), (3, None, 300), (None, 7, 7), (2, 10, 10), (3, 10, 10), (None, 250, 250)],
)
def test_lengths(epochs: int | None, iterations: int | None, expected: int) -> None:
    config = apply_settings(TrainingConfig(), length_settings(epochs, iterations, None, 100))
    assert config.num_iterations() == expected
    if epochs:
        assert -(-expected // config.iterations_per_epoch) == epochs


def test_a_time_and_a_number_contradict_each_other() -> None:
    assert length_settings(None, None, 60.0, 100) == {"time_budget_seconds": "60.0"}
    with pytest.raises(InputError, match="time-budget"):
        length_settings(3, None, 60.0, 100)
