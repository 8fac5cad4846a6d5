"""What a run tells: the numbers that are shown are in log.jsonl, and the terminal is left as it was found."""

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from seg25d.core import progress
from seg25d.core.device import choose_execution
from seg25d.data.labels import Labels
from seg25d.training import monitor, trainer
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.loggers import Loggers
from seg25d.training.monitor import Monitor, draw_progress
from seg25d.training.state import new_state
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]
LINE = {
    "epoch": 3,
    "progress": 0.3,
    "train_loss": 0.51234,
    "validation_loss": 0.6,
    "validation_dice": None,
    "validation_dice_per_label": {"organ": None},
    "learning_rate": 0.01,
    "seconds": 75.2,
    "seconds_left": 7500.0,
    "seconds_per_iteration": 0.4,
    "data_wait_share": 0.0217,
}


def test_the_line_of_an_epoch_says_what_the_log_says(make_job: Maker, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job("a")
    state = new_state(torch.nn.Conv2d(1, 1, 1), job.config, choose_execution("cpu"))
    state.log.append(LINE)
    with caplog.at_level(logging.INFO, "seg25d"):
        Monitor(job.folder, state, job.header.description.labels, active=False, loggers=Loggers()).epoch()
        assert not job.folder.root.exists()
        Monitor(job.folder, state, job.header.description.labels, active=True, loggers=Loggers()).epoch()
    assert caplog.messages == [
        f"{job.folder.name}, epoch 3 (30.0%): loss 0.5123, validation loss 0.6000, Dice -, 1 min 15 s, 2.5 updates/s, "
        "waiting for data 2.2%, 2 h 5 min left"
    ]
    assert json.loads(job.folder.log.read_text()) == LINE


def test_lines_and_picture_have_the_names_of_labels(
    make_job: Maker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def read_legends(figure: Figure, path: Path, **_: Any) -> None:
        legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
        shown.extend(text.get_text() for legend in legends for text in legend.get_texts())
        path.touch()

    monkeypatch.setattr(Figure, "savefig", read_legends)
    job = make_job("a")
    labels = Labels(names={"background": 0, "liver": 1, "tumour": 2})
    state = new_state(torch.nn.Conv2d(1, 1, 1), job.config, choose_execution("cpu"))
    state.log.append(LINE | {"validation_dice": 0.5, "validation_dice_per_label": {"1": 0.5, "2": None}})
    with caplog.at_level(logging.INFO, "seg25d"):
        monitor = Monitor(job.folder, state, labels, active=True, loggers=Loggers())
        monitor.epoch()
        monitor.draw(final=True)
    assert "Dice 0.5000 (liver 0.5000, tumour -), " in caplog.text
    assert {"liver", "tumour", "mean"} < set(shown)
    assert not {"1", "2"} & set(shown)


@pytest.mark.parametrize("name", [r"$\bad$ left", "$x$", "\N{CJK UNIFIED IDEOGRAPH-5DE6}", "_rest", "a_b^{"])
def test_odd_names_of_labels_are_drawn_as_they_are_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    save = Figure.savefig

    def read_legends(figure: Figure, path: Path, **options: Any) -> None:
        shown.extend(text.get_text() for text in figure.axes[1].get_legend().get_texts())
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", read_legends)
    labels = Labels(names={"background": 0, name: 1, "tumour": 2})
    lines = [LINE | {"validation_dice": 0.5, "validation_dice_per_label": {"1": 0.5, "2": None}}]
    draw_progress(tmp_path / "progress.png", lines, labels)
    assert shown == [name, "tumour", "mean"]
    assert (tmp_path / "progress.png").stat().st_size > 0


def test_a_picture_that_cannot_be_drawn_ends_no_training_and_all_is_saved_before(
    make_job: Maker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, saved = make_job("a", epochs=1), []

    def fail(*_: object) -> None:
        saved.append(load_checkpoint(job.folder.checkpoint)["iteration"])
        raise ValueError("no such font\nmore")

    monkeypatch.setattr("seg25d.training.monitor.draw_progress", fail)
    train_fold(job)
    assert saved == [4]
    assert job.folder.model_final.exists()
    assert "progress.png cannot be drawn (ValueError: no such font); nothing of the training" in caplog.text


def test_a_run_that_is_killed_while_it_draws_has_its_picture_in_the_end(
    make_job: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("run", epochs=1, iterations_per_epoch=2)

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(monitor, "draw_progress", killed)
        with pytest.raises(SystemExit):
            train_fold(job)
    assert load_checkpoint(job.folder.checkpoint)["iteration"] == 2
    assert not job.folder.progress.exists()
    train_fold(job)
    assert job.folder.progress.exists()
    assert job.folder.model_final.exists()


def test_the_log_says_how_far_the_run_is(make_job: Maker) -> None:
    job = make_job("a", epochs=4, iterations_per_epoch=1)
    train_fold(job)
    lines = [json.loads(line) for line in job.folder.log.read_text().splitlines()]
    assert [line["progress"] for line in lines] == [0.25, 0.5, 0.75, 1]
    assert lines[0]["seconds_left"] == pytest.approx(3 * lines[0]["total_seconds"])
    assert lines[-1]["seconds_left"] == 0


def test_lines_say_how_the_updates_go(make_job: Maker, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job("a")
    state = new_state(torch.nn.Conv2d(1, 1, 1), job.config, choose_execution("cpu"))
    state.epoch_losses, state.epoch_seconds, state.epoch_wait, state.seconds = [0.7, 0.5], 4.0, 0.2, 30.0
    with caplog.at_level(logging.INFO, "seg25d"):
        watch = Monitor(job.folder, state, job.header.description.labels, active=True, loggers=Loggers())
        watch.step(0)
        watch.step(0.25)
        watch.step(0.26)
    # Nothing is known before the first update, and the second line comes half a minute later.
    assert caplog.messages == [
        f"{job.folder.name}: 25.0%, loss 0.5000, 2.0 s per update, data wait 5%, 1 min 30 s left",
    ]


def test_a_terminal_gets_a_bar_until_the_run_is_stopped(
    make_job: Maker, open_terminal: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0)
    step = trainer._Run._step

    def step_and_signal(run: trainer._Run, *arguments: Any) -> float:
        if run.state.iteration == 6:
            assert sys.stderr is not terminal
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run, *arguments)

    monkeypatch.setattr(trainer._Run, "_step", step_and_signal)
    terminal, job = open_terminal(), make_job("a")
    with pytest.raises(KeyboardInterrupt):
        train_fold(job)
    assert sys.stderr is terminal
    assert re.search(r"[^ ]+… [━╸╺]+ *50\.0%, loss [\d.]+, .+ update.*, data wait \d+%, ", terminal.text)
    for message in (f"{job.folder.name}, epoch 1 ", "stopping after this update\n"):
        assert f"\x1b[2K{message}" in terminal.getvalue()
