"""What commands know of engines before they load any: their names, and what processes need."""

from typing import Literal

EngineName = Literal["local", "ray", "slurm"]
ENGINE_NAMES: tuple[EngineName, ...] = ("local", "ray", "slurm")
PROCESSES_LOAD = ("numpy", "seg25d.cli.main", "seg25d.orchestration.local_engine", "seg25d.runs.task_records")
"""Modules that the processes of tasks on this machine are born with: none of torch's, which has threads."""
