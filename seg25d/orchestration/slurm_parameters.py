"""What jobs of SLURM ask for: words of the site, from the user, and what follows from a task. Loads nothing heavy."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seg25d.core.errors import InputError

if TYPE_CHECKING:
    from seg25d.orchestration.task import Task

FOR_GPUS = ("cpus_per_gpu", "gpus_per_node", "gpus_per_task", "gres", "mem_per_gpu")
"""Parameters for tasks that use a GPU only."""
MEMORY = ("mem", "mem_per_cpu", "mem_per_gpu")
"""Parameters of which sbatch takes one at a time."""
LINES = ("setup", "teardown")
"""Shell commands around the task."""
ADDITIONAL = "additional_parameters"
KNOWN = (
    *("account", "comment", "constraint", "cpus_per_task", "dependency", "exclude", "exclusive", "job_name"),
    *("mail_type", "mail_user", "nodelist", "partition", "qos", "signal_delay_s", "time", "wckey"),
    *FOR_GPUS,
    *MEMORY[:2],
    *LINES,
    ADDITIONAL,
)
"""Parameters of submitit 1.5.4 (`submitit/slurm/slurm.py`), those aside that say what a task is: one process on one
node, started by srun."""
MEMORY_MARGIN = 2.0
"""Memory that a job asks for, in times of what its task is estimated to take: a job that takes more is killed, one that
asks for more only waits longer."""
EXPORT_CPUS = '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
"""srun takes this for granted no more since SLURM 22.05 (sbatch(1), --cpus-per-task)."""


def slurm_parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """Read what the user gives for all jobs.

    Args:
        options: Values by the names of parameters; an empty one stands for a flag, such as `exclusive`. Values of
            `additional_parameters` are options of sbatch, separated by spaces: `reservation=night licenses=a,b`.

    Returns:
        Parameters for submitit's executor. sbatch checks their values.

    Raises:
        InputError: If one is not known; lists those that are.
    """
    unknown = sorted(set(options) - set(KNOWN))
    if unknown:
        raise InputError(
            f"--slurm: expected KEY=VALUE with one of the keys {', '.join(sorted(KNOWN))}; got {', '.join(unknown)}; "
            f"for other options of sbatch: --slurm '{ADDITIONAL}=reservation=NAME licenses=NAME'"
        )
    given: dict[str, Any] = {key: value or True for key, value in options.items() if key not in (*LINES, ADDITIONAL)}
    lines = {key: [options[key]] for key in LINES if key in options}
    pairs = [word.partition("=") for word in options.get(ADDITIONAL, "").split()]
    additional: dict[str, Any] = {key: value or True for key, _, value in pairs}
    if "no-requeue" not in additional:
        additional["requeue"] = True  # nodes are lost, and a task that is done again goes on
    return {
        "job_name": "seg25d",
        "time": None,  # that of the partition; submitit would say five minutes
        "wckey": None,
        **given,
        **lines,
        "setup": [EXPORT_CPUS, *lines.get("setup", ())],
        ADDITIONAL: additional,
    }


def parameters_of(task: "Task", given: Mapping[str, Any]) -> dict[str, Any]:
    """What the job of a task asks for.

    Args:
        task: The task.
        given: For all jobs, of `slurm_parameters`; what it says of memory counts, as do variables of sbatch.
    """
    own = {key: value for key, value in given.items() if task.uses_gpu or key not in FOR_GPUS}
    said = any(key in own for key in MEMORY) or any(
        f"SBATCH_MEM_PER_{unit}" in os.environ for unit in ("NODE", "CPU", "GPU")
    )
    if task.memory_bytes and not said:
        own["mem"] = f"{math.ceil(MEMORY_MARGIN * task.memory_bytes / 2**30)}G"
    return own
