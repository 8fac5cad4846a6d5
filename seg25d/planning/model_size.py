"""What a model from a file would take, known before anything is made: its weights, and the memory of a window."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seg25d.core.errors import InputError, ModelError
from seg25d.core.parallel import available_memory_bytes
from seg25d.planning.memory import GIGABYTE, prediction_memory
from seg25d.planning.model_file import ModelHeader

CANNOT_BE_MADE = (RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError, InputError)
"""What networks raise whose settings contradict each other, or whose sizes no number can hold."""


def check_weights(path: Path, header: ModelHeader, weights: Mapping[str, Tensor]) -> None:
    """Check that the weights of a file are those of the network that its header asks for, which is not made for that.

    As both are alike, the network takes no more memory than the file has bytes.

    Args:
        path: The model file, for messages.
        header: Its header.
        weights: Its weights.

    Raises:
        ModelError: If they are not, or memory does not suffice for the network beside them.
    """
    try:
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in header.build_model().state_dict().items()}
    except CANNOT_BE_MADE as error:
        raise ModelError(f"{path}: its network cannot be made ({_first_line(error)}); get the model again") from None
    has = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != has:
        raise ModelError(
            f"{path}: the weights do not fit the plan in the same file, which asks for {_count(wanted):,} numbers in "
            f"{len(wanted)} weights: {_difference(wanted, has)}; get the model again"
        )
    needed, free = sum(value.nbytes for value in weights.values()), available_memory_bytes()
    if needed > free:
        raise ModelError(
            f"{path}: its network of {_count(wanted):,} numbers takes {needed / GIGABYTE:.1f} GB of memory, "
            f"{free / GIGABYTE:.1f} GB are free; stop other programs, or use a machine with more memory"
        )


def check_window(name: object, header: ModelHeader) -> None:
    """Check that the memory of this machine holds the scores of a window, where the CPU computes them.

    Where what could be needed at the most is free, nothing else is done.

    Args:
        name: The model or its file, for messages.
        header: Its header, with a network that can be made.

    Raises:
        ModelError: If it does not; says what would fit.
    """
    plan, free = header.plan, available_memory_bytes()
    channels = plan.representation.input_channels(len(header.description.channel_names))
    outputs = header.num_outputs
    with torch.device("meta"):
        widest = max((max(value.shape, default=1) for value in header.build_model().state_dict().values()), default=1)
    voxels = math.prod(plan.window)
    least, most = 4 * voxels * (channels + outputs), 4 * voxels * (channels + 2 * outputs + 4 * widest)
    if most <= free:
        return
    needed = least
    if least <= free:
        try:
            needed = prediction_memory(header.build_model, (1, channels, *plan.window))
        except CANNOT_BE_MADE as error:
            raise ModelError(
                f"{name}: its network cannot compute the scores of a window ({_first_line(error)})"
            ) from None
    if needed > free:
        raise ModelError(
            f"{name}: a window of {' x '.join(map(str, plan.window))} voxels takes {needed / GIGABYTE:.1f} GB of "
            f"memory in its network, {free / GIGABYTE:.1f} GB are free, which is enough for windows of about "
            f"{free / needed * voxels:,.0f} voxels; stop other programs, or use a machine with more memory"
        )


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _difference(wanted: Mapping[str, tuple[int, ...]], has: Mapping[str, tuple[int, ...]]) -> str:
    """The first weight that differs."""
    name = next(name for name in (*wanted, *has) if wanted.get(name) != has.get(name))
    return f"{name} should be {_shown(wanted.get(name))} and is {_shown(has.get(name))}"


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "one number"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
