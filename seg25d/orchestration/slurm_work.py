"""What a job of SLURM does: one task, with what SLURM's signals mean for it."""

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import submitit

from seg25d.core.records import write_record
from seg25d.orchestration.engine import Perform
from seg25d.orchestration.task import INTERRUPTED, Call

logger = logging.getLogger(__name__)
MOST_RESTARTS = 100
"""How often a job begins again whose time was up: four days of a partition that gives an hour; without a bound, a task
that never gets anywhere in the time of its job would go on for ever."""


def files_of(folder: Path) -> Path:
    """The folder of submitit's files, of job records and of outcomes, in that of a run's tasks."""
    return folder / "slurm"


def outcome_of(folder: Path, job_id: str) -> Path:
    """The file with the outcome of a job that ended by itself; no other job has it, so that none is ever out of date.

    Args:
        folder: That of the run's tasks.
        job_id: Of the job: `12`, or `12_3` in an array.
    """
    return files_of(folder) / f"{job_id}_outcome.json"


@dataclass(frozen=True)
class Work:
    """Does a task in the process of its job; submitit stores it.

    SIGTERM (the job is cancelled, preempted, or has no more time): the task stops, and trainings save their state.
    SIGUSR2, which SLURM sends `signal_delay_s` before the time of the job is up: the same, and the job goes back into
    the queue. A job that was stopped leaves no outcome.

    Args:
        perform: Does a task.
        call: The task.
    """

    perform: Perform
    call: Call

    def __call__(self) -> None:
        """Do the task.

        Raises:
            SystemExit: If it was stopped.
        """
        job_id = submitit.JobEnvironment().job_id
        time_is_up = _stop_before_the_time_is_up()
        try:
            outcome = self.perform(self.call)
            if outcome.status != INTERRUPTED:
                write_record(outcome_of(self.call.folder, job_id), outcome)
                return
        except KeyboardInterrupt:
            logger.info("stopped outside of the command")
        if time_is_up.is_set() and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < MOST_RESTARTS:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # with which SLURM ends what it puts back
            with suppress(OSError):  # what asks for the job sees that it has gone
                subprocess.run(["scontrol", "requeue", job_id], check=False)
        raise SystemExit(INTERRUPTED)


def _stop_before_the_time_is_up() -> threading.Event:
    """Have signals stop the task; what comes back is set when SLURM says that the time of the job is nearly up.

    SLURM sends signals to all processes of a job. What this process starts inherits that SIGUSR2 is blocked: loaders of
    batches would die of it, and they live until the state is saved (`training/loading.py`). A thread waits for it;
    threads that are older than this call may take it, too, for which there is a handler.
    """
    time_is_up = threading.Event()

    def receive(number: int, frame: FrameType | None = None) -> None:
        del number, frame
        if not time_is_up.is_set():
            time_is_up.set()
            os.kill(os.getpid(), signal.SIGTERM)

    # In place of submitit's, which ignores SIGTERM, and ends the process at SIGUSR2 wherever it is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGUSR2, receive)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    threading.Thread(target=lambda: receive(signal.sigwait({signal.SIGUSR2})), daemon=True).start()
    return time_is_up
