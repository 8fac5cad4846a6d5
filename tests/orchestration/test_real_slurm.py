"""Tasks as jobs of a real SLURM, where there is one: `one_machine_slurm.sh` starts one here."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="needs the extra `slurm`: pip install 'seg25d[slurm]'")

from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.records import read_record
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset
from seg25d.orchestration.engine import Job
from seg25d.orchestration.perform import perform
from seg25d.orchestration.slurm_cluster import SlurmCluster
from seg25d.orchestration.slurm_engine import JobRecord, SlurmEngine
from seg25d.orchestration.slurm_work import files_of
from seg25d.orchestration.task import Call, Outcome, Task
from seg25d.runs.task_records import RunRecord, TaskRecord

PERFORM = functools.partial(perform, program="programs:program")
HERE = Path(__file__).parent
SECONDS = 180.0


def answers() -> bool:
    try:
        return subprocess.run(["sinfo"], capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not answers(), reason="needs a SLURM that answers: tests/orchestration/one_machine_slurm.sh"),
]


@pytest.fixture(autouse=True)
def _programs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parents[1]}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


def engine(**others: object) -> SlurmEngine:
    return SlurmEngine(PERFORM, seconds_between_queues=1.0, late_seconds=1.0, **others)


def job(folder: Path, name: str, *words: str) -> Job:
    return Job(Task(name=name, words=words), Call(name, words, folder, {}))


def wait_for(engine: SlurmEngine, number: int) -> dict[str, Outcome]:
    until, outcomes = time.monotonic() + SECONDS, {}
    while len(outcomes) < number:
        assert time.monotonic() < until, f"{number} wanted, {outcomes} there"
        outcomes |= dict(engine.finished(0.05))
    return outcomes


def begun(folder: Path, name: str) -> int:
    """The process of a task, when it has begun."""
    until = time.monotonic() + SECONDS
    while not (folder / f"{name}.json").exists():
        assert time.monotonic() < until, f"{name} has not begun"
        time.sleep(0.1)
    return int(read_record(folder / f"{name}.json", TaskRecord).place.split()[-1])


def job_of(folder: Path, name: str) -> str:
    return read_record(files_of(folder) / f"{name}.json", JobRecord).job_id


def test_an_array_of_tasks_is_done(folder: Path) -> None:
    tasks = [job(folder, f"task_{number}", "count", str(folder / f"{number}")) for number in range(6)]
    slurm = engine(num_tasks=2, options={"time": "5", "mem": "200M"})
    slurm.start([*tasks, job(folder, "wrong", "fail", "2", "it is wrong")])
    assert {job_of(folder, name).split("_")[0] for name in ("task_0", "task_5", "wrong")} == {
        job_of(folder, "wrong").split("_")[0]
    }, "one array"
    outcomes = wait_for(slurm, 7)
    assert (outcomes["wrong"].status, outcomes["wrong"].message) == (2, "it is wrong")
    assert all(outcomes[each.task.name].is_done for each in tasks)
    assert [(folder / f"{number}").read_text() for number in range(6)] == ["x"] * 6


def test_a_process_that_is_killed_is_started_again(folder: Path) -> None:
    slurm = engine()
    slurm.start([job(folder, "a", "die_once", str(folder / "died"))])
    first = job_of(folder, "a")
    assert wait_for(slurm, 1)["a"].is_done
    assert SlurmCluster().states()[first] == "FAILED"


def test_a_job_that_is_cancelled_is_not(folder: Path) -> None:
    slurm = engine()
    slurm.start([job(folder, "a", "sleep", "100"), job(folder, "b", "sleep", "1")])
    begun(folder, "a")
    subprocess.run(["scancel", job_of(folder, "a")], check=True)
    outcomes = wait_for(slurm, 2)
    assert outcomes["b"].is_done
    assert "was cancelled; the same command goes on" in outcomes["a"].message


def test_stop_ends_jobs(folder: Path) -> None:
    slurm = engine()
    slurm.start([job(folder, "a", "sleep", "100")])
    process, job_id = begun(folder, "a"), job_of(folder, "a")
    slurm.stop()
    until = time.monotonic() + 30
    while SlurmCluster().states()[job_id] != "CANCELLED" or Path(f"/proc/{process}").exists():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_time_that_is_up_puts_the_job_back_into_the_queue(folder: Path) -> None:
    slurm = engine()
    slurm.start([job(folder, "a", "sleep", "5")])
    begun(folder, "a")
    job_id = job_of(folder, "a")
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    until = time.monotonic() + SECONDS
    while SlurmCluster().states()[job_id] != "PENDING":
        assert time.monotonic() < until
        assert slurm.finished(0.1) == []
    # SLURM lets it wait for two minutes otherwise.
    subprocess.run(["scontrol", "update", f"jobid={job_id}", "starttime=now"], check=True)
    assert wait_for(slurm, 1)["a"].is_done
    assert (folder / "a.log").read_text().count("$ seg25d sleep 5") == 2
    assert len(list(files_of(folder).glob("*_outcome.json"))) == 1


def test_jobs_outlive_a_killed_driver(folder: Path) -> None:
    code = (
        "import test_real_slurm as t, sys, pathlib, time\n"
        "slurm, folder = t.engine(), pathlib.Path(sys.argv[1])\n"
        "slurm.start([t.job(folder, name, 'sleep', '8') for name in ('a', 'b')])\n"
        "time.sleep(100)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    begun(folder, "a")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    slurm = engine()
    slurm.start([job(folder, name, "sleep", "8") for name in ("a", "b")])
    outcomes = wait_for(slurm, 2)
    assert all(each.is_done for each in outcomes.values())
    assert (folder / "a.log").read_text().count("$ seg25d") == 1
    assert len(list(files_of(folder).glob("*_outcome.json"))) == 2


def test_what_slurm_refuses(folder: Path) -> None:
    with pytest.raises(InputError, match="invalid partition specified: nowhere"):
        engine(options={"partition": "nowhere"}).start([job(folder, "a", "sleep", "1")])


def test_a_data_set_from_its_images_to_its_page(tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path / "raw" / DATASET_NAME, num_training=5, num_test=0, shape=(8, 32, 32))
    words = ["run", "900", "-c", "2d", "--folds", "0", "1", "--iterations", "2", "--workspace", str(tmp_path)]
    assert main([*words, "--on", "slurm", "--slurm", "time=30", "--slurm", "cpus_per_task=1"]) == 0
    record = read_record(tmp_path / "results" / DATASET_NAME / "run.json", RunRecord)
    assert {line.name: line.state for line in record.tasks} == dict.fromkeys(
        ("preprocess", "axial_fold_0", "axial_fold_1", "axial_crossval", "choose", "report"), "done"
    )
    assert Path(record.report).exists()
    scripts = {path.read_text().count("--array=0-1%2") for path in tmp_path.rglob("*_submission.sh")}
    assert scripts == {0, 1}, "the folds are one array"
