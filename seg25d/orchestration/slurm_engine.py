"""Tasks as jobs of SLURM: an array for those that can begin together and ask for the same; jobs outlive this process.

submitit pickles what a job does, and its result, into `tasks/slurm` in the results of the data set: the user's own
folder, into which nothing comes from others. This module reads no pickle: a job writes its outcome as JSON, too.
"""

import logging
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import submitit
from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.lengths import count
from seg25d.core.records import Record, read_record, write_record
from seg25d.orchestration.engine import LOST_RETRIES, Job, Perform
from seg25d.orchestration.perform import end_lost, forget, last_error
from seg25d.orchestration.slurm_cluster import ENDED, Cluster, SlurmCluster
from seg25d.orchestration.slurm_parameters import parameters_of, slurm_parameters
from seg25d.orchestration.slurm_work import Work, files_of, outcome_of
from seg25d.orchestration.task import Outcome

logger = logging.getLogger(__name__)
MOST_PLACES = 1000
"""Tasks at a time where the user names no number: the largest array of SLURM as it comes (slurm.conf(5),
MaxArraySize)."""
SECONDS_BETWEEN_LOOKS = 1.0
"""Between lists of the folder in which outcomes appear."""
SECONDS_BETWEEN_QUEUES = 60.0
"""Between calls of squeue, which all programs together should call rarely (squeue(1), performance); as submitit's own
watcher has it (`InfoWatcher.delay_s`)."""
LATE_SECONDS = 60.0
"""How long after the end of a job its outcome may appear: as long as NFS keeps what it knows of a folder (nfs(5),
acdirmax)."""
_NOT_AGAIN = {
    "CANCELLED": "was cancelled; the same command goes on",
    "DEADLINE": "did not end before its deadline; the same command goes on",
    "OUT_OF_MEMORY": "took more memory than it had asked for: give --slurm mem=SIZE, such as mem=32G",
}
"""States after which a task is not done again by itself, and what to say then."""


class JobRecord(Record):
    """Content of `tasks/slurm/NAME.json`: the job that does a task, for a later call to find it."""

    schema_version: Literal[1] = 1
    words: tuple[str, ...]
    """The command, without `seg25d`."""
    job_id: str = Field(pattern=r"^\d+(_\d+)?$")
    attempt: int = Field(ge=1)


class _Running(NamedTuple):
    job: Job
    attempt: int


class SlurmEngine:
    """Runs tasks as jobs of SLURM, see `engine.Engine`.

    Args:
        perform: Does a task.
        num_tasks: Jobs of an array that run at a time; None: as many as SLURM has room for.
        options: Words of the site for all jobs, see `slurm_parameters`.
        cluster: What runs the jobs; None: the cluster of this machine.
        seconds_between_queues: Time between looks at the states of the jobs.
        late_seconds: How long after its end the outcome of a job may appear.

    Raises:
        InputError: If there is no SLURM here, or an option is not known.
    """

    name = "slurm"

    def __init__(
        self,
        perform: Perform,
        num_tasks: int | None = None,
        options: Mapping[str, str] | None = None,
        *,
        cluster: Cluster | None = None,
        seconds_between_queues: float = SECONDS_BETWEEN_QUEUES,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        self.perform = perform
        self.num_tasks = num_tasks
        self.places = num_tasks or MOST_PLACES
        self.parameters = slurm_parameters(options or {})
        self.cluster: Cluster = cluster or SlurmCluster()
        self.seconds_between_queues = seconds_between_queues
        self.late_seconds = late_seconds
        self.waiting: list[_Running] = []
        self.running: dict[str, _Running] = {}
        self._ended: dict[str, float] = {}
        """When a job was first seen to have ended without an outcome."""
        self._next_look = self._next_queue = 0.0

    def start(self, jobs: Sequence[Job]) -> None:
        """Submit tasks; those whose jobs of an earlier call are there still, are waited for.

        Raises:
            InputError: If SLURM refuses them, or does not say what became of earlier jobs.
        """
        if not jobs:
            return
        attached = self._attach(jobs)
        self.waiting += [_Running(job, 1) for job in jobs if job.task.name not in attached]
        self._submit()

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        """Wait for a task to end.

        Raises:
            InputError: If a lost task has to be submitted again, and SLURM refuses it.
        """
        now = time.monotonic()
        outcomes: list[tuple[str, Outcome]] = []
        if self.running and now >= self._next_look:
            self._next_look = now + SECONDS_BETWEEN_LOOKS
            outcomes += self._written()
            if self.running and now >= self._next_queue:
                self._next_queue = now + self.seconds_between_queues
                outcomes += self._lost(now)
                self._submit()
        if not outcomes:
            time.sleep(patience_seconds)
        return outcomes

    def stop(self) -> None:
        """Cancel all jobs; trainings save their state, and may take some seconds for it after this."""
        self.waiting.clear()
        if self.running:
            logger.info("cancelling %s of SLURM: %s", count(len(self.running), "job"), ", ".join(self.running))
            self.cluster.cancel(list(self.running))
        for each in self.running.values():
            _forget(each.job)
        self.running.clear()
        self._ended.clear()

    def _attach(self, jobs: Sequence[Job]) -> set[str]:
        """Wait for the jobs of an earlier call, and cancel those that do the same tasks otherwise.

        Returns:
            The names of the tasks that are waited for.
        """
        earlier: dict[str, tuple[Job, JobRecord]] = {}
        for job in jobs:
            with suppress(InputError):  # there is none, or it cannot be read
                record = read_record(_job_record(job), JobRecord)
                if not outcome_of(job.call.folder, record.job_id).exists():
                    earlier[record.job_id] = job, record
        if not earlier:
            return set()
        states = self.cluster.states()
        if states is None:
            raise InputError(
                f"SLURM does not say whether {', '.join(earlier)}, jobs of an earlier call, are there still: give the "
                "same command again when squeue answers"
            )
        attached = set()
        for job_id, (job, record) in earlier.items():
            if states.get(job_id, "COMPLETED") in ENDED:
                continue
            logger.info("%s: job %s of an earlier call is %s", job.task.name, job_id, states[job_id].lower())
            if record.words == job.call.words:
                self.running[job_id] = _Running(job, record.attempt)
                attached.add(job.task.name)
            else:
                logger.info("it is cancelled, as it does: seg25d %s", " ".join(record.words))
                self.cluster.cancel([job_id])
        return attached

    def _submit(self) -> None:
        """Submit what waits, an array for all that asks for the same; what is refused, later, if jobs run."""
        groups: dict[str, list[_Running]] = defaultdict(list)
        for each in self.waiting:
            groups[repr(parameters_of(each.job.task, self.parameters))].append(each)
        for group in groups.values():
            try:
                ids = self._submit_array(group)
            except (RuntimeError, OSError) as error:  # submitit's errors are RuntimeErrors
                told = f"SLURM refuses {', '.join(each.job.task.name for each in group)}: {error}"
                if not self.running:
                    raise InputError(told) from None
                logger.warning("%s; it is tried again while others run", told)
                continue
            for each, job_id in zip(group, ids, strict=True):
                self.waiting.remove(each)
                self.running[job_id] = each
            for each, job_id in zip(group, ids, strict=True):
                record = JobRecord(words=each.job.call.words, job_id=job_id, attempt=each.attempt)
                write_record(_job_record(each.job), record)

    def _submit_array(self, group: Sequence[_Running]) -> list[str]:
        """Submit tasks that ask for the same; the ids of their jobs."""
        folder = files_of(group[0].job.call.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for each in group:
            forget(each.job.call)
        executor = self.cluster.executor(folder)
        parameters = parameters_of(group[0].job.task, self.parameters)
        if self.num_tasks is not None:
            parameters["array_parallelism"] = self.num_tasks
        executor.update_parameters(**parameters)
        jobs: list[submitit.Job[None]] = executor.submit_array([Work(self.perform, each.job.call) for each in group])
        ids = [job.job_id for job in jobs]
        told = ids[0] if len(ids) == 1 else f"array {ids[0].split('_')[0]}"
        logger.info("SLURM job %s: %s", told, ", ".join(each.job.task.name for each in group))
        return ids

    def _written(self) -> Iterable[tuple[str, Outcome]]:
        """The outcomes that have appeared since."""
        folders = {files_of(each.job.call.folder) for each in self.running.values()}
        names: set[str] = set()
        for folder in folders:
            with suppress(OSError):  # of a shared disk, for a moment
                names |= {path.name for path in folder.iterdir()}  # asks the server anew, as against single files
        outcomes = []
        for job_id, each in list(self.running.items()):
            path = outcome_of(each.job.call.folder, job_id)
            if path.name in names:
                with suppress(InputError):  # it cannot be read yet
                    outcomes.append((each.job.task.name, read_record(path, Outcome)))
                    self._drop(job_id)
        return outcomes

    def _lost(self, now: float) -> Iterable[tuple[str, Outcome]]:
        """The outcomes of tasks whose jobs ended without any; those that are to be done again wait now."""
        states = self.cluster.states()
        if states is None:
            return []
        outcomes = []
        for job_id, each in list(self.running.items()):
            state = states.get(job_id, "unknown to squeue")
            if job_id in states and state not in ENDED:
                self._ended.pop(job_id, None)
            elif now - self._ended.setdefault(job_id, now) >= self.late_seconds:
                self._drop(job_id)
                if state not in _NOT_AGAIN and each.attempt <= LOST_RETRIES:
                    logger.warning("%s: job %s left no outcome (%s)", each.job.task.name, job_id, state)
                    self.waiting.append(each._replace(attempt=each.attempt + 1))
                else:
                    outcomes.append((each.job.task.name, _end(each, job_id, state)))
        return outcomes

    def _drop(self, job_id: str) -> None:
        each = self.running.pop(job_id)
        self._ended.pop(job_id, None)
        _forget(each.job)


def _job_record(job: Job) -> Path:
    return files_of(job.call.folder) / f"{job.task.name}.json"


def _forget(job: Job) -> None:
    """Remove the record of a task's job."""
    with suppress(OSError):
        _job_record(job).unlink(missing_ok=True)


def _end(each: _Running, job_id: str, state: str) -> Outcome:
    """End a task that is not done again."""
    what = _NOT_AGAIN.get(state)
    if what is None:
        what = f"ended {each.attempt} times without an outcome (the last time: {state})"
        with suppress(OSError):
            log = files_of(each.job.call.folder) / f"{job_id}_0_log.err"
            what += f": {last_error(log)} ({log})"
    return end_lost(each.job.call, -signal.SIGTERM, f"its SLURM job {job_id} {what}")
