"""Engines by name."""

import os
from collections.abc import Mapping

import torch

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.orchestration.engine import Engine
from seg25d.orchestration.engine_names import EngineName
from seg25d.orchestration.here_engine import HereEngine
from seg25d.orchestration.local_engine import LocalEngine
from seg25d.orchestration.perform import perform

PACKAGES = {"ray": "ray", "slurm": "submitit"}
"""What engines need beside seg25d itself, by the name of the engine, which is that of the extra."""


def make_engine(
    name: EngineName,
    num_tasks: int | None = None,
    device: str | None = None,
    num_processes: int | None = None,
    slurm: Mapping[str, str] | None = None,
) -> Engine:
    """Make an engine, which takes tasks from now on.

    Args:
        name: Its name.
        num_tasks: Tasks at a time; None: as many as there are GPUs, or one on CPUs; on a cluster what it has room for.
        device: Where tasks run; None: the best there is.
        num_processes: 0: tasks run in this process, if this machine is to run them.
        slurm: What jobs of SLURM ask for, see `slurm_parameters.slurm_parameters`.

    Raises:
        InputError: If what it needs is not installed or not there, or the device is not available here.
    """
    try:
        if name == "ray":
            from seg25d.orchestration.ray_engine import RayEngine  # noqa: PLC0415 - an extra, and heavy

            return RayEngine(perform, num_tasks, uses_gpus=(device or "cuda").startswith("cuda"))
        if name == "slurm":
            from seg25d.orchestration.slurm_engine import SlurmEngine  # noqa: PLC0415 - an extra

            return SlurmEngine(perform, num_tasks, slurm)
    except ImportError as error:
        raise InputError(
            f"--on {name} needs the package {PACKAGES[name]} (pip install 'seg25d[{name}]'): {error}"
        ) from None
    if num_processes == 0 and num_tasks in (None, 1):
        return HereEngine(perform)
    gpus = _gpus(device)
    return LocalEngine(perform, num_tasks or max(1, len(gpus)), gpus)


def _gpus(device: str | None) -> list[str]:
    """The GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them, if tasks run there and share them out."""
    if choose_execution(device).device.type != "cuda" or (device or "").startswith("cuda:"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
