"""One update of each network in the type that would be chosen, against float32 (and float32 against float64)."""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.device import Execution
from seg25d.planning.geometry import choose_topology
from seg25d.planning.network_rules import NARROW_UNET, NETWORK_RULES, make_narrow_vnet, make_network, make_unet

SCORE_LIMITS = {torch.float32: 1e-2, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Relative distance of scores: rounding adds up over tens of layers; what is wrong is off by 1 and more, or NaN."""
LEAST_COSINE = {torch.float32: 0.99, torch.bfloat16: 0.5, torch.float16: 0.8}
"""Between the gradients of all weights together: 0.7 and more in bfloat16 where all is right (the least: batch norm on
few pixels)."""
WINDOWS = {2: (96, 96), 3: (8, 32, 32)}
"""Sizes that each network sees, with slices three times as thick as pixels: kernels and strides of both kinds."""
SPACINGS = {2: (1.0, 1.0), 3: (3.0, 1.0, 1.0)}
NUM_IMAGES, CHANNELS, CLASSES = 2, 2, 3
TIMED_ROUNDS = 2


class Comparison(NamedTuple):
    """Distance of one update from an exact one."""

    scores: float
    """Relative distance."""
    cosine: float
    """Between the gradients."""

    @property
    def words(self) -> str:
        """Name for messages."""
        return f"relative error of the scores {self.scores:.3g}, cosine between gradients {self.cosine:.3g}"

    def is_right(self, dtype: torch.dtype) -> bool:
        """Whether the distance is small enough for a type; never with NaN."""
        return self.scores <= SCORE_LIMITS[dtype] and self.cosine >= LEAST_COSINE[dtype]


def small_networks() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Every network of the registry in every dimension that it can have, with images: name, network, (N, C, *sizes).

    Those whose library is not installed are left out: they could not be trained either.
    """
    for name, rule in NETWORK_RULES.items():
        for dims in sorted(rule.dims):
            spec = make_network(name, choose_topology(WINDOWS[dims], SPACINGS[dims]))
            sizes = [-(-size // step) * step for size, step in zip(WINDOWS[dims], spec.divisor, strict=True)]
            torch.manual_seed(0)
            with suppress(ModuleNotFoundError):
                network = spec.build(CHANNELS, CLASSES)
                yield f"{name} in {dims}D", network, torch.randn(NUM_IMAGES, CHANNELS, *sizes)


def compare_update(network: nn.Module, images: Tensor, execution: Execution) -> Comparison:
    """Scores and gradients of one update of a network, against an exact one.

    Args:
        network: float32, on the CPU, in training mode.
        images: (N, C, *sizes) float32, on the CPU.
        execution: Where and in which type.
    """
    exact_type = torch.float64 if execution.dtype == torch.float32 else torch.float32
    cpu = Execution(torch.device("cpu"), torch.float32)
    scores, gradient = _update(copy.deepcopy(network).to(exact_type), images.to(exact_type), cpu)
    found, found_gradient = _update(execution.place(network), images, execution)
    distance = float((found - scores).norm() / scores.norm())
    cosine = float(torch.dot(found_gradient, gradient) / (found_gradient.norm() * gradient.norm()))
    return Comparison(distance, cosine)


def _update(network: nn.Module, images: Tensor, execution: Execution) -> tuple[Tensor, Tensor]:
    for layer in network.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    images = images.to(execution.device)
    with execution.autocast():
        outputs = network(images)
    scores = outputs[0][0]
    target = torch.arange(scores[:, 0].numel(), device=scores.device).view_as(scores[:, 0]) // 7 % CLASSES
    loss = functional.cross_entropy(scores if scores.dtype == torch.float64 else scores.float(), target)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]
    return scores.detach().double().cpu(), torch.cat(gradients).double().cpu()


def timed_networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """The most usual networks, with images: the default U-Net on slices and the default V-Net on a stack."""
    window = (8, 48, 48)
    topology = choose_topology(window, SPACINGS[3])
    return {
        "slices": (
            make_unet(choose_topology(window[1:], SPACINGS[2]), NARROW_UNET).build(1, 2),
            torch.randn(8, 1, 48, 48),
        ),
        "stack": (make_narrow_vnet(topology).build(1, 2), torch.randn(1, 1, *window)),
    }


def seconds_per_update(executions: Sequence[Execution]) -> list[float]:
    """Seconds of processors that an update of the timed networks takes, for each of some executions.

    Other programs may be running, so it is the processor's time, not the clock's, on one thread (two that wait for each
    other burn ten times as much when a third wants their cores); executions take turns, the smallest of a few rounds
    counts.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fastest = [0.0] * len(executions)
    for network, images in timed_networks().values():
        placed = [execution.place(copy.deepcopy(network)) for execution in executions]
        rounds = [
            [_seconds(each, images, execution) for each, execution in zip(placed, executions, strict=True)]
            for _ in range(1 + TIMED_ROUNDS)
        ]
        # The first round is the warm-up.
        fastest = [total + min(times) for total, times in zip(fastest, zip(*rounds[1:], strict=True), strict=True)]
    torch.set_num_threads(num_threads)
    return fastest


def _seconds(network: nn.Module, images: Tensor, execution: Execution) -> float:
    """Seconds of a forward and a backward pass."""
    begun = time.process_time()
    with execution.autocast():
        scores = network(images)[0][0]
    scores.float().square().mean().backward()
    return time.process_time() - begun
