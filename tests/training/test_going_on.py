"""The same command means the same training: every pair of what is there and what is asked for."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from seg25d.cli.argument_types import duration
from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder
from seg25d.training.checkpoint import save_checkpoint
from seg25d.training.config import PretrainedConfig, TrainingConfig, apply_settings, length_settings
from seg25d.training.going_on import (
    KeptLength,
    length_words,
    settle_config,
    tell_changes,
    tell_kept_lengths,
)
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]
RECIPE = TrainingConfig(epochs=5)
WORDS: dict[str, tuple[int | None, int | None, float | None]] = {
    "default": (None, None, None),
    "epochs": (2, None, None),
    "iterations": (None, 150, None),
    "both": (1, 3, None),
    "budget": (None, None, 20.0),
}
"""`--epochs`, `--iterations`, `--time-budget`."""
LENGTHS = {
    "default": (500, 100, None),
    "epochs": (200, 100, None),
    "iterations": (150, 75, None),
    "both": (3, 3, None),
    "budget": (500, 100, 20.0),
}
"""Updates, updates per epoch and seconds that they mean."""
THERE: dict[str, tuple[tuple[int | None, int | None, float | None], int, float, bool]] = {
    "begun short": ((1, 3, None), 1, 0.5, False),
    "begun default": ((None, None, None), 180, 30.0, False),
    "begun budget": ((None, None, 60.0), 180, 30.0, False),
    "trained short": ((1, 3, None), 3, 1.5, True),
    "trained default": ((None, None, None), 500, 80.0, True),
    "trained budget": ((None, None, 10.0), 190, 10.1, True),
}
"""Words that it was begun with; updates and seconds that are done; whether that is all."""
REFUSED = {
    ("begun default", "epochs"),  # 200 of 500 updates
    ("begun default", "iterations"),
    ("begun default", "both"),
    ("begun default", "budget"),  # 20 s, of which 30 are over
    ("begun budget", "iterations"),  # 150 updates, of which 180 are done
    ("begun budget", "both"),
    ("begun budget", "budget"),  # 20 of 60 s
    ("trained default", "epochs"),
    ("trained default", "iterations"),
    ("trained default", "both"),
    ("trained default", "budget"),
    ("trained budget", "iterations"),
    ("trained budget", "both"),
}


def asked_for(words: tuple[int | None, int | None, float | None]) -> dict[str, str]:
    return length_settings(*words, RECIPE.iterations_per_epoch)


def begun(root: Path, there: str) -> FoldFolder:
    """A fold of which so much is done."""
    words, updates, seconds, finished = THERE[there]
    folder = FoldFolder(root=root / "si" / "fold_0")
    write_record(folder.config, apply_settings(RECIPE, asked_for(words)))
    save_checkpoint(folder.checkpoint, {"iteration": updates, "seconds": seconds, "finished": finished, "log": []})
    return folder


def length_of(config: TrainingConfig) -> tuple[int, int, float | None]:
    return config.num_iterations(), config.iterations_per_epoch, config.time_budget_seconds


@pytest.mark.parametrize("asked", WORDS)
def test_where_nothing_is_there_the_words_decide(asked: str, tmp_path: Path) -> None:
    config = settle_config(FoldFolder(root=tmp_path), RECIPE, asked_for(WORDS[asked]))
    assert length_of(config) == LENGTHS[asked]


@pytest.mark.parametrize("asked", WORDS)
@pytest.mark.parametrize("there", THERE)
def test_what_is_there_goes_on_to_more_and_never_to_less(
    there: str, asked: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, changes = begun(tmp_path, there), asked_for(WORDS[asked])
    before = folder.config.read_text()
    if (there, asked) in REFUSED:
        with pytest.raises(InputError, match=r"si/fold_0 is .* is not longer: .* --restart"):
            settle_config(folder, RECIPE, changes)
        return
    config = settle_config(folder, RECIPE, changes)
    assert length_of(config) == LENGTHS[asked]
    with caplog.at_level(logging.INFO, "seg25d"):
        tell_changes(folder, config, apply_settings(RECIPE, changes))
    same = apply_settings(RECIPE, asked_for(THERE[there][0])) == apply_settings(RECIPE, changes)
    assert len(caplog.messages) == (0 if same else 1)
    assert same or f"it goes on to what is asked for, {config.length.describe()}" in caplog.messages[0]
    assert folder.config.read_text() == before, "nothing is written yet"


def test_the_error_names_what_is_done_and_the_words_that_go_on(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        settle_config(begun(tmp_path, "begun budget"), RECIPE, asked_for((1, 3, None)))
    message = str(error.value)
    assert "is a time budget of 1 min 0 s (180 updates in 30.0 s are done)" in message
    assert "3 updates (1 epoch of 3). Ask for the same (--time-budget 60s)" in message


@pytest.mark.parametrize("words", WORDS)
def test_the_words_of_the_cure_give_the_same_length(words: str) -> None:
    config = apply_settings(RECIPE, asked_for(WORDS[words]))
    expected = {
        "default": "no words for the length",
        "epochs": "--epochs 2",
        "iterations": "--epochs 2 --iterations 150",
        "both": "--epochs 1 --iterations 3",
        "budget": "--time-budget 20s",
    }
    assert length_words(config, RECIPE) == expected[words]
    assert apply_settings(RECIPE, asked_for((2, 150, None))) == apply_settings(RECIPE, asked_for((None, 150, None)))


@pytest.mark.parametrize(("finished", "epochs_of"), [(False, 100), (True, 50)])
def test_other_epochs_of_the_same_length_are_told_and_taken_where_they_can_be(
    finished: bool, epochs_of: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FoldFolder(root=tmp_path / "si" / "fold_0")
    write_record(folder.config, apply_settings(RECIPE, asked_for((4, 200, None))))
    save_checkpoint(folder.checkpoint, {"iteration": 200, "seconds": 9.0, "finished": finished, "log": []})
    changes = asked_for((2, None, None))
    config = settle_config(folder, RECIPE, changes)
    assert length_of(config) == (200, epochs_of, None)
    with caplog.at_level(logging.INFO, "seg25d"):
        tell_changes(folder, config, apply_settings(RECIPE, changes))
    assert ("other epochs" in caplog.text, "it goes on to" in caplog.text) == (finished, not finished)


def test_a_length_by_set_is_a_length_too(tmp_path: Path) -> None:
    folder = begun(tmp_path, "trained short")
    assert length_of(settle_config(folder, RECIPE, {"epochs": "7"})) == (700, 100, None)
    assert length_of(settle_config(folder, RECIPE, {"iterations_per_epoch": "50"})) == (250, 50, None)
    with pytest.raises(InputError, match="not longer"):
        settle_config(folder, RECIPE, {"iterations": "2"})


def test_going_on_keeps_all_other_settings_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = FoldFolder(root=tmp_path)
    config = settle_config(folder, RECIPE, {"learning_rate": "0.01"})
    assert not folder.config.exists()
    write_record(folder.config, config)
    save_checkpoint(folder.checkpoint, {"iteration": 1, "seconds": 9.0, "finished": False, "log": []})
    assert settle_config(folder, RECIPE, {}) == config
    with caplog.at_level(logging.INFO, "seg25d"):
        tell_changes(folder, config, RECIPE)
    assert "it keeps the settings that it was begun with (learning_rate)" in caplog.text
    with pytest.raises(InputError, match=r"weight_decay.*--restart"):
        settle_config(folder, RECIPE, {"weight_decay": "0"})


def test_another_file_to_begin_with_is_another_setting(tmp_path: Path) -> None:
    folder, recipe = begun(tmp_path, "begun short"), RECIPE
    recipe = recipe.model_copy(update={"pretrained": PretrainedConfig(file="a", digest="1")})
    with pytest.raises(InputError, match=r"other settings \(pretrained\)"):
        settle_config(folder, recipe, {})


def test_models_that_others_need_are_told_together(caplog: pytest.LogCaptureFixture) -> None:
    short = apply_settings(RECIPE, asked_for((1, 3, None)))
    models = [KeptLength("axial fold_0", short, RECIPE), KeptLength("axial pair_0_1", short, RECIPE)]
    with caplog.at_level(logging.INFO, "seg25d"):
        tell_kept_lengths([*models, KeptLength("coronal fold_0", RECIPE, RECIPE)])
    assert caplog.messages == [
        "needed too, and kept at the length that was begun with, 3 updates (1 epoch of 3), not 500 updates (5 epochs "
        "of 100): axial fold_0, axial pair_0_1"
    ]


def test_a_training_goes_on_to_epochs_of_another_length_and_ends_where_it_is_told(make_job: Maker) -> None:
    short = make_job("a", epochs=1, iterations=3, iterations_per_epoch=3)
    train_fold(short)
    train_fold(make_job("a", epochs=2, iterations_per_epoch=4))
    lines = [json.loads(line) for line in short.folder.log.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [3, 4, 8]
    train_fold(
        make_job("a", epochs=500, iterations_per_epoch=100, time_budget_seconds=lines[-1]["total_seconds"] + 0.5)
    )
    lines = [json.loads(line) for line in short.folder.log.read_text().splitlines()]
    assert lines[-1]["iteration"] > 8
    assert lines[-1]["progress"] == 1


def put(root: Path, words: dict[str, str], done: tuple[int, float, bool], losses: tuple[float, ...] = ()) -> FoldFolder:
    """A fold that was begun with these settings; updates, seconds, and whether that is all."""
    folder = FoldFolder(root=root / "si" / "fold_0")
    write_record(folder.config, apply_settings(RECIPE, words))
    log = [{"validation_loss": loss} for loss in losses]
    state = dict(zip(("iteration", "seconds", "finished"), done, strict=True))
    save_checkpoint(folder.checkpoint, state | {"log": log})
    return folder


def told(folder: FoldFolder, words: dict[str, str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said where this is asked for."""
    config = settle_config(folder, RECIPE, words)
    with caplog.at_level(logging.INFO, "seg25d"):
        tell_changes(folder, config, apply_settings(RECIPE, words))
    return caplog.messages


def test_the_same_length_in_other_words_is_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = put(tmp_path, asked_for((2, 200, None)), (200, 9.0, True))
    assert told(folder, asked_for((2, None, None)), caplog) == []


def test_other_epochs_of_a_time_budget_are_told_in_words_that_differ(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = put(tmp_path, asked_for((None, None, 4.0)), (90, 4.5, True))
    assert told(folder, asked_for((None, None, 4.0)) | {"epochs": "7"}, caplog) == [
        "si fold_0: it is trained to the end, in a time budget of 4 s, with epochs of 100 at the most and 5 in the "
        "schedule; asked for are other epochs, a time budget of 4 s, with epochs of 100 at the most and 7 in the "
        "schedule, with which --restart trains it anew"
    ]


def test_a_time_that_is_over_already_is_not_longer(tmp_path: Path) -> None:
    folder = put(tmp_path, asked_for((None, None, 4.0)), (90, 4.5, True))
    with pytest.raises(InputError, match=r"4 s, .* in 4.5 s are done.*4\.0000001 s, .*same \(--time-budget 4s\)"):
        settle_config(folder, RECIPE, asked_for((None, None, 4.0000001)))
    assert settle_config(folder, RECIPE, asked_for((None, None, 4.6))).time_budget_seconds == 4.6


@pytest.mark.parametrize("seconds", [1080000.0, 4.0000001, 1e-05, 900.0, 20.5])
def test_times_are_written_so_that_they_can_be_read(seconds: float) -> None:
    words = length_words(apply_settings(RECIPE, asked_for((None, None, seconds))), RECIPE)
    assert duration(words.removeprefix("--time-budget ")) == seconds


def test_a_run_that_early_stopping_ended_stays_and_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = {"early_stopping": "2"}
    folder = put(tmp_path, recipe | asked_for((4, None, None)), (300, 9.0, True), (0.1, 0.2, 0.3))
    (message,) = told(folder, recipe | asked_for((9, None, None)), caplog)
    assert (
        "early_stopping has ended it, in a training of at most 400 updates (4 epochs of 100); asked for is" in message
    )


def test_epochs_that_do_not_fit_come_on_top(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = put(tmp_path, asked_for((1, 2, None)), (2, 1.0, True), (0.5,))
    (message,) = told(folder, asked_for((2, None, None)), caplog)
    assert message.endswith(
        "2 updates (1 epoch of 2); it goes on to what is asked for, 200 updates (2 epochs of 100), "
        "beside the 1 epoch of before"
    )


def test_settings_that_are_lost_or_damaged_come_with_the_cure(tmp_path: Path) -> None:
    folder = begun(tmp_path, "begun short")
    for damage, word in ((lambda: folder.config.write_text("{"), "JSON"), (folder.config.unlink, "does not exist")):
        damage()
        with pytest.raises(RecordError, match=rf"config\.json .*{word}.*; restore it from a copy, or .* --restart"):
            settle_config(folder, RECIPE, {})


def test_a_model_without_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    folder = FoldFolder(root=tmp_path / "si" / "fold_0")
    folder.root.mkdir(parents=True)
    folder.model_final.touch()
    for words in ({}, asked_for((1, 1, None))):
        with pytest.raises(InputError, match=r"no checkpoint .* as models that were installed; .* with --restart"):
            settle_config(folder, RECIPE, words)
