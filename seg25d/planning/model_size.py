"""What a model from a file would take, known before anything is made: its weights, and the memory of a window."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seg25d.core.errors import InputError, ModelError
from seg25d.core.parallel import available_memory_bytes
from seg25d.planning.memory import prediction_memory
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.model_memory import check_weights_fit, check_window_fits, maps_bytes
from seg25d.planning.plan import ConfigurationPlan

DRAWING = frozenset({"normal_", "uniform_", "trunc_normal_", "erfinv_", "bernoulli_", "random_", "exponential_"})
"""Functions that draw the initial values of weights."""
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
        ModelError: If they are not.
    """
    wanted = _shapes(path, header.plan, len(header.description.channel_names), header.num_outputs)
    has = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != has:
        raise ModelError(
            f"{path}: the weights do not fit the plan in the same file, which asks for {_count(wanted):,} numbers in "
            f"{len(wanted)} weights: {_difference(wanted, has)}; get the model again"
        )


def check_memory(name: object, plan: ConfigurationPlan, num_channels: int, num_outputs: int, *, on_cpu: bool) -> None:
    """Check that the memory of this machine holds a network, and the scores of a window where the CPU computes them.

    Nothing is made for that but what has shapes and no numbers, and that only of a window which could be too large.
    Other devices say themselves when theirs runs out.

    Args:
        name: The model, its file or its folder, for messages.
        plan: Network, representation and window.
        num_channels: Image channels.
        num_outputs: Scores per voxel.
        on_cpu: Whether the CPU computes.

    Raises:
        ModelError: If the network cannot be made, or memory does not suffice; says what was asked for and would fit.
    """
    shapes, free = _shapes(name, plan, num_channels, num_outputs), available_memory_bytes()
    check_weights_fit(name, _count(shapes), free)
    channels = plan.representation.input_channels(num_channels)
    widest = max((size for shape in shapes.values() for size in shape), default=1)
    if not on_cpu or maps_bytes(plan.window, channels + 2 * num_outputs + 4 * widest) <= free:
        return
    check_window_fits(name, plan.window, maps_bytes(plan.window, channels + num_outputs), free)
    try:
        needed = prediction_memory(lambda: plan.build_model(num_channels, num_outputs), (1, channels, *plan.window))
    except CANNOT_BE_MADE as error:
        raise ModelError(f"{name}: its network cannot compute a window ({_first_line(error)})") from None
    check_window_fits(name, plan.window, needed, free)


def _shapes(name: object, plan: ConfigurationPlan, num_channels: int, num_outputs: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a network that is not made."""
    try:
        with torch.device("meta"), _WithoutValues():
            model = plan.build_model(num_channels, num_outputs)
    except CANNOT_BE_MADE as error:
        raise ModelError(f"{name}: its network cannot be made ({_first_line(error)}); get the model again") from None
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


class _WithoutValues(TorchFunctionMode):
    """Leaves initial values out: torch would load its compiler to draw them where there are none, for seconds."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function, unless it draws random numbers in place."""
        del types
        if getattr(func, "__name__", "") in DRAWING:
            return next(iter((*args, *(kwargs or {}).values())))  # the tensor
        return func(*args, **(kwargs or {}))


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
