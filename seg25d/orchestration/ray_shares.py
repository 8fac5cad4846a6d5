"""What a task gets of a Ray cluster: the same on every machine, so that results do not depend on where it is done."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

GRAIN = 10_000
"""Parts of a CPU or GPU that Ray tells apart (docs.ray.io, fractional resource requirements)."""


class Machine(NamedTuple):
    """A node of a cluster that can do tasks."""

    name: str
    identifier: str
    cpus: float
    gpus: int
    memory_bytes: float
    """That Ray gives to tasks."""


class Share(NamedTuple):
    """What each task gets, and how many there are at a time."""

    cpus: float
    gpus: float
    """Of tasks that use one; less than 1 where several share one."""
    places: int

    @property
    def threads(self) -> int:
        """Threads that a task computes with."""
        return max(1, int(self.cpus))


def machines_of(nodes: Sequence[Mapping[str, Any]]) -> list[Machine]:
    """The machines that are there and do tasks.

    Args:
        nodes: As `ray.nodes()` tells them.
    """
    machines = []
    for node in nodes:
        resources = node["Resources"]
        if node["Alive"] and resources.get("CPU", 0) > 0:
            machines.append(
                Machine(
                    name=node["NodeManagerHostname"],
                    identifier=node["NodeID"],
                    cpus=resources["CPU"],
                    gpus=int(resources.get("GPU", 0)),
                    memory_bytes=resources.get("memory", 0.0),
                )
            )
    return machines


def share_out(machines: Sequence[Machine], num_tasks: int | None = None, *, uses_gpus: bool = True) -> Share:
    """Share machines out among tasks: one per GPU where there are GPUs, else one per machine as large as the smallest.

    Args:
        machines: One or more.
        num_tasks: Tasks at a time; more than there are GPUs or machines share these. None: one each.
        uses_gpus: Whether tasks use GPUs at all.
    """
    with_gpus = [each for each in machines if each.gpus] if uses_gpus else []
    whole = sum(each.gpus for each in with_gpus) or len(machines)
    per_whole = math.ceil(max(num_tasks or 1, whole) / whole)
    if with_gpus:
        cpus = _rounded(min(each.cpus / each.gpus for each in with_gpus) / per_whole)
        room = whole * per_whole
    else:
        cpus = _rounded(min(each.cpus for each in machines) / per_whole)
        room = sum(int(each.cpus / cpus) for each in machines)
    gpus = math.floor(GRAIN / per_whole) / GRAIN if with_gpus else 0.0
    return Share(cpus, gpus, min(num_tasks or room, room))


def refusal_of(name: str, memory_bytes: int, gpus: float, machines: Sequence[Machine]) -> str:
    """Why a task would wait for ever; empty if there is a machine that has what it needs.

    Args:
        name: Of the task.
        memory_bytes: What it needs.
        gpus: As `memory_bytes`.
        machines: Those that there are.
    """
    able = [each for each in machines if each.gpus or not gpus]
    kind = "machine with a GPU" if gpus else "machine"
    if not able:
        return f"{name} needs a {kind}, and the Ray cluster has none that is alive; add one, or repair it"
    largest = max(each.memory_bytes for each in able)
    if memory_bytes <= largest:
        return ""
    return (
        f"{name} needs {memory_bytes / 1e9:.1f} GB of memory, and the largest {kind} of the Ray cluster has "
        f"{largest / 1e9:.1f} GB; add a larger one, or plan with a smaller --gpu-memory-gb"
    )


def _rounded(cpus: float) -> float:
    """Whole CPUs, or a part of one that Ray can count."""
    return float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * GRAIN) / GRAIN
