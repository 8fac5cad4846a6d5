"""Seconds of an update: timed once per machine and plan, and without a trace in what is trained."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.processor import cache_folder
from seg25d.data.labels import Labels
from seg25d.planning.pretext import PretextConfig
from seg25d.representations.projections.method import Projections
from seg25d.training import timing
from seg25d.training.config import AugmentationConfig, TrainingConfig
from seg25d.training.timing import Training, measure, seconds_per_update
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def to_time(job: FoldJob, **changes: object) -> Training:
    execution = choose_execution("cpu", "float32")
    training = Training("si", job.header.plan, job.config, job.header.description, execution, job.store)
    return training._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "_TIMED", {})


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """What was timed, half a second each."""
    calls: list[Training] = []

    def count(training: Training) -> float:
        calls.append(training)
        return 0.5

    monkeypatch.setattr(timing, "measure", count)
    return calls


def losses(job: FoldJob) -> list[float]:
    train_fold(job)
    return [json.loads(line)["train_loss"] for line in job.folder.log.read_text().splitlines()]


def test_a_training_is_the_same_bit_for_bit_whether_it_was_timed_before_or_not(make_job: Maker) -> None:
    alone = losses(make_job("a"))
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    job = make_job("b")
    assert measure(to_time(job)) > 0
    assert torch.equal(torch.rand(3), drawn)
    assert losses(job) == alone


def test_a_number_is_timed_once_and_read_by_other_processes(
    make_job: Maker, timed: list[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = to_time(make_job("a"))
    assert seconds_per_update(training) == seconds_per_update(training) == 0.5
    monkeypatch.setattr(timing, "_TIMED", {})
    assert seconds_per_update(training) == 0.5
    assert len(timed) == 1
    (file,) = cache_folder().glob("timing_*.json")
    file.write_text(file.read_text().replace('"version": 1', '"version": 2') + "x")
    monkeypatch.setattr(timing, "_TIMED", {})
    assert seconds_per_update(training) == 0.5
    assert len(timed) == 2, "a damaged file is no reason to fail"


def test_other_conditions_are_timed_again(make_job: Maker, timed: list[Training]) -> None:
    first = to_time(make_job("a"))
    larger = first.plan.model_copy(update={"batch_size": 3})
    explained = first.plan.model_copy(update={"reasons": {"window": "said in other words"}})
    others = [
        first._replace(plan=larger),
        first._replace(config=first.config.model_copy(update={"optimizer": "sgd"})),
        first._replace(config=first.config.model_copy(update={"augmentation": AugmentationConfig(enabled=False)})),
        first._replace(num_loaders=1),
        first._replace(store=None),
        first._replace(execution=choose_execution("cpu", "bfloat16")),
    ]
    same = [
        first._replace(plan=explained),
        first._replace(config=first.config.model_copy(update={"epochs": 7, "seed": 3, "learning_rate": 0.5})),
    ]
    for each in (first, *others, *same):
        seconds_per_update(each)
    assert len(timed) == 1 + len(others)


def test_nothing_is_kept_where_nothing_can_be_written(
    make_job: Maker, timed: list[Training], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    training = to_time(make_job("a"))
    assert seconds_per_update(training) == seconds_per_update(training) == 0.5
    assert len(timed) == 1


def test_too_little_memory_is_a_warning(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Training) -> float:
        raise InputError("the memory of cpu is too small")

    monkeypatch.setattr(timing, "measure", fail)
    assert seconds_per_update(to_time(make_job("a"))) is None
    assert "the memory of cpu is too small" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_regions_pretraining_projections_and_any_batch_can_be_timed(
    make_job: Maker, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "SECONDS", 0)
    job = make_job("a")
    plan = job.header.plan.model_copy(update={"batch_size": batch_size})
    assert measure(to_time(job, plan=plan)) > 0
    regions = job.header.description.model_copy(update={"labels": REGIONS})
    assert measure(to_time(job, plan=plan, description=regions, store=None)) > 0
    pretext = job.config.model_copy(update={"pretext": PretextConfig(task="inpainting")})
    assert measure(to_time(job, plan=plan, config=pretext)) > 0
    projections = Projections(axis=0, num_training_views=2, num_views=2, num_classes=1, spacing_mm=(1.0, 1.0, 1.0))
    window = projections.refit((8, 8, 8))
    seen = plan.model_copy(update={"representation": window, "window": (8, 8, 8)})
    assert measure(to_time(job, plan=seen, store=None)) > 0


def test_long_updates_are_timed_with_a_part_of_the_batch(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = timing.make_update

    def record(*arguments: object) -> object:
        sizes.append(len(arguments[2][0]))  # type: ignore[index]
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(timing, "make_update", record)
    monkeypatch.setattr(timing, "SECONDS", 0)
    monkeypatch.setattr(timing, "LONG_UPDATE_S", 1e9)  # however busy the machine is
    job = make_job("a")
    training = to_time(job, plan=job.header.plan.model_copy(update={"batch_size": 6}), store=None)
    measure(training)
    assert sizes == [2, 2, 6, 6]
    sizes.clear()
    monkeypatch.setattr(timing, "LONG_UPDATE_S", 0)
    measure(training)
    assert sizes == [2, 2, 2]


def test_batches_are_prepared_beside_updates_or_between_them(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_time_updates", lambda _: 1.0)
    monkeypatch.setattr(timing, "_time_batches", lambda *_: (3.0, 0.0))
    training = to_time(make_job("a"))
    by_loaders = [measure(training._replace(num_loaders=number)) for number in (0, 1, 2, 8)]
    assert by_loaders == [4.0, 3.0, 1.5, 1.0]


def test_on_a_gpu_the_faster_place_of_the_augmentation_counts(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(place: str) -> float:
        config = TrainingConfig.model_validate({"augmentation": {"place": place}})
        return measure(to_time(make_job("a"), config=config, num_loaders=2))

    monkeypatch.setattr(timing, "_time_updates", lambda _: 1.0)
    monkeypatch.setattr(timing, "_time_batches", lambda _, place: (0.5, 0.2) if place == "device" else (8.0, 0.0))
    assert [seconds(place) for place in ("auto", "loaders", "device")] == [4.0, 4.0, 1.2]
    monkeypatch.setattr(timing, "WATCHED_DEVICES", frozenset({"cpu"}))
    assert seconds("auto") == 1.2


def test_the_augmentation_is_timed_where_it_is_done(make_job: Maker) -> None:
    training = to_time(make_job("a"))
    made, later = (timing._time_batches(training, place) for place in ("loaders", "device"))
    assert min(made[0], *later) > 0
    assert made[1] == 0
