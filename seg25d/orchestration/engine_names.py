"""Names of what runs tasks; without imports, as `--help` tells them."""

from typing import Literal

EngineName = Literal["local", "ray", "slurm"]
ENGINE_NAMES: tuple[EngineName, ...] = ("local", "ray", "slurm")
