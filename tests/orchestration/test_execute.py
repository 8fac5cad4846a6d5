"""Tasks on this machine: their order, failures, ends of processes, and a second call that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seg25d.orchestration.execute import Executor
from seg25d.orchestration.here_engine import HereEngine
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.local_engine import LocalEngine
from seg25d.orchestration.task import INTERRUPTED, Outcome
from seg25d.runs.task_records import RunRecord
from tests.orchestration.conftest import do, made_up
from tests.orchestration.programs import cannot_begin

ENGINES = [lambda: HereEngine(do), lambda: LocalEngine(do), lambda: LocalEngine(do, 2)]
IDS = ["here", "local", "local with two places"]


@pytest.mark.parametrize("make", ENGINES, ids=IDS)
def test_what_needs_a_failed_task_is_left_out_and_all_else_is_done(make, executor_of, tmp_path):
    executor = executor_of(make())
    outcomes = executor.run(
        [
            made_up("late", "touch", str(tmp_path / "late"), needs=["bad"]),
            made_up("latest", "touch", str(tmp_path / "latest"), needs=["late", "good"]),
            made_up("bad", "fail", "2", "the labels are wrong"),
            made_up("good", "touch", str(tmp_path / "good")),
            made_up("better", "touch", str(tmp_path / "better"), needs=["good"]),
        ]
    )
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "late": 2,
        "latest": 2,
        "bad": 2,
        "good": 0,
        "better": 0,
    }
    assert outcomes["bad"].message == "the labels are wrong"
    lines = json.loads((tmp_path / "run.json").read_text())["tasks"]
    assert {line["name"]: line["state"] for line in lines} == {
        "bad": "failed",
        "good": "done",
        "late": "left out",
        "better": "done",
        "latest": "left out",
    }
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["better", "good", "run.json"]


@pytest.mark.parametrize("make", ENGINES, ids=IDS)
def test_what_is_done_is_not_done_again_unless_its_words_or_outputs_changed(make, executor_of, tmp_path):
    counted, gone = tmp_path / "counted", tmp_path / "gone"

    def tasks(*words: str) -> list:
        return [
            made_up("counted", "count", str(counted), *words),
            made_up("always", "count", str(tmp_path / "always"), always=True),
            made_up("gone", "touch", str(gone), outputs=(gone,)),
        ]

    executor_of(make()).run(tasks())
    gone.unlink()
    executor_of(make()).run(tasks())
    assert counted.read_text() == "x"
    assert (tmp_path / "always").read_text() == "xx"
    assert gone.exists()
    executor_of(make()).run(tasks("anything else"))
    assert counted.read_text() == "xx"


def test_an_error_of_the_program_itself_is_told(executor_of):
    outcomes = executor_of(LocalEngine(do)).run([made_up("odd", "touch")])
    assert outcomes["odd"].status == 1
    assert "IndexError" in outcomes["odd"].message


def test_a_killed_process_is_replaced_and_one_that_always_dies_is_told(executor_of, tmp_path):
    executor = executor_of(LocalEngine(do))
    outcomes = executor.run([made_up("once", "die_once", str(tmp_path / "died")), made_up("always", "die")])
    assert outcomes["once"].is_done
    assert outcomes["always"].status == -signal.SIGKILL
    assert "killed by signal 9, 4 times" in outcomes["always"].message
    record = json.loads((tmp_path / "tasks" / "always.json").read_text())
    assert (record["status"], record["message"]) == (-9, outcomes["always"].message)


@pytest.mark.slow
def test_no_more_tasks_run_at_a_time_than_there_are_places_or_fit_into_the_memory(executor_of, tmp_path):
    def overlap(engine: LocalEngine, memory: int) -> int:
        executor = executor_of(engine)
        names = [f"t{number}_{memory}" for number in range(4)]
        executor.run([made_up(name, "sleep", "0.2", memory_bytes=memory) for name in names])
        records = [json.loads((tmp_path / "tasks" / f"{name}.json").read_text()) for name in names]
        times = [(record["begun"], record["begun"] + record["seconds"]) for record in records]
        return max(sum(begun <= at < ended for begun, ended in times) for at, _ in times)

    assert overlap(LocalEngine(do, 3), 1) in (2, 3)
    assert overlap(LocalEngine(do), 2) == 1
    full = LocalEngine(do, 3)
    assert overlap(full, round(0.6 * full.memory_bytes)) == 1


def test_tasks_have_their_share_of_the_machine(tmp_path):
    engine = LocalEngine(do, 2, ["4", "7"])
    job = type("Job", (), {"task": made_up("a", "touch")})
    assert [engine._variables(job, place)["CUDA_VISIBLE_DEVICES"] for place in (0, 1)] == ["4", "7"]
    assert "OMP_NUM_THREADS" in engine._variables(job, 0)
    job.task = made_up("a", "touch", uses_gpu=False)
    assert "CUDA_VISIBLE_DEVICES" not in engine._variables(job, 0)
    assert LocalEngine(do)._variables(job, 0) == {}


DRIVER = """
import sys
from pathlib import Path
from functools import partial
sys.path.insert(0, {here!r})
from tests.orchestration.conftest import do, made_up
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.local_engine import LocalEngine
from seg25d.orchestration.table import Table
from seg25d.runs.task_records import RunRecord

if __name__ == "__main__":
    folder = Path({folder!r})
    journal = Journal(folder / "run.json", RunRecord(dataset_name="Dataset001_A", arguments={{}}, on="local"))
    executor = Executor(LocalEngine(do), journal, Table(journal, folder / "tasks"), folder / "tasks", {{}})
    executor.run([made_up("long", "wait_for_term", str(folder / "stopped"))])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_task_is_stopped_with_the_process_that_started_it(number, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not (tmp_path / "stopped.begun").exists():
        assert time.monotonic() < until, "the task has not begun"
        time.sleep(0.05)
    driver.send_signal(number)
    driver.wait(30)
    while not (tmp_path / "stopped").exists():
        assert time.monotonic() < until, "the task goes on without the process that started it"
        time.sleep(0.05)


def test_ctrl_c_stops_what_runs_and_the_same_call_goes_on(executor_of, tmp_path):
    class Stopped(HereEngine):
        stopped = False

        def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
            ended = super().finished(patience_seconds)
            os.kill(os.getpid(), signal.SIGTERM)
            return ended

        def stop(self) -> None:
            super().stop()
            self.stopped = True

    tasks = [made_up(name, "count", str(tmp_path / name)) for name in ("a", "b")]
    engine = Stopped(do)
    executor: Executor = executor_of(engine)
    with pytest.raises(KeyboardInterrupt):
        executor.run(tasks)
    assert engine.stopped
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    executor_of(HereEngine(do)).run(tasks)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["x", "x"]


def test_a_record_of_before_says_nothing_of_a_task_that_cannot_begin(executor_of, tmp_path):
    task = made_up("again", "touch", str(tmp_path / "file"), always=True)
    assert executor_of(LocalEngine(do)).run([task])["again"].is_done
    assert executor_of(LocalEngine(cannot_begin)).run([task])["again"].status == 1


def test_sigterm_ends_a_task_in_this_process_at_once(executor_of, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        executor_of(HereEngine(do)).run([made_up("long", "term", str(tmp_path / "goes_on"))])
    assert not (tmp_path / "goes_on").exists()


def test_a_task_that_ctrl_c_has_reached_first_has_not_failed(executor_of, tmp_path):
    class Reached(HereEngine):
        def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
            os.kill(os.getpid(), signal.SIGINT)
            return [("a", Outcome(status=INTERRUPTED, message="interrupted"))]

    with pytest.raises(KeyboardInterrupt):
        executor_of(Reached(do)).run([made_up("a", "touch", str(tmp_path / "a"))])
    assert [line["state"] for line in json.loads((tmp_path / "run.json").read_text())["tasks"]] == ["waiting"]


def test_the_time_that_was_spent_is_written_now_and_then(tmp_path):
    now = [0.0]
    path = tmp_path / "run.json"
    journal = Journal(path, RunRecord(dataset_name="Dataset001_A", arguments={}, on="local"), lambda: now[0])
    journal.write()
    for now[0], written in ((59.0, 0.0), (61.0, 61.0), (100.0, 61.0), (3000.0, 3000.0)):
        journal.write_now_and_then()
        assert json.loads(path.read_text())["spent_seconds"] == written
