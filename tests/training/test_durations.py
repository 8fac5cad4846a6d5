"""How long trainings take, reckoned by hand."""

from collections.abc import Callable

import pytest

from seg25d.core.errors import ModelError
from seg25d.core.records import write_record
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.training.checkpoint import save_checkpoint
from seg25d.training.durations import (
    describe_training,
    expected_seconds,
    expected_updates,
    format_duration,
    format_update,
    is_trained,
    share_left,
)
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]
# Batches of 2: 8 validation windows of two cases are 4 batches, each a third of an update, after every 4 updates.
FACTOR = 1 + 4 / 3 / 4


def test_updates_and_the_look_at_validation_windows_take_the_time(make_job: Maker) -> None:
    job = make_job("a")
    assert expected_seconds(job.config, job.header.plan, 2, 0.5) == pytest.approx(12 * 0.5 * FACTOR)
    few = job.config.model_copy(update={"validation_windows": 2})
    assert expected_seconds(few, job.header.plan, 2, 0.5) == pytest.approx(12 * 0.5 * (1 + 1 / 3 / 4))
    budget = job.config.model_copy(update={"time_budget_seconds": 60.0})
    assert expected_seconds(budget, job.header.plan, 2, 0.5) == 60
    # The fine network of an RSTN passes again and again when it scores.
    unet = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2)
    twice = job.header.plan.model_copy(update={"network": RSTNSpec(network=unet)})
    assert expected_seconds(job.config, twice, 2, 0.5) == pytest.approx(12 * 0.5 * (1 + 4 / 2 / 4))


@pytest.mark.parametrize(("seconds", "updates"), [(900, 1300), (60, 90), (6, 9), (0.1, 1)])
def test_a_budget_has_room_for_a_number_in_two_digits(make_job: Maker, seconds: float, updates: int) -> None:
    job = make_job("a")
    assert expected_updates(job.config, job.header.plan, 2, 0.5, seconds) == updates


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (8.4, "8 s"), (250, "4 min"), (7500, "2 h 5 min"), (172800, "2 days"), (1e6, "11.6 days")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == f"about {words}"


def test_seconds_of_an_update_have_two_digits() -> None:
    assert [format_update(each) for each in (0.01234, 1.26, 45.6)] == ["0.012 s", "1.3 s", "46 s"]


def test_what_is_left_is_in_the_checkpoint_whatever_is_left_of_the_log(make_job: Maker) -> None:
    job = make_job("a", epochs=4)
    assert share_left(job.folder, job.config) == 1
    log = [{"validation_loss": 0.1 * n} for n in (1, 2, 3)]
    save_checkpoint(job.folder.checkpoint, {"iteration": 12, "seconds": 9.0, "finished": False, "log": log})
    job.folder.log.write_text('{"iteration": 4}\n{"iter')
    assert share_left(job.folder, job.config) == 0.25
    assert share_left(job.folder, job.config.model_copy(update={"epochs": 2})) == 0
    assert share_left(job.folder, job.config.model_copy(update={"time_budget_seconds": 18.0})) == 0.5
    assert share_left(job.folder, job.config.model_copy(update={"early_stopping": 2})) == 0
    save_checkpoint(job.folder.checkpoint, {"iteration": 12})
    with pytest.raises(ModelError, match="is not a checkpoint"):
        share_left(job.folder, job.config)


def test_a_model_is_done_when_the_length_of_its_settings_is(make_job: Maker) -> None:
    job = make_job("a", epochs=3)
    assert not is_trained(job.folder)
    write_record(job.folder.config, job.config)
    job.folder.model_final.touch()
    assert is_trained(job.folder), "installed"
    state = {"iteration": 12, "seconds": 9.0, "finished": True, "log": []}
    save_checkpoint(job.folder.checkpoint, state)
    assert is_trained(job.folder)
    save_checkpoint(job.folder.checkpoint, state | {"finished": False})
    assert not is_trained(job.folder)
    save_checkpoint(job.folder.checkpoint, state)
    write_record(job.folder.config, job.config.model_copy(update={"epochs": 30}))
    assert not is_trained(job.folder), "a longer training was cut off before its first checkpoint"


def test_one_update_is_one(make_job: Maker) -> None:
    job = make_job("a", epochs=1, iterations=1)
    assert describe_training(job.config, job.header.plan, 2, 0.5, [1]).startswith("1 update, about ")


def test_a_training_is_told_with_what_less_would_give(make_job: Maker) -> None:
    job = make_job("a", epochs=10_000)
    words = describe_training(job.config, job.header.plan, 2, 0.5, [1, 1])
    assert words == (
        "80,000 updates, about 14 h 48 min at 0.5 s per update on this machine; --time-budget 15min would be about "
        "1,300 updates each"
    )
    stopping = job.config.model_copy(update={"early_stopping": 5, "epochs": 2})
    assert describe_training(stopping, job.header.plan, 2, 0.5, [0.5]) == (
        "4 updates to go, about 3 s, or less (early_stopping) at 0.5 s per update on this machine"
    )
    budget = job.config.model_copy(update={"time_budget_seconds": 60.0})
    assert describe_training(budget, job.header.plan, 2, 0.5, [1]) == (
        "1 min 0 s of training, in which there is time for about 90 updates at 0.5 s per update on this machine"
    )
