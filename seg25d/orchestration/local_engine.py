"""Tasks on this machine: each in a process of its own, as many at a time as there are GPUs and as fit into the memory.

A task ends with the program that started it, however that ends: trainings save their state first.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from seg25d.core.parallel import available_cores, available_memory_bytes, start_worker_server, worker_context
from seg25d.core.process import leave
from seg25d.orchestration.engine import LOST_RETRIES, Job, Perform
from seg25d.orchestration.engine_names import PROCESSES_LOAD
from seg25d.orchestration.perform import end_lost, forget, log_of
from seg25d.orchestration.task import Call, Outcome

GRACE_SECONDS = 60.0
"""How long a task that is to stop may take to save its state; an update of a large window takes 16 s on two cores
(documentation/reference/measurements.md)."""
SHARE_OF_MEMORY = 0.8
"""Of what is free, for all tasks together: as for worker processes (`core/parallel.py`)."""


class _Running(NamedTuple):
    process: BaseProcess
    job: Job
    place: int
    attempt: int


class LocalEngine:
    """Runs tasks on this machine, see `engine.Engine`.

    Args:
        perform: Does a task.
        places: How many at a time; each gets its share of the cores.
        gpus: Names of GPUs for `CUDA_VISIBLE_DEVICES`: a task gets that of its place; none: it sees what this process
            does.
    """

    name = "local"

    def __init__(self, perform: Perform, places: int = 1, gpus: Sequence[str] = ()) -> None:
        start_worker_server(PROCESSES_LOAD)
        self.perform = perform
        self.places = places
        self.gpus = gpus
        self.memory_bytes = SHARE_OF_MEMORY * available_memory_bytes()
        self.waiting: list[tuple[Job, int]] = []
        self.running: list[_Running] = []
        self.is_stopping = False

    def start(self, jobs: Sequence[Job]) -> None:
        """Take tasks."""
        self.waiting += [(job, 1) for job in jobs]
        self._fill()

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        """Wait for a task to end."""
        ended = set(wait([each.process.sentinel for each in self.running], patience_seconds)) if self.running else set()
        outcomes = []
        for each in [each for each in self.running if each.process.sentinel in ended]:
            self.running.remove(each)
            each.process.join()
            code = each.process.exitcode or 0
            if code < 0 and each.attempt <= LOST_RETRIES:
                self.waiting.append((each.job, each.attempt + 1))
                continue
            outcomes.append((each.job.task.name, end_lost(each.job.call, code or 1, _death(code))))
        self._fill()
        return outcomes

    def stop(self) -> None:
        """Stop all tasks: trainings save their state; a second call while they do kills them."""
        self.waiting.clear()
        for each in self.running:
            each.process.terminate()
        until = time.monotonic() + (0.0 if self.is_stopping else GRACE_SECONDS)
        self.is_stopping = True
        for each in self.running:
            each.process.join(max(0.0, until - time.monotonic()))
            each.process.kill()
            each.process.join()
            end_lost(each.job.call, -signal.SIGTERM, "stopped; the same command goes on")
        self.running.clear()
        self.is_stopping = False

    def _fill(self) -> None:
        """Begin waiting tasks for which there is a place, in their order."""
        while self.waiting and len(self.running) < self.places:
            job, attempt = self.waiting[0]
            taken = sum(each.job.task.memory_bytes for each in self.running)
            if self.running and taken + job.task.memory_bytes > self.memory_bytes:
                return
            del self.waiting[0]
            forget(job.call)
            place = min(set(range(self.places)) - {each.place for each in self.running})
            process = worker_context().Process(  # type: ignore[attr-defined] # the base class does not declare it
                target=_work, args=(self.perform, job.call, self._variables(job, place)), name=job.task.name
            )
            process.start()
            self.running.append(_Running(process, job, place, attempt))

    def _variables(self, job: Job, place: int) -> dict[str, str]:
        """What a task is told of its share of the machine."""
        variables = {}
        if self.gpus and job.task.uses_gpu:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        if self.places > 1:
            variables["OMP_NUM_THREADS"] = str(max(1, available_cores() // self.places))
        return variables


def _death(code: int) -> str:
    if code >= 0:
        return "its process ended in the middle; its log says more"
    return f"its process was killed by signal {-code}, {LOST_RETRIES + 1} times: perhaps the memory does not suffice"


def _work(perform: Perform, call: Call, variables: Mapping[str, str]) -> None:
    """Do a task in this new process, and end it."""
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    call.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(log_of(call), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):  # what native code says
        os.dup2(log, stream)
    _stop_with_parent()
    leave(perform(call).status)


def _stop_with_parent() -> None:
    """Stop this process when the one that started it is gone, even if that was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
