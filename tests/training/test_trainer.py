"""Training: it learns, it goes on exactly, it can be stopped, and several processes do what one does."""

import dataclasses
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from seg25d.core import device
from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError, ModelError, Seg25dError
from seg25d.core.processor import Verdict, this_processor
from seg25d.data.labels import Labels
from seg25d.planning.model_file import load_model
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.representations.projections.method import Projections
from seg25d.training import checkpoint, trainer
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.muon import Muon
from seg25d.training.processes import check_processes
from seg25d.training.state import new_state
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.training.validation import validate

Maker = Callable[..., FoldJob]
TIMES = (
    *("seconds", "total_seconds", "seconds_left", "seconds_per_iteration", "voxels_per_second"),
    *("data_wait_share", "peak_memory_gb"),
)


def read_log(job: FoldJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in job.folder.log.read_text().splitlines()]


def without_times(job: FoldJob) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(job)]


def test_it_learns_a_bright_cube_and_leaves_all_its_files(make_job: Maker) -> None:
    job = make_job("a", epochs=4, iterations_per_epoch=30, weight_averaging=0.9)
    assert train_fold(job)
    log = read_log(job)
    assert [line["epoch"] for line in log] == [1, 2, 3, 4]
    assert log[-1]["validation_dice"] > 0.85
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert job.folder.progress.read_bytes()[:4] == b"\x89PNG"
    for path in (job.folder.model_best, job.folder.model_final):
        header, state = load_model(path)
        header.build_model().load_state_dict(state)
        assert header == job.header


def test_a_finished_fold_is_left_alone_and_can_be_extended(make_job: Maker) -> None:
    job = make_job("a", epochs=1)
    train_fold(job)
    before = job.folder.model_final.stat().st_mtime_ns
    train_fold(job)
    assert job.folder.model_final.stat().st_mtime_ns == before
    train_fold(make_job("a", epochs=2))
    assert len(read_log(job)) == 2


def train_until(iteration: int, job: FoldJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, with a SIGTERM in the update after so many."""
    step = trainer._Run._step

    def step_and_signal(run: trainer._Run, *arguments: Any) -> float:
        if run.state.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Run, "_step", step_and_signal)
        with pytest.raises(KeyboardInterrupt):
            train_fold(job)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iteration": "three"}, "iteration: Input should be a valid integer"),
        ({"log": [{"epoch": 1}]}, r"log\.0\.validation_loss: Field required"),
        ({"model": {"a": torch.tensor([math.nan])}}, "the weights a are NaN"),
        ({"seconds": -1.0}, "seconds: Input should be greater"),
        (None, "Input should be a valid dictionary"),
    ],
)
def test_a_checkpoint_with_other_content_is_named(make_job: Maker, change: Any, words: str) -> None:
    job = make_job("a", epochs=1)
    train_fold(job)
    content = torch.load(job.folder.checkpoint, weights_only=True)
    torch.save([1, 2] if change is None else content | change, job.folder.checkpoint)
    with pytest.raises(ModelError, match=rf"checkpoint_last\.pt[\s\S]*{words}"):
        train_fold(job)


@pytest.mark.parametrize("stop_at", [1, 5, 8, 11])
def test_a_run_that_was_stopped_goes_on_to_the_very_same_bits(
    make_job: Maker, whole: FoldJob, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    cut = make_job("cut")
    train_until(stop_at, cut, monkeypatch)
    assert not cut.folder.model_final.exists()
    train_fold(cut)
    assert without_times(cut) == without_times(whole)
    ours, theirs = (load_model(job.folder.model_final)[1] for job in (cut, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_very_same_bits(make_job: Maker, tmp_path: Path) -> None:
    whole, cut = make_job("whole", epochs=6), make_job("cut", epochs=6)
    train_fold(whole)
    patience = 0.6
    while not cut.folder.model_final.exists():
        child = os.fork()
        if child == 0:
            try:
                train_fold(cut)
            finally:
                os._exit(0)
        # Sooner or later long enough for an epoch, however slow the machine.
        patience *= 1.5
        timer = threading.Timer(patience, os.kill, (child, signal.SIGKILL))
        timer.start()
        os.waitpid(child, 0)
        timer.cancel()
    train_fold(cut)
    assert without_times(cut) == without_times(whole)


def test_loading_processes_give_the_same_losses(make_job: Maker, whole: FoldJob) -> None:
    helped = make_job("helped")
    train_fold(FoldJob(**{**vars(helped), "num_workers": 1}))
    assert without_times(helped) == without_times(whole)


def test_a_time_budget_ends_the_run_and_the_schedule_follows_it(make_job: Maker) -> None:
    job = make_job("a", time_budget_seconds=4, iterations_per_epoch=5, validation_windows=1)
    begun = time.monotonic()
    train_fold(job)
    assert time.monotonic() - begun < 40
    log = read_log(job)
    assert log[-1]["total_seconds"] >= 4
    # The last look at the validation windows may take the end of the budget.
    assert log[-1]["learning_rate"] < 0.3 * job.config.learning_rate


def test_the_look_at_the_validation_windows_is_part_of_a_time_budget(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> tuple[float, dict[str, float]]:
        time.sleep(0.5)
        return 0.5, {"1": 0.5}

    monkeypatch.setattr(trainer, "validate", slow)
    job = make_job("a", time_budget_seconds=1, iterations_per_epoch=2, validation_windows=1)
    train_fold(job)
    log = read_log(job)
    assert len(log) <= 3, "with the looks on top it would be dozens"
    assert log[-1]["total_seconds"] == pytest.approx(sum(line["seconds"] for line in log), rel=0.05)


def test_slow_updates_leave_few_looks_at_the_validation_windows(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look may take a tenth of the budget, and scoring a window takes a third of an update."""
    step, looks = trainer._Run._step, []

    def slow(run: trainer._Run, *arguments: Any) -> float:
        time.sleep(0.4)
        return step(run, *arguments)

    def count(_: torch.nn.Module, batches: Any, *__: Any) -> tuple[float, dict[str, float]]:
        looks.append(len(list(batches)))
        return 0.5, {"1": 0.5}

    monkeypatch.setattr(trainer._Run, "_step", slow)
    monkeypatch.setattr(trainer, "validate", count)
    monkeypatch.setattr(trainer.WindowSource, "num_validation_batches", lambda _: 3)
    train_fold(make_job("timed", time_budget_seconds=1))
    assert set(looks) == {1}
    looks.clear()
    train_fold(make_job("counted", epochs=1, iterations_per_epoch=1))
    assert looks == [3]


LOSSES = (0.9, 0.5, 0.6, 0.5, 0.4, 0.7, 0.45, 0.4, 0.1)
"""Validation losses that are made up: with a patience of three the run ends after epoch 8, and epoch 5 is the best."""
WATCHED: dict[str, object] = {
    "epochs": 20,
    "iterations_per_epoch": 2,
    "schedule": "plateau",
    "schedule_epochs": 2,
    "warmup": 0.0,
    "early_stopping": 3,
    "restore_best": True,
    "validation_windows": 2,
}


def make_up_losses(patch: pytest.MonkeyPatch, job: FoldJob) -> dict[int, dict[str, torch.Tensor]]:
    """Let the epochs of a job have `LOSSES`; gives the weights that were validated, by epoch from 1 on."""
    weights = {}

    def validate(model: torch.nn.Module, batches: Any, *_: Any) -> tuple[float, dict[str, float]]:
        epoch = len(read_log(job)) if job.folder.log.exists() else 0
        weights[epoch + 1] = {name: value.clone() for name, value in model.state_dict().items()}
        assert list(batches)
        # Dice would choose the first epoch.
        return LOSSES[epoch], {"1": 1 - epoch / 100}

    patch.setattr(trainer, "validate", validate)
    return weights


def test_a_run_that_becomes_no_better_ends_and_its_best_epoch_is_kept(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("a", **WATCHED)
    weights = make_up_losses(monkeypatch, job)
    train_fold(job)
    log = read_log(job)
    assert [line["validation_loss"] for line in log] == list(LOSSES[:8])
    # Halved after epochs 3 and 4, and after 6 and 7, which came after the lowest losses of 2 and 5.
    assert [line["learning_rate"] for line in log] == [0.01] * 4 + [0.005] * 3 + [0.0025]
    for path in (job.folder.model_best, job.folder.model_final):
        state = load_model(path)[1]
        assert all(torch.equal(state[name], weights[5][name]) for name in weights[5])
    before = job.folder.model_final.stat().st_mtime_ns
    train_fold(job)
    assert job.folder.model_final.stat().st_mtime_ns == before


@pytest.mark.slow
def test_dropout_goes_on_to_the_very_same_bits_too(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in the network from torch's global generator, as dropout draws it."""
    build = ConfigurationPlan.build_model

    def with_dropout(plan: ConfigurationPlan, *channels: int) -> torch.nn.Module:
        return NoisyModel(build(plan, *channels))

    monkeypatch.setattr(ConfigurationPlan, "build_model", with_dropout)
    whole, cut = make_job("whole"), make_job("cut")
    train_fold(whole)
    train_until(6, cut, monkeypatch)
    torch.rand(7)
    train_fold(cut)
    assert without_times(cut) == without_times(whole)
    seen = NoisyModel.drawn
    assert len(set(seen)) > len(seen) // 3


class NoisyModel(torch.nn.Module):
    drawn: ClassVar[list[float]] = []

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        if self.training:
            images = torch.nn.functional.dropout(images, 0.3)
            self.drawn.append(float(images.sum()))
        return self.model(images)


def test_weights_decay_in_layers_only(make_job: Maker) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GroupNorm(1, 2))
    model.register_parameter("table", torch.nn.Parameter(torch.zeros(4, 4)))
    state = new_state(model, make_job("a").config, choose_execution("cpu"))
    decayed, others = ({id(each) for each in group["params"]} for group in state.optimizer.param_groups)
    assert decayed == {id(model[0].weight)}
    assert decayed | others == {id(each) for each in model.parameters()}


def test_what_several_processes_cannot_train_is_refused(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_job("a").header.plan
    network = plan.network.model_copy(update={"norm": "batch"})
    with_batch_norm = plan.model_copy(update={"network": network})
    check_processes(with_batch_norm, 1, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(plan, 1, 2)
    with pytest.raises(InputError, match=r"batch norm.*train it with one"):
        check_processes(with_batch_norm, 1, 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="3 processes cannot share a batch of 2 windows"):
        check_processes(plan, 1, 2)


def test_a_checkpoint_of_another_optimizer_is_named_with_the_cure(make_job: Maker) -> None:
    job = make_job("a", epochs=1)
    train_fold(job)
    content = torch.load(job.folder.checkpoint, weights_only=True)
    content["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(content, job.folder.checkpoint)
    with pytest.raises(ModelError, match=r"checkpoint_last.pt does not fit .*--restart"):
        train_fold(make_job("a", epochs=2))


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [7, 9, 15])
def test_a_watched_run_that_was_stopped_goes_on_to_the_very_same_bits(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, cut = make_job("whole", **WATCHED), make_job("cut", **WATCHED)
    make_up_losses(monkeypatch, whole)
    train_fold(whole)
    make_up_losses(monkeypatch, cut)
    train_until(stop_at, cut, monkeypatch)
    train_fold(cut)
    assert without_times(cut) == without_times(whole)
    ours, theirs = (load_model(job.folder.model_final)[1] for job in (cut, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("muon", Muon), ("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_optimizers_by_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    config = TrainingConfig.model_validate({"optimizer": name, "momentum": 0.8, "weight_decay": 0.1})
    optimizer = new_state(torch.nn.Conv2d(1, 1, 1), config, choose_execution("cpu", "float32")).optimizer
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]
    assert {group.get("momentum", 0.8) for group in optimizer.param_groups} == {0.8}


def test_gradients_may_be_of_any_size(make_job: Maker) -> None:
    logs = []
    for name, clip in (("free", None), ("wide", 1e9), ("tight", 1e-3)):
        job = make_job(name, gradient_clip=clip, optimizer="sgd", epochs=1)
        train_fold(job)
        logs.append(read_log(job)[0]["train_loss"])
    assert logs[0] == logs[1] != logs[2]


@pytest.mark.parametrize(("threshold", "expected"), [(None, 0.0), (0.2, 2 / 3)])
def test_a_threshold_counts_in_the_look_at_the_validation_windows(threshold: float | None, expected: float) -> None:
    class Constant(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.zeros_like(images[:, 0]), torch.full_like(images[:, 0], -0.8)], 1)

    labels, target = Labels(names={"background": 0, "organ": 1}), torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    target[:, 0] = 1
    batches, execution = [(torch.zeros(1, 1, 2, 2, 2), target)], choose_execution("cpu", "float32")
    dice = validate(Constant(), batches, DiceCrossEntropy(labels), labels, execution, threshold)[1]
    assert dice["1"] == pytest.approx(expected)


def test_regions_and_ignored_voxels_train(make_job: Maker, make_case: Callable[..., None], tmp_path: Path) -> None:
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}, regions_class_order=(1, 2))
    store = Store(tmp_path / "regions")
    rng = np.random.default_rng(2)
    for number in range(6):
        make_case(store, f"case_{number}", rng, num_classes=3)
    job = make_job("regions", labels=labels, store=store, epochs=1)
    train_fold(job)
    assert set(read_log(job)[0]["validation_dice_per_label"]) == {"whole", "core"}


def test_a_damaged_checkpoint_is_named_with_the_cure(make_job: Maker) -> None:
    job = make_job("a", epochs=1)
    train_fold(job)
    for content in (b"", b"nonsense", job.folder.checkpoint.read_bytes()[:2000]):
        job.folder.checkpoint.write_bytes(content)
        with pytest.raises(ModelError, match=r"checkpoint_last\.pt.*--restart"):
            train_fold(job)
    clear_fold(job.folder)
    train_fold(job)


def test_a_loss_that_is_no_number_ends_the_run_with_advice(make_job: Maker) -> None:
    with pytest.raises(Seg25dError, match="lower the learning rate"):
        train_fold(make_job("a", learning_rate=1e30, gradient_clip=1e30, warmup=0.0))


def test_a_network_that_cannot_learn_any_more_ends_the_run_with_advice(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "MOST_WITHOUT_GRADIENT", 3)
    clip, norms = torch.nn.utils.clip_grad_norm_, iter(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]))
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", lambda *arguments: (clip(*arguments), next(norms))[1])
    with pytest.raises(Seg25dError, match=r"in the last 3 updates up to 5: .*gradient_clip=0.001, and use --restart"):
        train_fold(make_job("a"))


def test_an_update_reads_from_the_device_once(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading waits until a GPU has done all that is in its queue."""
    readings: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        read = getattr(torch.Tensor, name)

        def count(tensor: torch.Tensor, *arguments: Any) -> Any:
            readings.append(name)
            return read(tensor, *arguments)

        return count

    step = trainer._Run._step

    def watched(run: trainer._Run, *arguments: Any) -> float:
        with monkeypatch.context() as patch:
            for name in ("__float__", "__int__", "__bool__", "item", "tolist", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, counted(name))
            return step(run, *arguments)

    monkeypatch.setattr(trainer._Run, "_step", watched)
    for optimizer in ("adamw", "sgd"):
        readings.clear()
        train_fold(make_job(optimizer, epochs=1, iterations_per_epoch=3, optimizer=optimizer))
        assert readings == ["tolist"] * 3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_updates_whose_scaled_gradients_overflow_are_left_out(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """As in float16: the norm is infinite, clipping would make weights of it that are no numbers."""
    states, moved = [], []

    def scaled(*arguments: Any) -> Any:
        state = new_state(*arguments)
        # At first not all gradients are finite, after some halvings they are.
        state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        next(state.model.parameters()).register_hook(lambda gradient: gradient * 2.0**14)
        states.append(state)
        return state

    step = trainer._Run._step

    def watched(run: trainer._Run, *arguments: Any) -> float:
        before = [parameter.detach().clone() for parameter in run.state.model.parameters()]
        loss = step(run, *arguments)
        moved.append(any((old != new).any() for old, new in zip(before, run.state.model.parameters(), strict=True)))
        return loss

    monkeypatch.setattr(trainer, "new_state", scaled)
    monkeypatch.setattr(trainer._Run, "_step", watched)
    train_fold(make_job(optimizer, epochs=1, iterations_per_epoch=25, optimizer=optimizer, gradient_clip=1.0))
    assert moved[0] is False
    assert moved.count(True) > 5
    assert states[0].scaler.get_scale() == 2.0 ** (127 - moved.count(False))
    assert all(parameter.isfinite().all() for parameter in states[0].model.parameters())


def test_windows_are_not_copied_behind_the_back_of_devices_that_do_not_keep_them(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on MPS, to which a copy may still be under way when the window's memory is used again."""
    move, ways = torch.Tensor.to, []

    def noted(tensor: torch.Tensor, *arguments: Any, **ways_here: Any) -> torch.Tensor:
        ways.append(ways_here.get("non_blocking", False))
        return move(tensor, *arguments, **ways_here)

    monkeypatch.setattr(torch.Tensor, "to", noted)
    train_fold(make_job("a", epochs=1, iterations_per_epoch=1))
    assert ways
    assert not any(ways)


@pytest.mark.parametrize("place", ["_step", "_end_epoch"])
def test_a_device_that_is_too_small_ends_the_run_with_advice(
    place: str, make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the first step of the optimizer or at the validation windows."""

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(trainer._Run, place, full)
    with pytest.raises(InputError, match=r"cpu is too small .*CUDA out of memory\.\).*--gpu-memory-gb"):
        train_fold(make_job("a"))


def test_devices_that_are_not_there_are_refused() -> None:
    for name in ("cuda:77", "tpu", "nonsense"):
        with pytest.raises(InputError, match="--device cpu"):
            choose_execution(name)
    with pytest.raises(InputError, match="float16"):
        choose_execution("cpu", "float16")
    assert choose_execution("cpu", "bfloat16").dtype == torch.bfloat16


TWO_PROCESSES = """
import sys, pickle
from pathlib import Path
import torch
from seg25d.training.trainer import train_fold
torch.set_num_threads(1)
with open(sys.argv[1], "rb") as file:
    train_fold(pickle.load(file))
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dice_cross_entropy", "dice_focal"])
def test_two_processes_do_the_mathematics_of_one(make_job: Maker, tmp_path: Path, loss: str) -> None:
    one, two = (make_job(name, augmentation={"enabled": False}, loss=loss) for name in ("one", "two"))
    train_fold(one)
    script, job_file = tmp_path / "run.py", tmp_path / "job.pkl"
    script.write_text(TWO_PROCESSES)
    job_file.write_bytes(pickle.dumps(two))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(job_file)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for ours, theirs in zip(read_log(two), read_log(one), strict=True):
        for key in ("train_loss", "validation_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key
        # Dice counts voxels after an argmax: where two scores are almost equal, the order of a sum flips some.
        assert ours["validation_dice"] == pytest.approx(theirs["validation_dice"], abs=5e-3)


def with_projections(job: FoldJob) -> FoldJob:
    plan = job.header.plan.model_dump()
    plan["representation"] = Projections(
        axis=0, spacing_mm=(1.0, 1.0, 1.0), num_training_views=3, num_views=6
    ).model_dump()
    plan["window"] = (8, 8, 8)
    plan["network"]["num_supervised"] = 1
    header = job.header.model_copy(update={"plan": type(job.header.plan).model_validate(plan)})
    return dataclasses.replace(job, header=header)


@pytest.mark.parametrize("stop_at", [pytest.param(4, marks=pytest.mark.slow), 6])
def test_projections_know_their_epoch_also_after_they_went_on(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, cut = (with_projections(make_job(name)) for name in ("whole", "cut"))
    step, seen = trainer._Run._step, []

    def step_and_look(run: trainer._Run, *arguments: Any) -> float:
        seen.append((run.state.model.training_angles, run.state.model.path_1_weight))
        return step(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Run, "_step", step_and_look)
        train_fold(whole)
    assert [seen.count(each) for each in dict.fromkeys(seen)] == [4, 4, 4]
    weights = [weight for _, weight in seen]
    assert weights[0] == 0.99
    assert weights[0] > weights[4] > weights[8]
    train_until(stop_at, cut, monkeypatch)
    train_fold(cut)
    assert without_times(cut) == without_times(whole)


@pytest.mark.parametrize(
    ("began_in", "precision", "safe", "goes_on_in"),
    [
        ("cpu float32", "auto", True, torch.float32),
        ("cpu bfloat16", "auto", True, torch.bfloat16),
        ("cpu bfloat16", "auto", False, torch.float32),
        ("cpu bfloat16", "float32", True, torch.float32),
        ("cuda float16", "auto", True, torch.bfloat16),
        ("", "auto", True, torch.bfloat16),
    ],
)
def test_a_run_goes_on_in_the_precision_in_which_it_began(
    began_in: str, precision: str, safe: bool, goes_on_in: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    zen = this_processor().model_copy(update={"instruction_sets": ("AVX2", "AVX-512", "AVX512-BF16")})
    chosen = "bfloat16" if safe else "float32"
    verdict = Verdict(processor=zen, precision=chosen, safe=safe, reason="so it is", seconds={})
    for module in (device, checkpoint):
        monkeypatch.setattr(module, "this_processor", lambda: zen)
        monkeypatch.setattr(module, "read_verdict", lambda _: verdict)
    found = checkpoint.choose_execution_to_go_on("cpu", precision, {"computed_in": began_in})
    assert found.dtype == goes_on_in


def test_the_checkpoint_says_in_which_precision_a_run_computes(make_job: Callable[..., FoldJob]) -> None:
    job = make_job("job", epochs=1, iterations_per_epoch=1, precision="bfloat16")
    train_fold(job)
    assert checkpoint.load_checkpoint(job.folder.checkpoint)["computed_in"] == "cpu bfloat16"
