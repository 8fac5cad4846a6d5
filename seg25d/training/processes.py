"""Training of one fold with several processes, which `torchrun` starts: communication between them.

Without such processes, everything here does nothing.
"""

import os
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from seg25d.core.errors import InputError
from seg25d.core.parallel import torchrun_processes
from seg25d.planning.plan import ConfigurationPlan

WAITING = timedelta(hours=24)
"""Maximum time that processes wait for each other: the first one clears, copies and validates alone."""

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
"""Communication backends by the type of the device (docs.pytorch.org/docs/stable/distributed.html)."""


def is_first_process() -> bool:
    """Whether this process is the one that writes, before and after it has joined the others."""
    return int(os.environ.get("RANK", "0")) == 0


def join_processes(device: torch.device) -> tuple[int, int]:
    """Join the group that `torchrun` set up, if it did.

    Args:
        device: Its type decides between nccl (CUDA) and gloo. nccl works on the current GPU, which `choose_execution`
            has set.

    Returns:
        Rank and number of processes; (0, 1) for a run of its own.

    Raises:
        InputError: If processes cannot share their gradients on such a device.
    """
    if torchrun_processes() == 1:
        return 0, 1
    if device.type not in BACKENDS:
        raise InputError(f"several processes train on CPUs or CUDA, not on {device}; start one, or take --device cpu")
    if not distributed.is_initialized():
        distributed.init_process_group(BACKENDS[device.type], timeout=WAITING)
    return distributed.get_rank(), distributed.get_world_size()


def check_processes(plan: ConfigurationPlan, num_channels: int, num_outputs: int) -> None:
    """Check that the processes can train a plan together, before anything is done.

    Args:
        plan: Of the configuration.
        num_channels: Image channels.
        num_outputs: Scores per voxel.

    Raises:
        InputError: If a batch has fewer windows, or the model has a batch norm, which in each process would only see
            its part of the batch.
    """
    num_processes = torchrun_processes()
    if num_processes == 1:
        return
    if num_processes > plan.batch_size:
        raise InputError(
            f"{num_processes} processes cannot share a batch of {plan.batch_size} windows; "
            "start fewer, or raise batch_size in plans.json"
        )
    with torch.device("meta"):
        model = plan.build_model(num_channels, num_outputs)
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
        raise InputError(
            "this network has batch norm, which several processes cannot compute together; train it with one, or "
            "choose another network (--network) or norm (in plans.json)"
        )


def wait_for_all(device: torch.device) -> None:
    """Wait until all processes of the group have arrived here."""
    share([0.0], device, combine="max")


def leave_processes() -> None:
    """Leave the group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def local_device(name: str | None) -> str | None:
    """The device of this process: `cuda` becomes the GPU with the local rank's number under `torchrun`.

    Raises:
        InputError: If several processes were given the same GPU.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if name is not None and name.startswith("cuda:") and torchrun_processes("LOCAL_WORLD_SIZE") > 1:
        raise InputError(
            f"several processes cannot train on {name} alone: with --device cuda each takes a GPU of its own "
            "(CUDA_VISIBLE_DEVICES says which there are)"
        )
    if local_rank is not None and (name == "cuda" or (name is None and torch.cuda.is_available())):
        return f"cuda:{local_rank}"
    return name


def spread(model: nn.Module) -> nn.Module:
    """Average gradients over the processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return model
    return DistributedDataParallel(model)


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum over all processes, with the gradient of the global sum; the same tensor where there is only one.

    Args:
        values: Of the same shape on every process.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    summed: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _SumOverProcesses(torch.autograd.Function):
    """Every process gets the sum, so that the losses of all depend on the values of each: gradients are summed too."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def share(values: list[float], device: torch.device, *, combine: str) -> list[float]:
    """Give all processes the same numbers.

    Args:
        values: As many on every process.
        device: Of the group.
        combine: `sum`, `max`, or `first` for the values of rank 0.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    numbers: Tensor = torch.tensor(values, device=device, dtype=torch.float64)
    if combine == "first":
        distributed.broadcast(numbers, 0)
    else:
        distributed.all_reduce(numbers, distributed.ReduceOp.SUM if combine == "sum" else distributed.ReduceOp.MAX)
    result: list[float] = numbers.tolist()
    return result
