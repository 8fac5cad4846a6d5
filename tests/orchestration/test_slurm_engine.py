"""Tasks as jobs: submitit's own executor of this machine in place of SLURM, whose answers the tests make up."""
# ruff: noqa: E402 - the modules need submitit

import functools
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

submitit = pytest.importorskip("submitit", reason="needs the extra `slurm`: pip install 'seg25d[slurm]'")

from seg25d.cli.common import INTERRUPTED as COMMAND_INTERRUPTED
from seg25d.core.errors import InputError
from seg25d.core.records import read_record
from seg25d.orchestration.engine import LOST_RETRIES, Job
from seg25d.orchestration.perform import perform, record_of
from seg25d.orchestration.slurm_engine import MOST_PLACES, JobRecord, SlurmEngine
from seg25d.orchestration.slurm_parameters import KNOWN, parameters_of, slurm_parameters
from seg25d.orchestration.slurm_work import files_of, outcome_of
from seg25d.orchestration.task import INTERRUPTED, Call, Outcome, Task
from seg25d.runs.task_records import TaskRecord

PERFORM = functools.partial(perform, program="programs:program")
WORDS = ("touch", "there")


class OneMachine:
    """Jobs are processes of this machine; ids are those of the processes."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.said: dict[str, str] = {}
        self.answers = True
        self.asked = 0

    def executor(self, folder: Path) -> submitit.Executor:
        cluster = self

        class Executor(submitit.LocalExecutor):
            def _submit_command(self, command: str) -> submitit.Job:
                job = super()._submit_command(command)
                cluster.jobs.append(job.job_id)
                return job

        return Executor(folder)

    def states(self) -> dict[str, str] | None:
        self.asked += 1
        alive = {job_id: "RUNNING" if is_there(int(job_id)) else "FAILED" for job_id in self.jobs}
        return alive | self.said if self.answers else None

    def cancel(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            with suppress(ProcessLookupError):
                os.kill(int(job_id), signal.SIGTERM)


def is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Imagined:
    """A cluster that takes jobs and never runs them."""

    def __init__(self, refuses: str = "") -> None:
        self.arrays: list[tuple[list[str], dict]] = []
        self.said: dict[str, str] | None = {}
        self.cancelled: list[str] = []
        self.refuses = refuses
        self.refused = 0

    def executor(self, folder: Path) -> "Imagined":
        del folder
        self.parameters: dict = {}
        return self

    def update_parameters(self, **parameters: object) -> None:
        self.parameters = parameters

    def submit_array(self, works: Sequence) -> list:
        if self.refuses and self.refuses in str(self.parameters):
            self.refused += 1
            raise submitit.core.utils.FailedJobError("sbatch: error: no such partition")
        names = [work.call.name for work in works]
        self.arrays.append((names, self.parameters))
        number = len(self.arrays)
        ids = [f"{number}_{place}" for place in range(len(works))] if len(works) > 1 else [str(number)]
        assert self.said is not None
        self.said |= dict.fromkeys(ids, "PENDING")
        return [_Id(each) for each in ids]

    def states(self) -> dict[str, str] | None:
        return self.said

    def cancel(self, job_ids: Sequence[str]) -> None:
        self.cancelled += job_ids


class _Id:
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[OneMachine]:
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{root}")
    cluster = OneMachine()
    yield cluster
    cluster.cancel(cluster.jobs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


def job(folder: Path, name: str, *words: str, **others: object) -> Job:
    task = Task(name=name, words=words or WORDS, **others)
    return Job(task, Call(name, task.words, folder, {}))


def wait_for(engine: SlurmEngine, number: int, seconds: float = 60.0) -> dict[str, Outcome]:
    until, outcomes = time.monotonic() + seconds, {}
    while len(outcomes) < number:
        assert time.monotonic() < until, f"{number} wanted, {outcomes} there"
        outcomes |= dict(engine.finished(0.05))
    return outcomes


def imagined_engine(cluster: Imagined, **others: object) -> SlurmEngine:
    return SlurmEngine(PERFORM, cluster=cluster, seconds_between_queues=0.0, late_seconds=0.0, **others)


def look(engine: SlurmEngine) -> dict[str, Outcome]:
    engine._next_look = 0.0
    return dict(engine.finished(0.0))


@pytest.mark.slow
def test_tasks_are_done_with_their_records_and_logs(local: OneMachine, folder: Path) -> None:
    engine = SlurmEngine(PERFORM, cluster=local)
    engine.start([job(folder, "a", "touch", str(folder / "there")), job(folder, "b", "fail", "2", "wrong")])
    outcomes = wait_for(engine, 2)
    assert outcomes["a"].is_done
    assert outcomes["a"].place
    assert (outcomes["b"].status, outcomes["b"].message) == (2, "wrong")
    assert (folder / "there").read_text() in outcomes["a"].place
    assert read_record(folder / "b.json", TaskRecord).status == 2
    assert "error: wrong" in (folder / "b.log").read_text()
    assert local.asked == 1, "the queue is for what leaves no outcome"
    assert list(files_of(folder).glob("?.json")) == [], "records of jobs go with them"


@pytest.mark.slow
def test_a_killed_job_is_done_again(local: OneMachine, folder: Path) -> None:
    engine = SlurmEngine(PERFORM, cluster=local, seconds_between_queues=0.5, late_seconds=0.5)
    engine.start([job(folder, "a", "die_once", str(folder / "died"))])
    assert wait_for(engine, 1)["a"].is_done
    assert len(local.jobs) == 2


@pytest.mark.slow
def test_another_driver_waits_for_the_job_of_a_killed_one(local: OneMachine, folder: Path) -> None:
    SlurmEngine(PERFORM, cluster=local).start([job(folder, "a", "sleep", "5")])
    second = SlurmEngine(PERFORM, cluster=local)
    second.start([job(folder, "a", "sleep", "5")])
    assert wait_for(second, 1)["a"].is_done
    assert len(local.jobs) == 1


@pytest.mark.slow
def test_a_job_that_was_stopped_leaves_no_outcome(local: OneMachine, folder: Path) -> None:
    engine = SlurmEngine(PERFORM, cluster=local)
    engine.start([job(folder, "a", "sleep", "60")])
    until = time.monotonic() + 30
    while not (folder / "a.json").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    process = int(read_record(folder / "a.json", TaskRecord).place.split()[-1])
    blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    assert blocked
    assert int(blocked[1], 16) >> (signal.SIGUSR2 - 1) & 1, "and so it is in what the task starts: loaders live on"
    os.kill(process, signal.SIGUSR2)
    while is_there(process):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert list(files_of(folder).glob("*_outcome.json")) == []
    assert read_record(folder / "a.json", TaskRecord).status is None, (
        "programs of tests do not say how they were stopped"
    )


def test_tasks_that_ask_for_the_same_are_one_array(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster, num_tasks=2, options={"gpus_per_node": "1", "partition": "gpu"})
    assert engine.places == 2
    big = 5 << 30
    engine.start(
        [
            job(folder, "a", memory_bytes=2 << 30),
            job(folder, "big", memory_bytes=big),
            job(folder, "b", memory_bytes=2 << 30),
            job(folder, "report", uses_gpu=False),
        ]
    )
    assert [names for names, _ in cluster.arrays] == [["a", "b"], ["big"], ["report"]]
    first, second, third = (parameters for _, parameters in cluster.arrays)
    assert (first["mem"], second["mem"]) == ("4G", "10G")
    assert "mem" not in third
    assert first["gpus_per_node"] == "1"
    assert "gpus_per_node" not in third
    assert {each["partition"] for each in (first, second, third)} == {"gpu"}
    assert {each["array_parallelism"] for each in (first, second, third)} == {2}
    assert read_record(files_of(folder) / "b.json", JobRecord).job_id == "1_1"


def test_jobs_say_what_sbatch_is_to_read(folder: Path, tmp_path: Path) -> None:
    given = {"partition": "gpu", "exclusive": "", "setup": "module load cuda", "time": "1-12"}
    given["additional_parameters"] = "reservation=night licenses=a,b hold"
    text = submitit.slurm.slurm._make_sbatch_string("run", tmp_path, **slurm_parameters(given))
    for line in ("--partition=gpu", "--exclusive", "--time=1-12", "--reservation=night", "--licenses=a,b", "--hold"):
        assert f"#SBATCH {line}\n" in text
    assert "#SBATCH --requeue\n" in text
    assert "\nmodule load cuda\n" in text
    assert "SRUN_CPUS_PER_TASK" in text
    plain = submitit.slurm.slurm._make_sbatch_string("run", tmp_path, **slurm_parameters({}))
    assert "--time" not in plain, "the time of the partition counts"
    assert "--wckey" not in plain
    never = slurm_parameters({"additional_parameters": "no-requeue"})["additional_parameters"]
    assert never == {"no-requeue": True}


def test_all_keys_are_known_to_submitit() -> None:
    assert set(KNOWN) <= set(submitit.slurm.slurm._get_default_parameters())


def test_memory_that_the_user_names_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(name="a", words=WORDS, memory_bytes=1 << 30)
    assert parameters_of(task, slurm_parameters({"mem": "64G"}))["mem"] == "64G"
    assert "mem" not in parameters_of(task, slurm_parameters({"mem_per_cpu": "4G"}))
    plain = Task(name="a", words=WORDS, memory_bytes=1 << 30, uses_gpu=False)
    assert parameters_of(plain, slurm_parameters({"mem_per_gpu": "4G"}))["mem"] == "2G"
    monkeypatch.setenv("SBATCH_MEM_PER_CPU", "2G")
    assert "mem" not in parameters_of(task, slurm_parameters({}))


def test_an_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"account, .*partition.*got partitions; .*additional_parameters="):
        slurm_parameters({"partitions": "gpu"})


def test_without_a_number_there_are_many_places(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    assert engine.places == MOST_PLACES
    engine.start([job(folder, "a")])
    assert "array_parallelism" not in cluster.arrays[0][1]


def test_a_lost_job_is_submitted_again_a_few_times(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    for number in range(1, LOST_RETRIES + 2):
        assert look(engine) == {}, "it waits in the queue"
        assert len(cluster.arrays) == number
        assert cluster.said is not None
        cluster.said[str(number)] = "NODE_FAIL"
        outcomes = look(engine)
    assert outcomes["a"].status == -signal.SIGTERM
    assert "ended 4 times without an outcome (the last time: NODE_FAIL)" in outcomes["a"].message
    assert len(cluster.arrays) == LOST_RETRIES + 1


def test_a_job_that_squeue_knows_no_more_is_lost(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a"), job(folder, "b")])
    assert cluster.said is not None
    del cluster.said["1_1"]
    assert look(engine) == {}
    assert [names for names, _ in cluster.arrays] == [["a", "b"], ["b"]]


@pytest.mark.parametrize(
    ("state", "told"), [("CANCELLED", "1 was cancelled; the same command goes on"), ("OUT_OF_MEMORY", "mem=32G")]
)
def test_a_cancelled_job_is_not_submitted_again(folder: Path, state: str, told: str) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    cluster.said = {"1": state}
    outcome = look(engine)["a"]
    assert outcome.status == -signal.SIGTERM
    assert told in outcome.message
    assert len(cluster.arrays) == 1


def test_an_outcome_may_appear_late(folder: Path) -> None:
    cluster = Imagined()
    engine = SlurmEngine(PERFORM, cluster=cluster, seconds_between_queues=0.0, late_seconds=60.0)
    engine.start([job(folder, "a")])
    cluster.said = {"1": "COMPLETED"}
    assert look(engine) == {}
    assert look(engine) == {}
    path = outcome_of(folder, "1")
    path.write_text("{")
    assert look(engine) == {}, "half of it is there"
    path.write_text('{"status": 2, "message": "wrong"}')
    assert look(engine)["a"].message == "wrong"
    assert len(cluster.arrays) == 1


def test_a_job_that_is_put_back_into_the_queue_is_not_lost(folder: Path) -> None:
    cluster = Imagined()
    engine = SlurmEngine(PERFORM, cluster=cluster, seconds_between_queues=0.0, late_seconds=0.2)
    engine.start([job(folder, "a")])
    for state in ("PREEMPTED", "PENDING", "PREEMPTED"):
        cluster.said = {"1": state}
        assert look(engine) == {}
        time.sleep(0.25 if state == "PENDING" else 0.0)
    assert len(cluster.arrays) == 1


def test_what_slurm_does_not_say_ends_nothing(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    cluster.said = None
    assert look(engine) == {}
    assert len(cluster.arrays) == 1


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"])
def test_a_job_of_an_earlier_call_is_waited_for(folder: Path, state: str) -> None:
    cluster = Imagined()
    imagined_engine(cluster).start([job(folder, "a"), job(folder, "b")])
    assert cluster.said is not None
    cluster.said["1_0"] = state
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a"), job(folder, "b")])
    assert len(cluster.arrays) == 1
    assert set(engine.running) == {"1_0", "1_1"}


def test_a_job_of_an_earlier_call_that_does_something_else_is_cancelled(folder: Path) -> None:
    cluster = Imagined()
    imagined_engine(cluster).start([job(folder, "a")])
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a", "touch", "other")])
    assert set(engine.running) == {"2"}
    assert cluster.cancelled == ["1"]


@pytest.mark.parametrize("text", ["", "{}", '{"words": ["touch", "there"], "job_id": "1; rm", "attempt": 1}'])
def test_a_damaged_record_of_a_job_counts_for_nothing(folder: Path, text: str) -> None:
    cluster = Imagined()
    imagined_engine(cluster).start([job(folder, "a")])
    (files_of(folder) / "a.json").write_text(text)
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    assert set(engine.running) == {"2"}


def test_an_id_is_nothing_but_an_id() -> None:
    with pytest.raises(ValidationError, match="job_id"):
        JobRecord(words=WORDS, job_id="--user=me", attempt=1)


def test_earlier_jobs_are_never_done_twice_while_squeue_is_silent(folder: Path) -> None:
    cluster = Imagined()
    imagined_engine(cluster).start([job(folder, "a")])
    cluster.said = None
    with pytest.raises(InputError, match="1, jobs of an earlier call, are there still"):
        imagined_engine(cluster).start([job(folder, "a")])
    assert len(cluster.arrays) == 1


def test_a_job_that_ended_in_between_is_done_again(folder: Path) -> None:
    """The task failed, or it would not be asked for."""
    cluster = Imagined()
    imagined_engine(cluster).start([job(folder, "a")])
    outcome_of(folder, "1").write_text('{"status": 2}')
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    assert set(engine.running) == {"2"}


def test_stop_cancels_and_the_next_call_submits(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a"), job(folder, "b")])
    engine.stop()
    engine.stop()
    assert cluster.cancelled == ["1_0", "1_1"]
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    assert set(engine.running) == {"2"}


def test_an_old_record_never_stands_for_a_lost_job(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    folder.mkdir()
    each = job(folder, "a")
    record_of(each.call).write_text(
        '{"words": ["touch", "there"], "place": "x", "begun": 1, "seconds": 1, "status": 0}'
    )
    engine.start([each])
    cluster.said = {"1": "CANCELLED"}
    assert not look(engine)["a"].is_done


def test_what_slurm_refuses_is_an_error_of_the_user(folder: Path) -> None:
    engine = imagined_engine(Imagined(refuses="nowhere"), options={"partition": "nowhere"})
    with pytest.raises(InputError, match="SLURM refuses a: sbatch: error: no such partition"):
        engine.start([job(folder, "a")])


def test_what_slurm_refuses_while_others_run_waits(folder: Path) -> None:
    cluster = Imagined()
    engine = imagined_engine(cluster)
    engine.start([job(folder, "a")])
    cluster.refuses = "seg25d"
    engine.start([job(folder, "b")])
    engine.start([])
    assert set(engine.running) == {"1"}
    assert cluster.refused == 1, "what begins nothing does not ask again"
    cluster.refuses = ""
    look(engine)
    assert set(engine.running) == {"1", "2"}


def test_without_slurm_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="got no sbatch, srun, squeue, scancel"):
        SlurmEngine(PERFORM)


def test_an_interrupted_command_ends_with_the_status_that_is_looked_for() -> None:
    assert INTERRUPTED == COMMAND_INTERRUPTED


def test_jobs_whose_records_cannot_be_written_are_cancelled(folder: Path) -> None:
    cluster = Imagined()
    engine = SlurmEngine(PERFORM, cluster=cluster)
    (files_of(folder) / "a.json").mkdir(parents=True)
    with pytest.raises(InputError):
        engine.start([job(folder, "a"), job(folder, "b")])
    engine.stop()
    assert sorted(cluster.cancelled) == ["1_0", "1_1"]
