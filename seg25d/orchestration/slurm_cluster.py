"""A SLURM cluster, as far as it is asked: its executor, the states of the user's jobs, and their end.

The states are those of `squeue`, which every cluster has: `sacct` needs an accounting database.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import submitit

from seg25d.core.errors import InputError

logger = logging.getLogger(__name__)
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    )
)
"""States of jobs that have ended (squeue(1), job state codes); of all others a job has still to come or is there."""
COMMAND_SECONDS = 60.0
"""How long a command of SLURM may take to answer; a busy controller lets them wait."""


class Cluster(Protocol):
    """What runs jobs."""

    def executor(self, folder: Path) -> submitit.Executor:
        """What submits jobs, with its files in a folder."""

    def states(self) -> Mapping[str, str] | None:
        """States of the user's jobs by their ids, those that ended lately too; None: it does not answer."""

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs, running or not."""


class SlurmCluster:
    """The SLURM cluster of this machine, see `Cluster`.

    Raises:
        InputError: If this machine has none.
    """

    def __init__(self) -> None:
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise InputError(
                f"--on slurm needs the commands of SLURM on this machine, got no {', '.join(missing)}: log in to a "
                "machine from which jobs are submitted, or add the folder of its commands to PATH"
            )

    def executor(self, folder: Path) -> submitit.Executor:
        """What submits jobs."""
        return submitit.SlurmExecutor(folder)

    def states(self) -> Mapping[str, str] | None:
        """States of the user's jobs."""
        command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
        output = _output(command)
        if output is None:
            return None
        return dict(line.split(maxsplit=1) for line in output.splitlines() if line.strip())

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End jobs: SLURM sends SIGTERM, and SIGKILL after its KillWait, which is 30 s (slurm.conf(5))."""
        _output(["scancel", *job_ids])


def _output(command: Sequence[str]) -> str | None:
    """What a command says; None if it fails, with a warning."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS)
    except subprocess.CalledProcessError as error:
        logger.warning("%s failed with status %d: %s", command[0], error.returncode, error.stderr.strip())
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s failed: %s", command[0], error)
    else:
        return done.stdout
    return None
