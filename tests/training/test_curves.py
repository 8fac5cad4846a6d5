"""Curves for TensorBoard: every epoch once, whatever happened to the run."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seg25d.cli.main import main
from seg25d.training.checkpoint import clear_fold
from seg25d.training.curves import scalars
from seg25d.training.trainer import FoldJob, train_fold


def test_the_numbers_of_a_line_have_flat_names() -> None:
    line = {"epoch": 2, "loss": 0.5, "dice": None, "dice_per_label": {"organ": 0.25, "tumour": None}}
    assert scalars(line) == {"loss": 0.5, "dice_per_label/organ": 0.25}


@pytest.mark.parametrize("words", [["train", "1", "si", "0"], ["pretrain", "1", "si", "--task", "inpainting"]])
def test_without_tensorboard_the_cure_is_named_first_of_all(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main([*words, "--tensorboard", "--workspace", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --tensorboard needs TensorBoard")
    assert "pip install 'seg25d[tensorboard]'" in message
    assert not list(tmp_path.iterdir())


def test_every_epoch_is_there_once_also_those_of_before(make_job: Callable[..., FoldJob]) -> None:
    pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install 'seg25d[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - an extra

    def train(epochs: int) -> FoldJob:
        job = dataclasses.replace(make_job("a", epochs=epochs), tensorboard=True)
        train_fold(job)
        return job

    train_fold(make_job("a", epochs=1))
    folder = train(1).folder
    looking_on = EventAccumulator(str(folder.tensorboard))
    assert [event.step for event in looking_on.Reload().Scalars("train_loss")] == [1]
    train(3)
    log = [json.loads(line) for line in folder.log.read_text().splitlines()]
    numbers = {line["epoch"]: scalars(line) for line in log}
    for reader in (EventAccumulator(str(folder.tensorboard)), looking_on):
        names = reader.Reload().Tags()["scalars"]
        assert {"train_loss", "validation_loss", "learning_rate", "peak_memory_gb"} <= set(names)
        for name in names:
            expected = {epoch: pytest.approx(each[name]) for epoch, each in numbers.items() if name in each}
            assert [event.step for event in reader.Scalars(name)] == list(expected)
            assert {event.step: event.value for event in reader.Scalars(name)} == expected
    assert len(log) == 3
    clear_fold(folder)
    assert not folder.tensorboard.exists()
