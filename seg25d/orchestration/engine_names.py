"""What commands know of engines before they load any: their names, and what processes need."""

from typing import Literal

EngineName = Literal["local", "ray", "slurm"]
ENGINE_NAMES: tuple[EngineName, ...] = ("local", "ray", "slurm")
PROCESSES_LOAD = ("numpy", "seg25d.cli.main", "seg25d.core.records")
"""Modules that the processes of tasks, and those that read images, load in advance; no torch."""
