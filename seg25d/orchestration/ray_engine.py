"""Tasks on a Ray cluster: that which there is, else one of this machine which ends with this process.

Ray finds a place for each task, and does it again where its process or its machine is lost. A task runs in the main
thread of a process of Ray's, so that what ends this process ends the task, and with it its locks.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, LocalRayletDiedError, RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from seg25d import __version__
from seg25d.core.errors import InputError
from seg25d.core.parallel import available_cores
from seg25d.orchestration.engine import LOST_RETRIES, Job, Perform
from seg25d.orchestration.local_engine import GRACE_SECONDS
from seg25d.orchestration.perform import end_lost, forget
from seg25d.orchestration.ray_shares import Machine, machines_of, refusal_of, share_out
from seg25d.orchestration.task import Call, Outcome

logger = logging.getLogger(__name__)
STORE_BYTES = 80 << 20
"""For objects in shared memory, of which tasks have none: Ray wants at least 75 MiB
(`OBJECT_STORE_MINIMUM_MEMORY_BYTES`, ray/_private/ray_constants.py)."""
KNOCK_SECONDS = 10.0
"""How long a cluster's address may take to answer."""
ANSWER_SECONDS = 120.0
"""How long a machine may take to start Python and say its version: 1.5 s on two busy cores, but on a slow disk more."""


class RayEngine:
    """Runs tasks on a Ray cluster, see `engine.Engine`.

    Args:
        perform: Does a task.
        num_tasks: How many at a time; None: one per GPU, or one per machine where there are none.
        uses_gpus: Whether tasks use GPUs.

    Raises:
        InputError: If the cluster does not answer, has no machine for tasks, or a machine of it lacks this seg25d.
    """

    name = "ray"

    def __init__(self, perform: Perform, num_tasks: int | None = None, *, uses_gpus: bool = True) -> None:
        self.perform = perform
        self.waiting: deque[Job] = deque()
        self.running: dict[Any, Job] = {}
        """By the reference to its result."""
        self.refused: list[tuple[str, Outcome]] = []
        _connect()
        try:
            machines = machines_of(ray.nodes())
            if not machines:
                raise InputError("the Ray cluster has no CPUs for tasks (`ray status`); add machines: `ray start`")
            _check_versions(machines)
        except BaseException:
            ray.shutdown()
            raise
        self.share = share_out(machines, num_tasks, uses_gpus=uses_gpus)
        self.places = self.share.places
        self.most = num_tasks if num_tasks is not None else sys.maxsize
        """Tasks that Ray is given at a time; by default all, as machines may join the cluster."""
        threads = os.environ.get("OMP_NUM_THREADS") or str(self.share.threads)
        work = _work_with(threads)
        self.work = ray.remote(max_retries=LOST_RETRIES)(work)
        self.train = ray.remote(max_retries=LOST_RETRIES, max_calls=1)(work)
        """The same for trainings: the process ends with it, so that no two of them share one."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take tasks; what no machine has the memory for ends with status 2."""
        machines = machines_of(ray.nodes()) if jobs else []
        for job in jobs:
            task = job.task
            refusal = refusal_of(task.name, task.memory_bytes, self._gpus(job), machines)
            if refusal:
                self.refused.append((task.name, Outcome(status=InputError.exit_status, message=refusal)))
            else:
                self.waiting.append(job)
        self._fill()

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        """Wait for a task to end."""
        outcomes, self.refused = self.refused, []
        references = list(self.running)
        if references:
            ray.wait(references, timeout=0.0 if outcomes else patience_seconds)
            for reference in ray.wait(references, num_returns=len(references), timeout=0.0)[0]:
                job = self.running.pop(reference)
                outcomes.append((job.task.name, _outcome(reference, job.call)))
        self._fill()
        return outcomes

    def stop(self) -> None:
        """Stop all tasks, of which trainings save their state, and leave the cluster; one of our own ends."""
        self.waiting.clear()
        references = list(self.running)
        for force in (False, True):
            for reference in references:
                ray.cancel(reference, force=force)
            if references:
                references = ray.wait(references, num_returns=len(references), timeout=GRACE_SECONDS)[1]
        for job in self.running.values():
            end_lost(job.call, -signal.SIGTERM, "stopped; the same command goes on")
        self.running.clear()
        ray.shutdown()

    def _fill(self) -> None:
        """Give tasks to Ray, which begins them when there is a place."""
        while self.waiting and len(self.running) < self.most:
            job = self.waiting.popleft()
            forget(job.call)
            options: dict[str, Any] = {"name": job.task.name, "num_cpus": self.share.cpus, "num_gpus": self._gpus(job)}
            if job.task.memory_bytes:
                options["memory"] = job.task.memory_bytes
            work = self.work if job.task.progress is None else self.train
            self.running[work.options(**options).remote(self.perform, job.call)] = job

    def _gpus(self, job: Job) -> float:
        return self.share.gpus if job.task.uses_gpu else 0.0


def _connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names or that `ray start` has made known on this machine, or start one.

    Raises:
        InputError: If there is one, but it does not answer.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(LOST_RETRIES))  # without it: for ever
    variables = {name: os.environ[name] for name in ("PYTHONPATH",) if os.environ.get(name)}
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": variables} if variables else None,
    }
    with _handlers_kept():
        if not _knows_cluster():
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            own = {"num_cpus": available_cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
            ray.init(address="local", **own, **common)
            return
        try:
            _knock()
            ray.init(**common)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"the Ray cluster ({os.environ.get('RAY_ADDRESS') or _address_file()}) cannot be joined: "
                f"{_first_line(error)}; see `ray status`. `ray stop` forgets one that is gone, and RAY_ADDRESS=local "
                "has one of this machine"
            ) from None


def _knows_cluster() -> bool:
    """Whether there is a cluster to join: others of a single process, like our own, end with that process."""
    address = os.environ.get("RAY_ADDRESS")
    return address != "local" if address else _address_file().exists()


def _address_file() -> Path:
    """Where `ray start` says how to reach its cluster (docs.ray.io, `ray.init`)."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR")
    return Path(folder or ("/tmp" if os.name == "posix" else tempfile.gettempdir())) / "ray" / "ray_current_cluster"


def _knock() -> None:
    """See whether somebody listens at the cluster's address: Ray would try for minutes.

    Raises:
        OSError: If nobody does.
    """
    address = os.environ.get("RAY_ADDRESS") or _address_file().read_text(encoding="utf-8").strip()
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, for which Ray has one of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_versions(machines: Sequence[Machine]) -> None:
    """Ask all machines for their seg25d.

    Raises:
        InputError: If one has none, or another version.
    """

    def version() -> str:  # inside of this function Ray sends its code, which needs no seg25d there
        import seg25d  # noqa: PLC0415 - the one of that machine

        return seg25d.__version__

    ask = ray.remote(num_cpus=0, max_retries=LOST_RETRIES)(version)
    asked = [
        (machine, ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(machine.identifier, soft=False)))
        for machine in machines
    ]
    for machine, reference in [(machine, each.remote()) for machine, each in asked]:
        try:
            there = ray.get(reference, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            raise InputError(
                f"{machine.name} of the Ray cluster did not start Python within {ANSWER_SECONDS:g} s; see `ray status`"
            ) from None
        except (RayTaskError, RuntimeEnvSetupError) as error:
            raise InputError(
                f"{machine.name} of the Ray cluster cannot import seg25d ({_last_line(error)}); install seg25d "
                f"{__version__} on all of its machines, or set PYTHONPATH to a folder that all of them see"
            ) from None
        except RayError as error:  # it has just been lost
            logger.warning("%s of the Ray cluster does not answer: %s", machine.name, _first_line(error))
            continue
        if there != __version__:
            raise InputError(
                f"{machine.name} of the Ray cluster has seg25d {there}, expected {__version__} as here; install the "
                "same version on all machines"
            )


def _work_with(threads: str) -> Callable[[Perform, Call], Outcome]:
    """What Ray's processes do: a task, with the same number of threads wherever it is."""

    def work(perform: Perform, call: Call) -> Outcome:
        os.environ["OMP_NUM_THREADS"] = threads
        return perform(call)

    return work


def _outcome(reference: Any, call: Call) -> Outcome:
    """How a task ended that Ray is through with."""
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except RayTaskError as error:
        return end_lost(call, 1, _last_line(error))
    except RayError as error:
        return end_lost(call, -signal.SIGKILL, _loss(error))


def _loss(error: RayError) -> str:
    """How a task was lost for good."""
    if isinstance(error, LocalRayletDiedError):
        return "Ray has ended on this machine; start it again (`ray start`), then the same command goes on"
    return (
        f"its process or machine was lost {LOST_RETRIES + 1} times: perhaps the memory does not suffice "
        f"({_first_line(error)})"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
