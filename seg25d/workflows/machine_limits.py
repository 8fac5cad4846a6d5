"""The machine that a data set is planned for: the one that it was planned for before, else the one that is here."""

import logging
from typing import NamedTuple

from seg25d.core.device import choose_execution, gpu_memory_gb
from seg25d.core.parallel import machine_memory_bytes
from seg25d.core.progress import format_seconds
from seg25d.core.types import Auto
from seg25d.machine.speed import cpu_gflops
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.plan import Plans
from seg25d.planning.search import update_seconds

logger = logging.getLogger(__name__)
WITHOUT_GPU_GB = (8.0, 4.0, 2.0)
"""GiB of a training step where there is no GPU: the first of them of which the machine has about twice as much, else
the last. The other half is for the system, other programs, arrays in memory and worker processes, and CPUs without
bfloat16 keep activations in float32, in twice the bytes. Few numbers, so that like machines plan the same."""
SHARE_OF_MACHINE = 8 / 15
"""Share of the memory that a training step may take: half of 16 GB, of which 15 or more are left to programs."""


class MachineLimits(NamedTuple):
    """What a training step may take."""

    gpu_memory_gb: float
    """GiB of memory."""
    cpu_gflops: float
    """Speed of the CPUs that train, see `plan_dataset`; 0: any time."""


def machine_limits(
    name: str, stored: Plans | None, memory_gb: float | Auto, gflops: float | Auto | None, device: str | None
) -> MachineLimits:
    """What plans are made for.

    Args:
        name: Of the data set, for messages.
        stored: Its plans; None: there are none to keep.
        memory_gb: GiB; `auto`: those of the stored plans, else those of the GPU that is here, else 8,
            or fewer of a small machine (`WITHOUT_GPU_GB`).
        gflops: Speed of the CPUs that train; `auto`: that of the stored plans, else of this machine if it trains on
            CPUs: it has no GPU and no memory is given, or the device is `cpu`; None: that of the stored plans, else 0.
        device: Of trainings; None: the best there is.
    """
    here = None if isinstance(memory_gb, float) else gpu_memory_gb(device)
    if isinstance(memory_gb, float):
        memory = memory_gb
    elif stored is not None:
        memory = stored.gpu_memory_gb
        if here is not None and here != memory:
            logger.info(
                "%s: as planned before, for %g GB; the GPU here has %g: --gpu-memory-gb %g plans for that, anew",
                *(name, memory, here, here),
            )
    else:
        memory, why = (here, "those of the GPU") if here else _memory_without_gpu()
        logger.info("%s: planning for %g GB, %s; --gpu-memory-gb takes another number", name, memory, why)
    if isinstance(gflops, float):
        return MachineLimits(memory, gflops)
    if stored is not None and memory == stored.gpu_memory_gb:
        if stored.cpu_gflops and here is not None:
            logger.info(
                "%s: as planned before, for CPUs of %g GFLOP/s; --cpu-gflops 0 --gpu-memory-gb %g plans for this GPU, "
                "anew",
                *(name, stored.cpu_gflops, here),
            )
        elif not stored.cpu_gflops and (device == "cpu" or gflops == "auto") and _trains_on_cpu(device):
            logger.info(
                "%s: as planned before, whatever an update takes; --cpu-gflops N plans for CPUs of that speed, anew",
                name,
            )
        return MachineLimits(memory, stored.cpu_gflops)
    if gflops is None or not plans_for_cpus(memory_gb, device):
        if stored is not None and stored.cpu_gflops:
            logger.info("%s: planning for %g GB, and no longer for CPUs of %g GFLOP/s", name, memory, stored.cpu_gflops)
        return MachineLimits(memory, 0)
    measured = cpu_gflops()
    logger.info("%s: planning for CPUs of %g GFLOP/s; --cpu-gflops takes another number, or 0", name, measured)
    return MachineLimits(memory, measured)


def plans_for_cpus(memory_gb: float | Auto, device: str | None) -> bool:
    """Whether new plans are for the CPUs of this machine, whose speed bounds updates.

    Args:
        memory_gb: As it is given, see `machine_limits`; a number is for a GPU, which may be elsewhere.
        device: Likewise.
    """
    trains_here = memory_gb == "auto" and gpu_memory_gb(device) is None
    return device == "cpu" or (trains_here and _trains_on_cpu(device))


def training_time(name: str, stored: Plans | None, given: float | None, limits: MachineLimits) -> float:
    """Seconds of each training that plans are made for; 0: any time.

    Args:
        name: Of the data set, for messages.
        stored: Its plans; None: there are none to keep.
        given: Seconds; 0: any time; None: as the stored plans have it, else any time.
        limits: What the plans are made for.
    """
    if given is None:
        return 0 if stored is None else stored.time_budget_s
    if given and limits.cpu_gflops:
        logger.info(
            "%s: planning for trainings of %s each, in which an update is to take %.3g s at most",
            *(name, format_seconds(given), update_seconds(given)),
        )
    elif given:
        logger.warning(
            "%s: %s for each training change no plan: a time bounds updates on CPUs, and no speed is planned for; "
            "--cpu-gflops N gives one",
            *(name, format_seconds(given)),
        )
    return given


def _memory_without_gpu() -> tuple[float, str]:
    """GiB for a training step on CPUs, and why so many."""
    machine_gb, why = machine_memory_bytes() / GIGABYTE, "as there is no GPU to train on"
    fitting = [each for each in WITHOUT_GPU_GB if each <= SHARE_OF_MACHINE * machine_gb]
    memory = max(fitting, default=min(WITHOUT_GPU_GB))
    return memory, why if memory == WITHOUT_GPU_GB[0] else f"{why} and the machine has {machine_gb:.1f} GB in all"


def _trains_on_cpu(device: str | None) -> bool:
    return choose_execution(device).device.type == "cpu"
