"""Predictions by several processes: the words of parts, failures, parts that are lost or end together."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import SimpleITK

from seg25d import api
from seg25d.api import CohortOptions, PredictionOptions, predict
from seg25d.cli import predict as command
from seg25d.cli.main import main
from seg25d.core.errors import BusyError, CaseFailures, InputError
from seg25d.core.locks import file_lock
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import Workspace
from seg25d.inference import prediction_files
from seg25d.inference.prediction_files import PredictionRecord, add_to_record, begin_record
from seg25d.orchestration import prediction
from seg25d.orchestration.engine import Job
from seg25d.orchestration.engine_names import EngineName
from seg25d.orchestration.perform import perform
from seg25d.orchestration.prediction import failed_cases, make_parts, number_of_parts, part_words
from seg25d.orchestration.task import Call, Outcome
from seg25d.runs.task_records import TasksRecord
from tests.orchestration.adding import NUM_CASES, add_cases

CASES = 6
GIVEN = {
    "dataset": "900",
    "configuration": "axial",
    "plans_name": "plans",
    "recipe": "default",
    "folds": ("0", "1"),
    "model": Path("models.zip"),
    "checkpoint": "best",
    "save_probabilities": True,
    "mirroring": False,
    "step_size": 0.3,
    "fusion": "staple",
    "dicom_seg": "labelmap",
    "overwrite": True,
    "uncertainty": True,
    "statistics": Path("table.csv"),
    "num_parts": 5,
    "part_id": 3,
    "device": "cpu",
}
"""A value of every option that is not its default."""


class OneByOne:
    """An engine that does a task when it is asked for one that ended, in this process: models may be written."""

    name = "one by one"

    def __init__(self, places: int = 2) -> None:
        self.places = places
        self.jobs: list[Job] = []
        self.done: list[tuple[str, ...]] = []
        self.end: Callable[[Call], Outcome] = perform

    def start(self, jobs: list[Job]) -> None:
        self.jobs += jobs

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        del patience_seconds
        if not self.jobs:
            return []
        job = self.jobs.pop(0)
        self.done.append(job.task.words)
        return [(job.task.name, self.end(job.call))]

    def stop(self) -> None:
        self.jobs.clear()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> OneByOne:
    made = OneByOne()
    monkeypatch.setattr(prediction, "make_engine", lambda *_, **__: made)
    return made


@pytest.fixture
def workspace(trained_once: Path, tmp_path: Path) -> Workspace:
    """A workspace whose models are trained."""
    root = tmp_path / "workspace"
    shutil.copytree(trained_once, root)
    return Workspace.resolve(root)


@pytest.fixture
def images(workspace: Workspace, tmp_path: Path) -> Path:
    """A folder with as many cases as `CASES`, all the same small piece of an image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for file in (workspace.raw / "Dataset900_Phantom" / "imagesTs").iterdir():
        image = SimpleITK.ReadImage(str(file))[:16, :16]
        for number in range(CASES):
            SimpleITK.WriteImage(image, str(folder / f"case_{number}{file.name[len('phantom_000') :]}"))
    return folder


def cohort(on: EngineName = "local", num_parts: int | None = None, **others: object) -> CohortOptions:
    given = {"dataset": "900", "configuration": "axial", "folds": ("0",), "device": "cpu"} | others
    return CohortOptions(prediction=PredictionOptions.model_validate(given), on=on, num_parts=num_parts)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.nii.gz")}


def test_every_option_of_a_prediction_is_passed_to_its_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set(GIVEN) == set(PredictionOptions.model_fields), "a new option: say how it is passed on, in `part_words`"
    usual, given = PredictionOptions(), PredictionOptions.model_validate(GIVEN)
    same = [name for name in GIVEN if getattr(usual, name) == getattr(given, name)]
    assert not same, "these would not be missed"
    for options in (given, usual):
        calls: list[tuple[object, ...]] = []
        monkeypatch.setattr(api, "predict", lambda *call, calls=calls: calls.append(call))
        words = part_words(tmp_path / "in", tmp_path / "out", options)
        assert words[0] == "predict"
        assert main([*words, "--workspace", str(tmp_path)]) == 0
        # The table is made of all cases together, when all parts are done.
        (_, source, out, parsed), expected = calls[0], options.model_copy(update={"statistics": None})
        if options.model is not None:
            expected = expected.model_copy(update={"model": options.model.absolute()})
        assert (source, out) == (tmp_path / "in", tmp_path / "out")
        assert parsed == expected


def test_every_word_of_the_command_is_known_here() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    places = {action.dest for action in parser._actions} - {"help", "input", "output", "on", "num_tasks", "slurm"}
    assert places - {"disable_tta"} <= set(PredictionOptions.model_fields)


@pytest.mark.parametrize(
    ("num_cases", "places", "parts"),
    [(1000, 2, 8), (1000, 100, 200), (20, 2, 4), (12, 2, 2), (3, 2, 2), (3, 8, 3), (1, 1, 2), (40, 1, 4)],
)
def test_parts_are_four_a_place_and_have_five_cases(num_cases: int, places: int, parts: int) -> None:
    assert number_of_parts(num_cases, places) == parts


def test_parts_without_work_are_none() -> None:
    words = {number: ("predict", str(number)) for number in range(3)}
    parts = make_parts(["a", "b", "c", "d", "e"], frozenset("ade"), words)
    assert [(part.task.words[1], part.cases) for part in parts] == [("0", ("a", "d")), ("1", ("e",))]


def test_what_the_last_call_said_of_cases(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    assert failed_cases(log, ["a"]) == {}
    log.write_text(
        "$ seg25d predict\nerror: 1 case(s) failed, all others were done:\n  a: old\n"
        "$ seg25d predict\n2026 b failed: new\nerror: 2 case(s) failed, all others were done:\n"
        "  b: new: with a colon\n    more of it: here\n  c 2: also\n"
    )
    assert failed_cases(log, ["a", "b", "c 2", "d"]) == {"b": "new: with a colon", "c 2": "also"}


def test_a_cohort_is_what_one_call_predicts(
    engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "seg25d")
    options = {"uncertainty": True, "save_probabilities": True}
    one, several = tmp_path / "one", tmp_path / "several"
    table = {"statistics": tmp_path / "one.csv"}
    predict(workspace, images, one, cohort(**options, **table).prediction)
    predict(workspace, images, several, cohort(num_parts=3, statistics=tmp_path / "several.csv", **options))
    assert len(engine.done) == 3
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    found = {path.relative_to(several) for path in several.rglob("*") if path.is_file()}
    parts = {Path("tasks", f"part_{number}_of_3.{ending}") for number in range(3) for ending in ("json", "log")}
    assert found == names | parts | {Path("tasks", "all.json")}
    assert [
        name for name in names if name.suffix == ".gz" and (one / name).read_bytes() != (several / name).read_bytes()
    ] == []
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "several.csv").read_text()
    records = [read_record(folder / "prediction.json", PredictionRecord) for folder in (one, several)]
    assert records[0].predicted_dice == records[1].predicted_dice
    assert len(records[1].seconds) == CASES
    assert read_record(several / "tasks" / "all.json", TasksRecord).arguments["on"] == "local"
    assert "no case is marked" in caplog.text
    before = times(several)
    predict(workspace, images, several, cohort(**options))
    assert (len(engine.done), times(several)) == (3, before)
    assert "6 of 6 cases are predicted already" in caplog.text


def test_what_is_left_is_predicted_alone(engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(workspace, images, out, cohort(num_parts=3))
    before = times(out)
    (out / "case_4.nii.gz").unlink()
    predict(workspace, images, out, cohort(num_parts=3))
    assert [words[words.index("--part-id") + 1] for words in engine.done] == ["0", "1", "2", "1"]
    after = times(out)
    assert {name for name in after if after[name] != before[name]} == {"case_4.nii.gz"}
    predict(workspace, images, out, cohort(num_parts=3, overwrite=True))
    assert all(time_ns > before[name] for name, time_ns in times(out).items())
    with pytest.raises(InputError, match="predictions of another model"):
        predict(workspace, images, out, cohort(folds=("1",)))
    assert len(engine.done) == 7


def test_cases_that_fail_are_named_and_all_others_are_there(
    engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "out", tmp_path / "table.csv"
    (images / "case_1_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(CaseFailures, match=r"^1 case\(s\) failed, all others were done:\n  case_1: .*case_1_0000"):
        predict(workspace, images, out, cohort(statistics=table))
    assert len(times(out)) == CASES - 1
    assert "case_0," in table.read_text()
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="no case can be predicted:\n  case_0"):
        predict(workspace, images, tmp_path / "other", cohort())
    assert len(engine.done) == 4


def test_a_part_that_fails_is_named_with_the_cases_that_it_left(
    engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    engine.end = lambda call: Outcome(status=-9, message="killed") if "part_1" in call.name else perform(call)
    out = tmp_path / "out"
    with pytest.raises(CaseFailures) as failed:
        predict(workspace, images, out, cohort())
    assert list(failed.value.failures) == ["case_1", "case_3", "case_5"]
    assert str(failed.value).count("part_1_of_2 failed: killed (") == 3
    assert len(times(out)) == 3
    # It had written all of its cases: nothing has failed.
    engine.end = lambda call: perform(call).model_copy(update={"status": 1})
    predict(workspace, images, out, cohort())
    engine.end = lambda _: Outcome(status=2, message="no such device")
    with pytest.raises(
        InputError, match=r"no part can be predicted:\n  part_0_of_2 failed: no such device .*\n  part_1"
    ):
        predict(workspace, images, tmp_path / "other", cohort())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "local", "--part-id", "0"], "--part-id names a part of a call of your own"),
        (["--on", "local", "--num-parts", "1"], "expected 2 or more parts, got 1"),
        (["--tasks", "2"], "name what runs them, as --on local"),
        (["--on", "local", "--device", "cuda:0,cuda:1"], "expected one device, or none"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "-i", str(tmp_path), "-o", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_parts_of_the_caller_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part 1 of 1 cannot be predicted on local"):
        predict(workspace, tmp_path, tmp_path / "out", cohort(part_id=1))


def test_a_folder_is_for_one_cohort(engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path) -> None:
    del engine
    out = tmp_path / "out"
    with file_lock(out / "tasks" / "all.json", "predicting a cohort"), pytest.raises(BusyError, match="a cohort"):
        predict(workspace, images, out, cohort())


def test_tasks_are_no_segmentations(engine: OneByOne, workspace: Workspace, images: Path, tmp_path: Path) -> None:
    del engine
    out = tmp_path / "out"
    predict(workspace, images, out, cohort())
    assert (out / "tasks").is_dir()
    assert main(["evaluate", str(out), str(out), "--num-processes", "0"]) == 0
    assert [each["case"] for each in json.loads((out / "summary.json").read_text())["per_case"]] == [
        f"case_{number}" for number in range(CASES)
    ]
    shutil.copytree(out, tmp_path / "same")
    fused = ["ensemble", "-i", str(out), str(tmp_path / "same"), "-o", str(tmp_path / "fused"), "--method", "majority"]
    assert main([*fused, "--num-processes", "0"]) == 0
    assert len(times(tmp_path / "fused")) == CASES


@pytest.mark.slow  # eight processes
def test_parts_that_end_together_lose_no_case(tmp_path: Path) -> None:
    path = tmp_path / "prediction.json"
    with ProcessPoolExecutor(8, mp_context=get_context("forkserver")) as pool:
        list(pool.map(partial(add_cases, path), range(8)))
    record = read_record(path, PredictionRecord)
    names = {f"case_{part}_{number}" for part in range(8) for number in range(NUM_CASES)}
    assert (set(record.seconds), set(record.predicted_dice)) == (names | {"old_0", "old_1"}, names)


def test_a_part_that_begins_late_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, record = tmp_path / "prediction.json", PredictionRecord(model={"name": "a"})

    def other_part() -> None:
        begin_record(record, path)
        add_to_record(record, path, "a", 1.0)

    thread = threading.Thread(target=other_part)

    def write_late(*written: Any) -> None:
        """Write after the other part has had its time: it began when this one had seen that there is no record."""
        monkeypatch.setattr(prediction_files, "write_record", write_record)
        thread.start()
        thread.join(0.2)
        write_record(*written)

    monkeypatch.setattr(prediction_files, "write_record", write_late)
    begin_record(record, path)
    thread.join()
    assert read_record(path, PredictionRecord).seconds == {"a": 1.0}


def test_what_others_did_again_stays(tmp_path: Path) -> None:
    path = tmp_path / "prediction.json"
    before = PredictionRecord(model={"name": "a"}, seconds={"a": 1.0, "b": 1.0}, predicted_dice={"a": {"1": 0.1}})
    begin_record(before, path)
    add_to_record(before, path, "a", 2.0, {"1": 0.2})  # another part
    add_to_record(before, path, "b", 2.0, {"1": 0.2})
    record = read_record(path, PredictionRecord)
    assert (record.seconds, record.predicted_dice) == ({"a": 2.0, "b": 2.0}, {"a": {"1": 0.2}, "b": {"1": 0.2}})
    begin_record(before, path)
    assert read_record(path, PredictionRecord) == record


def start(workspace: Workspace, images: Path, out: Path) -> "subprocess.Popen[str]":
    where = ["-i", str(images), "-o", str(out), "--workspace", str(workspace.raw.parent)]
    words = [
        *where,
        "-d",
        "900",
        "-c",
        "2d",
        "-f",
        "0",
        "--device",
        "cpu",
        "--on",
        "local",
        "--tasks",
        "2",
        "--num-parts",
        "2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "seg25d", "predict", *words], stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for_cases(out: Path, number: int) -> None:
    until = time.monotonic() + 120
    while len(times(out)) < number:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def many_images(images: Path) -> Path:
    """So many that a part can be stopped in the middle."""
    for file in [path for path in images.iterdir() if path.name.startswith("case_0")]:
        for number in range(60):
            (images / f"more_{number:02d}{file.name[len('case_0') :]}").symlink_to(file)
    return images


@pytest.mark.slow
def test_a_lost_part_is_taken_over_and_no_case_is_done_twice(
    workspace: Workspace, many_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(workspace, many_images, out)
    wait_for_cases(out, 8)
    lost = read_record(out / "tasks" / "all.json", TasksRecord).tasks[0].name
    before = times(out)
    recorded = read_record(out / "prediction.json", PredictionRecord).seconds
    place = json.loads((out / "tasks" / f"{lost}.json").read_text())["place"]
    os.kill(int(place.rpartition(" ")[2]), signal.SIGKILL)
    assert process.wait(300) == 0
    seconds = read_record(out / "prediction.json", PredictionRecord).seconds
    assert len(seconds) == CASES + 60
    assert (out / "tasks" / f"{lost}.log").read_text().count("$ seg25d predict") == 2
    after = times(out)
    again = {name for name in before if after[name] != before[name] and name.removesuffix(".nii.gz") in recorded}
    assert again == set()


@pytest.mark.slow
def test_an_interrupted_cohort_goes_on(workspace: Workspace, many_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(workspace, many_images, out)
    wait_for_cases(out, 8)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "the same command continues" in said
    recorded = read_record(out / "prediction.json", PredictionRecord).seconds
    before = times(out)
    assert 0 < len(recorded) < CASES + 60
    process = start(workspace, many_images, out)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"{len(recorded)} of {CASES + 60} cases are predicted already" in said
    after = times(out)
    assert [name for name in recorded if after[f"{name}.nii.gz"] != before[f"{name}.nii.gz"]] == []
    assert len(after) == CASES + 60
