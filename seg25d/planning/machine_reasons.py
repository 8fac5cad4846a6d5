"""Reasons for what plans owe to the machine that trains and to the time that it is given."""

from seg25d.core.progress import format_seconds
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.search import CARD_SHARE, OVERHEAD_BYTES, UPDATES_OF_A_TRAINING, update_seconds


def machine_reasons(gpu_memory_gb: float, cpu_gflops: float, time_budget_s: float = 0) -> dict[str, str]:
    """What the machine that the plans are made for allows.

    Args:
        gpu_memory_gb: See `plan_dataset`, as all that follow.
        cpu_gflops: Speed of CPUs, or 0.
        time_budget_s: Seconds of each training, or 0.
    """
    reasons = {
        "gpu_memory_gb": (
            f"a training step may take {gpu_memory_gb:g} GB, of which {(1 - CARD_SHARE) * gpu_memory_gb:.2g} GB are "
            "for what cards lack of their size and for gaps between blocks of memory, and "
            f"{OVERHEAD_BYTES / GIGABYTE:g} GB for CUDA itself"
        )
    }
    seconds = update_seconds(time_budget_s)
    if cpu_gflops:
        reasons["cpu_gflops"] = (
            f"trained on CPUs of {cpu_gflops:g} GFLOP/s, where an update is to take {seconds:.3g} s at most, so "
            f"that there are {3600 / seconds:,.0f} an hour or more; recipes of papers keep their batches"
        )
    if time_budget_s:
        effect = (
            f"in which there is room for {UPDATES_OF_A_TRAINING} updates or more if they take {seconds:.3g} s at most"
            if cpu_gflops
            else "which changes no plan here: it bounds updates on CPUs, and no speed is planned for (--cpu-gflops)"
        )
        reasons["time_budget_s"] = (
            f"each training (one fold of one configuration) is given {format_seconds(time_budget_s)}, {effect}"
        )
    return reasons
