"""Who makes the batches of a training: where windows are augmented, and by how many processes they are prepared."""

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seg25d.core.device import Execution
from seg25d.planning.model_file import load_model
from seg25d.training import loading, supply, trainer
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.loading import (
    BATCHES_AHEAD,
    batches_ahead,
    choose_num_loaders,
    fitting_loaders,
    make_loader,
    more_loaders,
    next_batch,
)
from seg25d.training.sampling import CACHE_BYTES, Regions, WindowSource
from seg25d.training.state import TrainingState, new_state
from seg25d.training.supply import SETTLING, WATCHED, Supply
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]
EXECUTION = Execution(torch.device("cpu"), torch.float32)
STRONG = {"spatial": 1.0, "noise": 1.0}


@pytest.fixture
def _like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "WATCHED_DEVICES", frozenset({"cpu"}))


def supply_of(job: FoldJob, num_loaders: int | None = 0) -> tuple[Supply, TrainingState]:
    state = new_state(job.header.build_model(), job.config, EXECUTION)
    source = WindowSource(job.store, job.header.plan, job.config, {"train": job.split.train, "validate": job.split.val})
    return Supply(source, state, EXECUTION, num_loaders), state


def update(supplied: Supply, state: TrainingState, number: int, *, waited: float) -> None:
    """So many updates of 0.1 s, after some waiting."""
    for _ in range(number):
        supplied.training_batch()
        supplied.waited = waited
        supplied.note(waited + 0.1)
        state.iteration += 1


@pytest.mark.usefixtures("_like_a_gpu")
def test_augmentation_moves_to_a_gpu_that_waits(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supply, "time_batch", lambda *_: (0.0, 0.02))
    supplied, state = supply_of(make_job("a", augmentation=STRONG, iterations_per_epoch=1000))
    supplied.start()
    update(supplied, state, SETTLING + WATCHED, waited=0.2)
    assert state.augmented_on == ""
    with caplog.at_level(logging.INFO):
        images, target = supplied.training_batch()
    assert state.augmented_on == "device"
    assert "augmentation on the GPU: 0 loaders deliver 3.33 batches/s, updates take 10/s, with it 8.33/s" in caplog.text
    regions = supplied.source["train", SETTLING + WATCHED]
    assert isinstance(regions, Regions)
    wanted = supplied.source.finish_batch(regions, supplied.device)
    assert torch.equal(images, wanted[0])
    assert torch.equal(target, wanted[1])


@pytest.mark.usefixtures("_like_a_gpu")
@pytest.mark.parametrize(
    ("waited", "on_device"), [pytest.param(0.01, 0.0, id="no wait"), pytest.param(0.2, 0.175, id="no gain")]
)
def test_augmentation_stays_with_the_loaders_where_moving_saves_nothing(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, waited: float, on_device: float
) -> None:
    monkeypatch.setattr(supply, "time_batch", lambda *_: (0.0, on_device))
    supplied, state = supply_of(make_job("a", augmentation=STRONG, iterations_per_epoch=1000))
    supplied.start()
    update(supplied, state, SETTLING + WATCHED + 1, waited=waited)
    assert state.augmented_on == "loaders"
    assert supplied.source.augments
    assert not supplied.watching


@pytest.mark.usefixtures("_like_a_gpu")
def test_a_device_without_room_for_augmentation_leaves_it_to_the_loaders(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: WindowSource, *_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(supply, "time_batch", fail)
    supplied, state = supply_of(make_job("a", augmentation=STRONG, iterations_per_epoch=1000))
    supplied.start()
    update(supplied, state, SETTLING + WATCHED + 1, waited=0.2)
    assert state.augmented_on == "loaders"
    assert supplied.source.augments


@pytest.mark.usefixtures("_like_a_gpu")
def test_what_was_ready_before_does_not_count(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "time_batch", lambda *_: (0.0, 0.0))
    monkeypatch.setattr(supply, "make_loader", lambda source, first, *_, **__: (source["train", 0] for _ in range(99)))
    supplied, state = supply_of(make_job("a"), num_loaders=8)
    supplied.start()
    update(supplied, state, SETTLING + 8 * BATCHES_AHEAD, waited=0.0)
    update(supplied, state, WATCHED + 1, waited=0.2)
    assert state.augmented_on == "device"


@pytest.mark.usefixtures("_like_a_gpu")
def test_more_loaders_come_while_the_device_waits(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []

    def make(source: WindowSource, first: int, number: int, *_: Any, **__: Any) -> Any:
        numbers.append(number)
        return (source["train", 0] for _ in range(999))

    monkeypatch.setattr(supply, "make_loader", make)
    monkeypatch.setattr(supply, "more_loaders", lambda number, _: min(2 * number, 3))
    monkeypatch.setattr(supply, "time_batch", lambda *_: (0.0, 1.0))
    monkeypatch.setattr(supply, "choose_num_loaders", lambda requested, _: requested or 1)
    for requested, wanted in ((None, [1, 2, 3]), (1, [1])):
        supplied, state = supply_of(make_job("a"), requested)
        numbers.clear()
        supplied.start()
        update(supplied, state, 4 * (SETTLING + 3 * BATCHES_AHEAD + WATCHED), waited=0.3)
        assert numbers == wanted
        assert state.augmented_on == "loaders"


def test_on_a_cpu_nothing_is_watched_and_nothing_moves(make_job: Maker) -> None:
    supplied, state = supply_of(make_job("a", iterations_per_epoch=1000), num_loaders=None)
    supplied.num_loaders = 0
    state.augmented_on = "device"  # as after a beginning on a GPU
    supplied.start()
    update(supplied, state, SETTLING + WATCHED + 1, waited=1.0)
    assert supplied.source.augments
    assert state.augmented_on == "device"


@pytest.mark.usefixtures("_like_a_gpu")
def test_without_augmentation_nothing_is_decided(make_job: Maker) -> None:
    supplied, _ = supply_of(make_job("a", augmentation={"enabled": False}))
    assert supplied.place == "loaders"
    assert not supplied.watching


def losses_and_weights(job: FoldJob) -> tuple[list[float], dict[str, torch.Tensor]]:
    train_fold(job)
    log = load_checkpoint(job.folder.checkpoint)["log"]
    return [line[key] for line in log for key in ("train_loss", "validation_loss")], load_model(job.folder.model_final)[
        1
    ]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


ON_DEVICE = {"augmentation": {**STRONG, "place": "device"}, "epochs": 2}


@pytest.mark.slow
def test_a_training_with_augmentation_on_its_device_is_the_same_with_any_loaders(make_job: Maker) -> None:
    losses, weights = losses_and_weights(make_job("a", **ON_DEVICE))
    assert all(0 < loss < 3 for loss in losses)
    again = losses_and_weights(replace(make_job("b", **ON_DEVICE), num_workers=2))
    assert again[0] == losses
    assert same(again[1], weights)
    by_loaders = losses_and_weights(make_job("c", epochs=2, augmentation=STRONG))
    assert by_loaders[0] != losses
    assert by_loaders[0] == pytest.approx(losses, rel=0.3)


@pytest.mark.slow
@pytest.mark.usefixtures("_like_a_gpu")
def test_a_training_goes_on_where_it_was_augmented_before(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `auto` came to holds from the first update on, to the very same bits as in a training that was not cut."""
    settings: dict[str, Any] = {"augmentation": STRONG, "iterations_per_epoch": 2, "epochs": 3}
    monkeypatch.setattr(supply, "SETTLING", 0)
    monkeypatch.setattr(supply, "WATCHED", 1)
    monkeypatch.setattr(supply, "MARGIN", -1e9)
    whole = make_job("whole", **settings)
    _, weights = losses_and_weights(whole)
    assert load_checkpoint(whole.folder.checkpoint)["augmented_on"] == "device"

    helped = replace(make_job("helped", **settings), num_workers=1)
    train_fold(helped)
    assert load_checkpoint(helped.folder.checkpoint)["augmented_on"] == "device"

    cut, step = make_job("cut", **settings), trainer._Run._step

    def step_and_signal(run: trainer._Run, *arguments: Any) -> float:
        if run.state.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Run, "_step", step_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train_fold(cut)
    monkeypatch.setattr(Supply, "_adapt", lambda _: pytest.fail("it was decided"))
    assert same(losses_and_weights(cut)[1], weights)


def test_a_training_of_an_older_version_stays_with_its_loaders(make_job: Maker) -> None:
    job = make_job("a", epochs=1)
    train_fold(job)
    content = torch.load(job.folder.checkpoint, weights_only=True)
    assert content["augmented_on"] == ""
    del content["augmented_on"]
    torch.save(content, job.folder.checkpoint)
    train_fold(make_job("a", epochs=2))
    assert load_checkpoint(job.folder.checkpoint)["augmented_on"] == "loaders"


def test_loaders_grow_with_cores_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr(loading, "available_memory_bytes", lambda: 64 << 30)
    monkeypatch.setattr(loading, "check_num_processes", lambda _: None)
    monkeypatch.setattr(loading, "check_open_files", lambda *_: None)
    monkeypatch.setattr(loading, "available_cores", lambda: 25)
    assert choose_num_loaders(None, Execution(torch.device("meta"), torch.float32)) == 8
    assert [more_loaders(number, 1 << 20) for number in (0, 8, 16, 24)] == [0, 16, 24, 24]
    # 16 processes with three batches of 400 MB each would take 19 of 64 GB.
    assert more_loaders(8, 400 << 20) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert more_loaders(8, 1 << 20) == 11


@pytest.mark.parametrize("name", ["check_num_processes", "check_open_files"])
def test_loaders_do_not_grow_beyond_what_the_system_holds(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: Any) -> None:
        raise loading.InputError("no more")

    monkeypatch.setattr(loading, "available_memory_bytes", lambda: 64 << 30)
    monkeypatch.setattr(loading, "available_cores", lambda: 25)
    monkeypatch.setattr(loading, "SHARED_MEMORY", Path("/nowhere"))
    assert more_loaders(2, 1) == 4
    monkeypatch.setattr(loading, name, refuse)
    assert more_loaders(2, 1) == 2


@pytest.fixture
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loading, supply):
        monkeypatch.setattr(module, "available_memory_bytes", lambda: 128 << 30)
    monkeypatch.setattr(loading, "SHARED_MEMORY", Path("/nowhere"))


LARGE_BATCH = 8 * 48 * 512 * 512 * (4 + 1)
"""Of the plan of `axial` for a CT and 140 GB: 503 MB."""


@pytest.mark.usefixtures("_large_machine")
def test_batches_that_wait_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (fitting_loaders(8, LARGE_BATCH), batches_ahead(8, LARGE_BATCH)) == (8, 1)
    assert [batches_ahead(number, LARGE_BATCH) for number in (1, 2, 4)] == [3, 3, 2]
    assert fitting_loaders(64, LARGE_BATCH) == more_loaders(8, LARGE_BATCH) == 8
    assert (fitting_loaders(8, 1 << 20), batches_ahead(8, 1 << 20)) == (8, BATCHES_AHEAD)
    assert (fitting_loaders(0, LARGE_BATCH), batches_ahead(0, LARGE_BATCH)) == (0, BATCHES_AHEAD)
    assert (fitting_loaders(8, 1 << 40), batches_ahead(8, 1 << 40)) == (1, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert fitting_loaders(8, LARGE_BATCH) == 2
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(loading, "available_memory_bytes", lambda: 8 << 30)
    assert fitting_loaders(8, LARGE_BATCH) == 4


@pytest.mark.usefixtures("_large_machine")
@pytest.mark.parametrize(("requested", "loaders", "ahead"), [(None, 4, 1), (2, 2, 2), (8, 8, 1)])
def test_the_plan_says_how_many_batches_wait(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, requested: int | None, loaders: int, ahead: int
) -> None:
    """Who asks for a number of processes gets it."""
    asked: list[tuple[int, int]] = []

    def make(source: WindowSource, first: int, number: int, *_: Any, **words: Any) -> Any:
        asked.append((number, words["ahead"]))
        return (source["train", each] for each in range(99))

    job = make_job("a")
    images, target = supply_of(job)[0].source["train", 0]
    monkeypatch.setattr(supply, "make_loader", make)
    monkeypatch.setattr(supply, "choose_num_loaders", lambda requested, _: requested or 8)
    monkeypatch.setattr(loading, "QUEUE_BYTES", 4 * (images.nbytes + target.nbytes))
    supplied, _ = supply_of(job, requested)
    supplied.start()
    assert supplied.batch_bytes == images.nbytes + target.nbytes
    assert asked == [(loaders, ahead)]
    assert supplied.source.cache.limit_bytes == CACHE_BYTES // loaders


@pytest.mark.usefixtures("_like_a_gpu")
def test_regions_take_less_than_is_reckoned_for_them(make_job: Maker) -> None:
    supplied, state = supply_of(make_job("a"))
    state.augmented_on = "device"
    supplied.source.augments = False
    regions = [supplied.source["train", number] for number in range(20)]
    assert sum(each.images.nbytes + each.labels.nbytes for each in regions) < 20 * supplied.batch_bytes


@pytest.mark.slow
def test_the_same_batches_come_in_the_same_order_whatever_waits(make_job: Maker) -> None:
    source = supply_of(make_job("a"))[0].source
    wanted = [source["train", number] for number in range(7)]
    for number, ahead in ((1, 1), (3, 1), (2, 3)):
        batches = make_loader(source, 0, number, torch.device("cpu"), validate=False, ahead=ahead)
        for images, target in wanted:
            found = next_batch(batches)
            assert torch.equal(found[0], images)
            assert torch.equal(found[1], target)
