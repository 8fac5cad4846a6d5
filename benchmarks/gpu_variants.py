"""Variants of a training update on a device, for gpu_check.py: types, layouts, norms, compiler, CUDA graphs."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seg25d.core.device import Execution
from seg25d.machine.names import LAYERS, NETWORKS
from seg25d.machine.self_test import run_checks
from seg25d.networks.blocks import InstanceNorm
from seg25d.planning.model_file import ModelHeader
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.state import new_state
from seg25d.training.trainer import FoldJob, train_fold

WARM_UP = 3
"""Updates before the measurement, in which algorithms are chosen and kernels compiled."""
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
SECONDS_OF_NETWORKS = 30
"""Time of one update of every network in the self-test, mostly for the exact results on the CPU."""


def wait(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Mean seconds of a step, over as many steps as fit into the time."""
    for _ in range(WARM_UP):
        step()
    wait(device)
    started, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or count == 0:
        step()
        wait(device)
        count += 1
    return spent / count if count else math.nan


@contextmanager
def tensor_cores_for_float32(allowed: bool) -> Iterator[None]:
    """Allow or forbid float32 products and convolutions with 10-bit mantissas (TF32)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class KeptNorm(InstanceNorm):
    """Instance norm as a batch norm of each image, which keeps channels-last; replaces `InstanceNorm`.

    The measurement shows whether it is faster than the copies that CUDA's group norm needs
    (tests/core/test_layouts_on_gpus.py): it launches two kernels per image and concatenates the images.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images; shape and layout stay the same."""
        with torch.autocast(images.device.type, enabled=False):
            return _KeptNorm.apply(images, self.weight, self.bias, self.eps)  # type: ignore[no-any-return,no-untyped-call]


class _KeptNorm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        weight, bias = (each.to(images.dtype) if images.device.type == "cpu" else each for each in (weight, bias))
        parts = [
            torch.native_batch_norm(image, weight, bias, None, None, True, 0.0, epsilon)
            for image in torch.split(images, 1)
        ]
        context.save_for_backward(images, weight, *(each for _, mean, scale in parts for each in (mean, scale)))
        context.epsilon = epsilon
        return torch.cat([result for result, _, _ in parts])

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, *statistics = context.saved_tensors
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                *(of_result, image, weight, None, None, mean, scale, True, context.epsilon), [True, True, True]
            )
            for of_result, image, mean, scale in zip(
                torch.split(gradient, 1), torch.split(images, 1), statistics[::2], statistics[1::2], strict=True
            )
        ]
        of_images, of_weights, of_biases = zip(*parts, strict=True)
        return torch.cat(of_images), sum(of_weights), sum(of_biases), None


class _Plain(nn.Module):
    """A model that returns only tensors, as CUDA graphs require."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.weights: list[float] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images)
        outputs = outputs if isinstance(outputs, list) else [(outputs, 1.0)]
        self.weights = [weight for _, weight in outputs]
        return tuple(scores for scores, _ in outputs)


class Updates:
    """Measurement of updates of one configuration.

    Args:
        header: Plan and labels.
        config: Settings of the optimizer.
        execution: Device and its fast type.
        batch: Images and labels.
        seconds: Time per measurement.
    """

    def __init__(
        self,
        header: ModelHeader,
        config: TrainingConfig,
        execution: Execution,
        batch: tuple[Tensor, Tensor],
        seconds: float,
    ) -> None:
        self.header, self.config, self.execution, self.seconds = header, config, execution, seconds
        self.batch = batch

    def measure(self, name: str) -> float:
        """Measure the seconds of an update of one of `variants`."""
        variant = self.variants()[name]
        with tensor_cores_for_float32(name != "float32"):
            return variant()

    def variants(self) -> dict[str, Callable[[], float]]:
        """Functions that measure each variant of an update in seconds, by name."""
        device, fast = self.execution.device, self.execution
        float32 = Execution(device, torch.float32)
        found: dict[str, Callable[[], float]] = {
            "fast": lambda: self._measure(fast),
            "float32": lambda: self._measure(float32),
            "contiguous": lambda: self._measure(fast, prepare=lambda model: lay_out(model, channels_last=False)),
            "channels-last": lambda: self._measure(fast, prepare=lay_out),
            "norm kept": lambda: self._measure(fast, prepare=_use_kept_norms),
            "compiled": lambda: self._measure(fast, wrap=torch.compile),
        }
        if device.type == "cuda":
            other = torch.float16 if fast.dtype == torch.bfloat16 else torch.bfloat16
            found |= {
                "tf32": lambda: self._measure(float32),
                str(other).removeprefix("torch."): lambda: self._measure(Execution(device, other)),
                "graphs": lambda: self._measure(fast, wrap=self._make_graphs),
                "compiled, graphs": lambda: self._measure(
                    fast, wrap=lambda model: torch.compile(model, mode="reduce-overhead")
                ),
            }
        return found

    def _measure(
        self,
        execution: Execution,
        prepare: Callable[[nn.Module], Any] = lambda _model: None,
        wrap: Callable[[Any], Any] = lambda model: model,
    ) -> float:
        state = new_state(self.header.build_model(), self.config, execution)
        prepare(state.model.train())
        plain = _Plain(state.model)
        model = wrap(plain)
        images, target = (each.to(execution.device) for each in self.batch)
        loss_function = DiceCrossEntropy(self.header.description.labels)

        def step() -> None:
            with execution.autocast():
                outputs = model(images)
            loss = loss_function(list(zip(outputs, plain.weights, strict=True)), target)
            state.optimizer.zero_grad(set_to_none=True)
            state.scaler.scale(loss).backward()
            state.scaler.step(state.optimizer)
            state.scaler.update()

        return repeat(step, execution.device, self.seconds)

    def _make_graphs(self, model: nn.Module) -> Any:
        """Capture forward and backward pass as CUDA graphs; autocast must not cache tensors of a graph."""
        images = self.batch[0].to(self.execution.device)
        with torch.autocast("cuda", self.execution.dtype, cache_enabled=False):
            return torch.cuda.make_graphed_callables(model, (images,))


def lay_out(model: nn.Module, *, channels_last: bool = True) -> None:
    """Convert all weights to one layout."""
    for parameter in model.parameters():
        layout = LAYOUTS.get(parameter.dim(), torch.contiguous_format) if channels_last else torch.contiguous_format
        parameter.data = parameter.data.contiguous(memory_format=layout)


def _use_kept_norms(model: nn.Module) -> None:
    lay_out(model)
    for layer in model.modules():
        if type(layer) is InstanceNorm:
            layer.__class__ = KeptNorm


def matrix_rates(device: torch.device, seconds: float, side: int) -> dict[str, float]:
    """Measure the operations per second of a large matrix product, by type."""
    types: Sequence[tuple[str, torch.dtype, bool]] = [("float32", torch.float32, False)]
    if device.type == "cuda":
        types = [*types, ("tf32", torch.float32, True), ("bfloat16", torch.bfloat16, True)]
        types = [*types, ("float16", torch.float16, True)]
    rates = {}
    for name, dtype, allowed in types:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        with tensor_cores_for_float32(allowed):
            rates[name] = 2 * side**3 / repeat(partial(torch.matmul, left, right), device, seconds)
    return rates


def train_one(job: FoldJob, num_threads: int) -> None:
    """Train in a separate process, which has to import this function."""
    torch.set_num_threads(num_threads)
    train_fold(job)


def self_test(execution: Execution, seconds: float, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Run the self-test in each precision; networks only in the fast type, and only if there is enough time."""
    fast = str(execution.dtype).removeprefix("torch.")
    precisions = {fast, "float32", "float16"} if execution.device.type == "cuda" else {fast}
    each = seconds / (2 * len(precisions) * len(LAYERS))
    found = {}
    for precision in sorted(precisions):
        checks = (*LAYERS, NETWORKS) if precision == fast and seconds > SECONDS_OF_NETWORKS else LAYERS
        findings = run_checks(str(execution.device), precision, checks, seed, each)
        found[precision] = [finding.model_dump(exclude={"seconds_per_update"}) for finding in findings]
    return found
