"""Comparison of what a model takes with the memory that is free: of modules of torch, and of graphs without it."""

import math
from pathlib import Path

from seg25d.core.errors import ModelError
from seg25d.core.memory import needed_and_free
from seg25d.core.parallel import available_memory_bytes
from seg25d.core.types import Shape
from seg25d.planning.portable_model import PortableModel

_CURE = "stop other programs, or use a machine with more memory"


def check_weights_fit(name: object, num_weights: int, free_bytes: int) -> None:
    """Check that memory holds the weights of a network in float32.

    Args:
        name: The model, its file or its folder, for messages.
        num_weights: Numbers.
        free_bytes: Memory that is free.

    Raises:
        ModelError: If it does not; says what was asked for and would fit.
    """
    if (needed := 4 * num_weights) > free_bytes:
        raise ModelError(
            f"{name}: its network of {num_weights:,} numbers takes {needed_and_free(needed, free_bytes)}, which is "
            f"enough for {free_bytes // 4:,} numbers; plan a smaller network, {_CURE}"
        )


def check_window_fits(name: object, window: Shape, needed_bytes: int, free_bytes: int) -> None:
    """Check that memory holds what a network makes of a window.

    Args:
        name: The model, its file or its folder, for messages.
        window: Voxels along (D, H, W).
        needed_bytes: What it takes.
        free_bytes: Memory that is free.

    Raises:
        ModelError: If it does not; says what was asked for and would fit.
    """
    if needed_bytes > free_bytes:
        raise ModelError(
            f"{name}: in its network, a window of {' x '.join(map(str, window))} voxels takes "
            f"{needed_and_free(needed_bytes, free_bytes)}, which is enough for about "
            f"{free_bytes / needed_bytes * math.prod(window):,.0f} voxels; plan a smaller window, {_CURE}"
        )


def check_graph_memory(path: Path, model: PortableModel) -> None:
    """Check that the memory of this machine holds a graph and a window of the planned size, as measured at its export.

    A record that says too little is no way around: what goes in and comes out of a window is known.

    Args:
        path: The graph, for messages.
        model: What it is.

    Raises:
        ModelError: If memory does not suffice.
    """
    graph, free = model.graph, available_memory_bytes()
    check_weights_fit(path, model.num_parameters, free)
    least = maps_bytes(graph.window, graph.channels + graph.outputs)
    check_window_fits(path, graph.window, max(least, model.window_bytes), free)


def maps_bytes(window: Shape, num_maps: int) -> int:
    """Memory of so many maps in float32, each of the size of a window (D, H, W)."""
    return 4 * num_maps * math.prod(window)
