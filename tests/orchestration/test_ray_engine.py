"""Tasks on Ray: real clusters of this machine, with processes and raylets that are killed."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seg25d.core.errors import InputError
from seg25d.core.records import read_record
from seg25d.orchestration.engine import Engine, Job
from seg25d.orchestration.perform import perform
from seg25d.orchestration.task import Call, Outcome, Task
from seg25d.runs.task_records import TaskRecord

ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'seg25d[ray]')")
cluster_utils = pytest.importorskip("ray.cluster_utils")
ray_engine = pytest.importorskip("seg25d.orchestration.ray_engine")
psutil = pytest.importorskip("psutil")

HERE = Path(__file__).parent
PERFORM = partial(perform, program="programs:program")
PATIENCE_SECONDS = 120.0


@pytest.fixture(autouse=True)
def _own_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place for Ray's files in which no cluster of others is known; its sockets want a short name."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(HERE.parents[1]), str(HERE))))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def engine(num_tasks: int | None = None) -> Iterator[Engine]:
    made = ray_engine.RayEngine(PERFORM, num_tasks)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def cluster_of_two() -> Iterator[tuple[Any, Any]]:
    """A cluster of two machines with one CPU each, and its second machine."""
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": ray_engine.STORE_BYTES}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        other = cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        cluster.shutdown()


def jobs(folder: Path, progress: Path | None = None, **words: Sequence[Any]) -> list[Job]:
    """Jobs by their names; those with progress are trainings."""
    tasks = [Task(name=name, words=tuple(map(str, each)), progress=progress) for name, each in words.items()]
    return [Job(task, Call(task.name, task.words, folder, {})) for task in tasks]


def outcomes_of(made: Engine, number: int) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    until = time.monotonic() + PATIENCE_SECONDS
    while len(outcomes) < number:
        assert time.monotonic() < until, f"only {sorted(outcomes)} ended"
        outcomes |= dict(made.finished(0.25))
    return outcomes


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while not (value := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


def process_of(folder: Path, name: str) -> int | None:
    """The process that does a task now, as its record says."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    return int(read_record(path, TaskRecord).place.split()[-1])


@pytest.mark.slow
def test_sixty_tasks_of_nothing_share_processes(tmp_path):
    with engine(num_tasks=2) as made:
        begun = time.monotonic()
        made.start(jobs(tmp_path, **{f"task{number}": ("touch", tmp_path / str(number)) for number in range(60)}))
        outcomes = outcomes_of(made, 60)
        seconds = time.monotonic() - begun
    assert all(outcome.is_done for outcome in outcomes.values())
    assert {(tmp_path / str(number)).exists() for number in range(60)} == {True}
    assert len({outcome.place for outcome in outcomes.values()}) < 10
    assert seconds < 20, "a process for each would take 33 s"  # two busy cores
    assert not ray.is_initialized()


@pytest.mark.slow
def test_others_go_on_where_tasks_fail_and_processes_die(tmp_path):
    with engine(num_tasks=2) as made:
        assert made.places == 2
        made.start(
            jobs(
                tmp_path,
                fails=("fail", 2, "no such data set"),
                dies_once=("die_once", tmp_path / "died"),
                dies=("die",),
                works=("touch", tmp_path / "works"),
            )
        )
        outcomes = outcomes_of(made, 4)
    assert (outcomes["fails"].status, outcomes["fails"].message) == (2, "no such data set")
    assert outcomes["dies_once"].is_done
    assert (tmp_path / "died").exists()
    assert outcomes["works"].is_done
    assert outcomes["dies"].status == -signal.SIGKILL
    assert "lost 4 times" in outcomes["dies"].message
    assert (tmp_path / "dies.log").read_text().count("$ seg25d die") == 4
    assert read_record(tmp_path / "dies.json", TaskRecord).status == -signal.SIGKILL


@pytest.mark.slow
def test_stopping_interrupts_tasks_and_ends_their_records(tmp_path):
    with engine(num_tasks=1) as made:
        assert made.places == 1
        made.start(jobs(tmp_path, sleeps=("sleep", 600), waits=("touch", tmp_path / "waits")))
        process = wait_for(lambda: process_of(tmp_path, "sleeps"))
        begun = time.monotonic()
    assert time.monotonic() - begun < 300
    record = read_record(tmp_path / "sleeps.json", TaskRecord)
    assert (record.status, record.message) == (-signal.SIGTERM, "stopped; the same command goes on")
    assert not (tmp_path / "waits").exists()
    assert not psutil.pid_exists(process)


@pytest.mark.slow
def test_no_two_trainings_share_a_process(tmp_path):
    with engine(num_tasks=1) as made:
        made.start(jobs(tmp_path, tmp_path, **{name: ("touch", tmp_path / name) for name in ("a", "b", "c")}))
        outcomes = outcomes_of(made, 3)
    assert len({outcome.place for outcome in outcomes.values()}) == 3


@pytest.mark.slow
def test_what_no_machine_has_the_memory_for_ends_at_once(tmp_path):
    with engine() as made:
        job = jobs(tmp_path, large=("touch", tmp_path / "large"))[0]
        made.start([job._replace(task=job.task.model_copy(update={"memory_bytes": 1 << 60}))])
        outcome = outcomes_of(made, 1)["large"]
    assert outcome.status == 2
    assert "needs 1152921504.6 GB of memory, and the largest machine" in outcome.message


@pytest.mark.slow
def test_tasks_of_a_killed_raylet_are_done_on_the_other_machine(tmp_path, monkeypatch):
    with cluster_of_two() as (cluster, other):
        raylet = other.all_processes["raylet"][0].process
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with engine() as made:
            assert made.places == 2
            made.start(jobs(tmp_path, tmp_path, first=("sleep", 15), second=("sleep", 15)))
            processes = [wait_for(partial(process_of, tmp_path, name)) for name in ("first", "second")]
            assert sorted(psutil.Process(each).ppid() == raylet.pid for each in processes) == [False, True]
            lost = next(each for each in processes if psutil.Process(each).ppid() == raylet.pid)
            raylet.kill()
            raylet.wait()  # its processes look for it: as a zombie it would be there
            outcomes = outcomes_of(made, 2)
        assert all(outcome.is_done for outcome in outcomes.values())
        ended = [int(outcome.place.split()[-1]) for outcome in outcomes.values()]
        assert lost not in ended
        assert not psutil.pid_exists(lost)
        assert ray.is_initialized() is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param("__version__ = '0.0.1'", "has seg25d 0.0.1, expected", id="another version"),
        pytest.param("raise ImportError('broken')", r"cannot import seg25d \(.*broken\)", id="none"),
    ],
)
def test_machines_need_the_same_seg25d(code, message, tmp_path, monkeypatch):
    (tmp_path / "seg25d").mkdir()
    (tmp_path / "seg25d" / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message), engine():
        pass
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_cluster_that_is_gone_is_told_with_the_cure(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"127.0.0.1:1\) cannot be joined.*RAY_ADDRESS=local"), engine():
        pass


def test_what_was_lost_is_told():
    lost = ray_engine._loss(ray.exceptions.WorkerCrashedError())
    assert lost.startswith(
        "its process or machine was lost 4 times: perhaps the memory does not suffice (The worker died"
    )
    assert "Ray has ended on this machine" in ray_engine._loss(ray.exceptions.LocalRayletDiedError())


@pytest.mark.parametrize(
    ("address", "known", "knows"),
    [("10.0.0.1:6379", False, True), ("local", True, False), (None, True, True), (None, False, False)],
)
def test_the_cluster_is_that_of_the_variable_or_of_ray_start(address, known, knows, monkeypatch):
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    if known:
        folder = Path(os.environ["RAY_TMPDIR"]) / "ray"
        folder.mkdir()
        (folder / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert ray_engine._knows_cluster() == knows
