"""The machines that trainings ran on, and how tables name them."""

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from seg25d.core.lengths import count
from seg25d.core.parallel import available_cores
from seg25d.core.processor import this_processor
from seg25d.core.versions import library_versions

CPU_GFLOPS, GPU_MEMORY_GB = 64, 8
"""Speed of the CPUs and memory that all plans of tables are made for, whatever the machine: windows, and with them what
an update is, do not depend on where tables are made, or on what runs beside. The speed is that of the machine of
`table_commands.COSTS`; `--cpu-gflops auto`, which users get, says another number on every machine."""
Machine = Mapping[str, Any]
"""See `this_machine`; those of older files have less."""


def this_machine(device: str | None) -> dict[str, Any]:
    """What a training's speed and numbers depend on: processor or GPU, instruction sets, threads, precision, versions.

    Args:
        device: As for `choose_execution`.
    """
    import torch  # noqa: PLC0415 - heavy, and all_tables.py stays in memory beside every training

    from seg25d.core.device import choose_execution, device_name  # noqa: PLC0415 - loads torch

    execution, processor = choose_execution(device), this_processor()
    on_cpu = execution.device.type == "cpu"
    machine: dict[str, Any] = {
        "device": processor.name if on_cpu else device_name(execution.device),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "precision": str(execution.dtype).removeprefix("torch."),
        "versions": library_versions(),
    }
    sets: dict[str, Any] = {"instruction_sets": list(processor.instruction_sets), "caps": dict(processor.caps)}
    return machine | sets if on_cpu else machine


def describe_hardware(machine: Machine) -> str:
    """A machine without its software in a few words."""
    sets = [*machine.get("instruction_sets", ()), *(f"{name}={cap}" for name, cap in machine.get("caps", {}).items())]
    parts = [f"{machine['device']} ({', '.join(sets)})" if sets else machine["device"]]
    parts += [count(machine["cores"], "core"), count(machine["threads"], "thread")]
    return ", ".join(parts)


def describe_machine(machine: Machine) -> str:
    """A machine in a few words."""
    return f"{describe_hardware(machine)}, torch {machine['versions']['torch']}"


def distinct(machines: Iterable[Machine]) -> list[Machine]:
    """Machines whose description differs, each once, in their order."""
    return list({describe_machine(each): each for each in machines}.values())


def letters_of(machines: Sequence[Machine], known: Sequence[Machine]) -> str:
    """The letters of machines among those of a table: `A`, or `A, B`."""
    names = [describe_machine(each) for each in known]
    return ", ".join(sorted({ascii_uppercase[names.index(describe_machine(each))] for each in machines}))


def told(machines: Sequence[Machine]) -> str:
    """A sentence on the machines of a table, with their letters where there are several."""
    if len(machines) == 1:
        return f"Machine: {describe_machine(machines[0])}."
    named = [f"{letters_of([each], machines)}: {describe_machine(each)}" for each in machines]
    return f"Machines: {'; '.join(named)}."
