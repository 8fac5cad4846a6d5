"""Loggers: every epoch once, whatever happened to the run, and no training depends on them."""

import dataclasses
import json
import struct
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from seg25d.cli.main import main
from seg25d.core.records import read_record
from seg25d.evaluation.metrics import Metrics
from seg25d.evaluation.summary import CaseSummary, summarize
from seg25d.training import loggers
from seg25d.training.checkpoint import clear_fold
from seg25d.training.logged_run import LoggedRun, LoggerRuns
from seg25d.training.logger_names import LOGGER_NAMES, LoggerName
from seg25d.training.loggers import LOGGERS, Loggers, final_scores, scalars
from seg25d.training.trainer import FoldJob, train_fold

ROOT = Path(__file__).parents[2]


def test_the_numbers_of_a_line_have_flat_names() -> None:
    line = {"epoch": 2, "loss": 0.5, "dice": None, "dice_per_label": {"organ": 0.25, "tumour": None}}
    assert scalars(line) == {"loss": 0.5, "dice_per_label/organ": 0.25}


def test_every_logger_has_its_option_and_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert list(LOGGERS) == list(LOGGER_NAMES)
    assert set(LOGGERS) <= set(extras)


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.parametrize("words", [["train", "1", "si", "0"], ["pretrain", "1", "si", "--task", "inpainting"]])
def test_without_its_package_the_cure_is_named_first_of_all(
    words: list[str],
    name: LoggerName,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = LOGGERS[name]().packages[-1]
    monkeypatch.setattr(loggers, "find_spec", lambda each: None if each == package else object())
    assert main([*words, f"--{name}", "--workspace", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --{name} needs {package}, which is not installed")
    assert f"pip install 'seg25d[{name}]'" in message
    assert not list(tmp_path.iterdir())


class Recorder:
    """A logger that writes what it is told to a list, in a world that outlives it."""

    packages = ()

    def __init__(self, told: list[object], fails_at: str = "", already: int = 0) -> None:
        self.told, self.fails_at, self.already = told, fails_at, already

    def tell(self, what: str, *more: object) -> None:
        if what == self.fails_at:
            raise OSError("the disk is full\nand so on")
        self.told.append((what, *more))

    def start(self, run: LoggedRun) -> int:
        self.tell("start", run.configuration["fold"])
        return self.already

    def epoch(self, number: int, when: float, numbers: dict[str, float]) -> None:
        self.tell("epoch", number)

    def scores(self, last_epoch: int, numbers: dict[str, float]) -> None:
        self.tell("scores", last_epoch, numbers["final_dice"], numbers["final_dice_per_label/1"])

    def close(self) -> None:
        self.tell("close")


def logged(job: FoldJob, *names: LoggerName) -> FoldJob:
    configuration = {"fold": 0, "training": {"epochs": [1, 2]}, "plan": {f"{number}": number for number in range(120)}}
    run = LoggedRun(job.folder, job.folder.root.parent, "Dataset001_Tiny", configuration)
    return dataclasses.replace(job, loggers=Loggers(names, run))


SUMMARY = summarize([CaseSummary(case="a", metrics={"1": Metrics(dice=0.5, tp=1, fp=1, fn=1, tn=1)})])


def train_and_score(job: FoldJob) -> None:
    with closing(job.loggers):
        train_fold(job)
        job.loggers.scores(SUMMARY)


def test_loggers_are_told_in_order_and_only_what_they_lack(
    make_job: Callable[..., FoldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setitem(LOGGERS, "wandb", lambda: Recorder(told))
    train_and_score(logged(make_job("a", epochs=2), "wandb", "wandb"))
    end = [("scores", 2, 0.5, 0.5), ("close",)]
    assert told == [("start", 0), ("epoch", 1), ("epoch", 2), *end]
    told.clear()
    monkeypatch.setitem(LOGGERS, "wandb", lambda: Recorder(told, already=1))
    train_and_score(logged(make_job("a", epochs=2), "wandb"))
    assert told == [("start", 0), ("epoch", 2), *end]
    told.clear()
    # The session that was killed had got further than its checkpoint.
    monkeypatch.setitem(LOGGERS, "wandb", lambda: Recorder(told, already=3))
    train_and_score(logged(make_job("a", epochs=4), "wandb"))
    assert told == [("start", 0), ("epoch", 4), ("scores", 4, 0.5, 0.5), ("close",)]


@pytest.mark.parametrize("fails_at", ["start", "epoch", "scores", "close"])
def test_a_logger_that_fails_is_told_of_once_and_the_training_goes_on(
    fails_at: str, make_job: Callable[..., FoldJob], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []
    monkeypatch.setitem(LOGGERS, "wandb", lambda: Recorder([], fails_at))
    monkeypatch.setitem(LOGGERS, "mlflow", lambda: Recorder(told))
    job = logged(make_job("a", epochs=2), "wandb", "mlflow")
    train_and_score(job)
    assert job.folder.model_final.exists()
    assert told == [("start", 0), ("epoch", 1), ("epoch", 2), ("scores", 2, 0.5, 0.5), ("close",)]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("--wandb failed and gets nothing more of ")
    assert "(OSError: the disk is full); nothing of the training depends on it" in warnings[0]


def test_final_scores_have_names_like_those_of_the_log() -> None:
    assert final_scores(SUMMARY) == {"final_dice": 0.5, "final_dice_per_label/1": 0.5}


def test_every_epoch_is_there_once_also_those_of_before(make_job: Callable[..., FoldJob]) -> None:
    pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install 'seg25d[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - an extra

    def train(epochs: int) -> FoldJob:
        job = logged(make_job("a", epochs=epochs), "tensorboard")
        train_and_score(job)
        return job

    train_fold(make_job("a", epochs=1))
    folder = train(1).folder
    looking_on = EventAccumulator(str(folder.tensorboard))
    assert [event.step for event in looking_on.Reload().Scalars("train_loss")] == [1]
    train(3)
    log = [json.loads(line) for line in folder.log.read_text().splitlines()]
    numbers = {line["epoch"]: scalars(line) for line in log}
    for reader in (EventAccumulator(str(folder.tensorboard)), looking_on):
        names = set(reader.Reload().Tags()["scalars"])
        assert [(event.step, event.value) for event in reader.Scalars("final_dice")] == [(3, 0.5)]
        assert '"epochs"' in reader.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
        names -= set(final_scores(SUMMARY))
        assert {"train_loss", "validation_loss", "learning_rate", "peak_memory_gb"} <= set(names)
        for name in names:
            expected = {epoch: pytest.approx(each[name]) for epoch, each in numbers.items() if name in each}
            assert [event.step for event in reader.Scalars(name)] == list(expected)
            assert {event.step: event.value for event in reader.Scalars(name)} == expected
    assert len(log) == 3
    clear_fold(folder)
    assert not folder.tensorboard.exists()


def test_wandb_has_one_offline_run_with_every_epoch_once(
    make_job: Callable[..., FoldJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'seg25d[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    job = logged(make_job("a", epochs=1), "wandb")
    train_and_score(job)
    (first,) = wandb_runs(job)
    job = logged(make_job("a", epochs=3), "wandb")
    train_and_score(job)
    (second,) = wandb_runs(job)
    assert first.suffixes == second.suffixes == [".wandb"]
    identifier = read_record(job.folder.logger_runs, LoggerRuns).wandb
    assert first.name == second.name == f"run-{identifier}.wandb"
    history, summary, config = wandb_content(second)
    log = [json.loads(line) for line in job.folder.log.read_text().splitlines()]
    assert [each["_step"] for each in history] == [1, 2, 3]
    assert [each["train_loss"] for each in history] == [pytest.approx(line["train_loss"]) for line in log]
    assert summary["final_dice"] == 0.5
    assert config["training"] == {"epochs": [1, 2]}
    for epochs in (1, 3):
        plain = make_job("plain", epochs=epochs)
        train_fold(plain)
    assert plain.folder.model_final.read_bytes() == job.folder.model_final.read_bytes()
    clear_fold(job.folder)
    assert not job.folder.wandb.exists()
    assert not job.folder.logger_runs.exists()


def wandb_content(path: Path) -> tuple[list[dict[str, float]], dict[str, float], dict[str, Any]]:
    """History, summary and configuration of a run.

    The file has a header of 7 bytes and blocks of 32 KiB with records, as in the logs of LevelDB: checksum, length,
    whether it is whole (1) or a part that others follow (4: the last part), and the record itself.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - an extra

    content, place, parts = path.read_bytes(), 7, b""
    history: list[dict[str, float]] = []
    summary: dict[str, float] = {}
    config: dict[str, Any] = {}
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record, parts = Record.FromString(parts), b""
            assert not record.run.host
            config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
            summary |= {each.key: json.loads(each.value_json) for each in record.summary.update if each.key}
            if record.history.item:
                numbers = {each.nested_key[0]: json.loads(each.value_json) for each in record.history.item}
                history.append(numbers)
    return history, summary, config


def wandb_runs(job: FoldJob) -> list[Path]:
    return sorted(job.folder.wandb.glob("offline-run-*/run-*.wandb"))


def test_mlflow_goes_on_with_its_run_and_has_every_epoch_once(
    make_job: Callable[..., FoldJob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in LOGGERS["mlflow"]().packages:
        pytest.importorskip(package, reason="needs MLflow: pip install 'seg25d[mlflow]'")
    from mlflow import MlflowClient  # noqa: PLC0415 - an extra

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    train_and_score(logged(make_job("a", epochs=1), "mlflow"))
    job = logged(make_job("a", epochs=3), "mlflow")
    train_and_score(job)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("Dataset001_Tiny")
    (found,) = client.search_runs([experiment.experiment_id])
    plan = {f"plan.{number}": f"{number}" for number in range(120)}
    assert found.data.params == {"fold": "0", "training.epochs": "[1, 2]", **plan}
    assert found.info.status == "FINISHED"
    log = [json.loads(line) for line in job.folder.log.read_text().splitlines()]
    for name in ("train_loss", "validation_loss", "learning_rate"):
        history = sorted((each.step, each.value) for each in client.get_metric_history(found.info.run_id, name))
        assert history == [(line["epoch"], line[name]) for line in log]
    assert [each.step for each in client.get_metric_history(found.info.run_id, "final_dice")] == [1]
    # Another configuration cannot be written to the same run.
    other = dataclasses.replace(job.loggers.run, configuration={"fold": 1})
    train_and_score(dataclasses.replace(job, loggers=Loggers(("mlflow",), other)))
    (again,) = client.search_runs([experiment.experiment_id])
    assert again.info.run_id != found.info.run_id
    assert len(client.get_metric_history(again.info.run_id, "train_loss")) == 3
    clear_fold(job.folder)
    assert not job.folder.logger_runs.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "mlflow.db"}
