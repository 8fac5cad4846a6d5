"""The memory and the arithmetic of one training step, measured by running it on tensors without data.

Every operation of forward pass, loss, backward pass and update runs on PyTorch's fake tensors, which have shapes but no
numbers. A dispatch mode follows the creation and release of every storage, so the peak is that of the real step for
any network, without rules for particular ones. It also counts floating-point operations, by PyTorch's own formulas.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry

from seg25d.core.parts import sums_in_parts
from seg25d.core.process import loading
from seg25d.core.records import Record
from seg25d.core.types import Shape
from seg25d.networks.base import NetworkSpec
from seg25d.representations.base import AnyRepresentation

GIGABYTE = 1 << 30
"""Bytes per GB: graphics cards are sold by powers of two."""
FLOAT32_ON_CUDA = frozenset(
    (
        *("cumprod", "cumsum", "exp", "log", "norm", "pow", "prod", "rsqrt", "softmax", "softplus", "log_softmax"),
        *("group_norm", "layer_norm", "cross_entropy", "mse_loss", "nll_loss", "sum"),
    )
)
"""Operations that autocast runs in float32 on CUDA, but not on CPUs (PyTorch, aten/src/ATen/autocast_mode.h)."""

TRACED_PARTS = 3
"""Parts of the loss that are traced: the third one finds the memory as each further one, which is not larger, does."""


class MemoryUse(Record):
    """Bytes at the peak of a training step, by what they are for."""

    parameters: int
    """Weights and buffers in float32, and the running mean of the weights."""
    gradients: int
    """Bytes of the gradients of the parameters."""
    optimizer: int
    """The two moments of AdamW, the most that any optimizer keeps (Muon has one for matrices)."""
    activations: int
    """All other bytes: input, target, tensors that are kept for the backward pass, temporary tensors."""
    num_parameters: int
    """Number of trainable parameters."""
    largest_tensor: int = 0
    """Numbers in the largest tensor of the step."""
    flops: int = 0
    """Floating-point operations of convolutions and matrix products, forward and backward; a product that is added
    counts as two (torch.utils.flop_counter)."""

    @property
    def total(self) -> int:
        """Total number of bytes."""
        return self.parameters + self.gradients + self.optimizer + self.activations


@lru_cache(maxsize=4096)
def training_memory(
    network: NetworkSpec,
    representation: AnyRepresentation,
    window: Shape,
    batch_size: int,
    *,
    num_channels: int,
    num_outputs: int,
) -> MemoryUse:
    """Trace a training step of a network that a representation lifts to volumes.

    Args:
        network: The network's settings.
        representation: The representation that lifts it.
        window: Voxels (D, H, W) of one window.
        batch_size: Windows per step.
        num_channels: Image channels.
        num_outputs: Scores per voxel.
    """

    def build() -> nn.Module:
        outputs = representation.network_outputs(num_outputs)
        return representation.lift(network.build(representation.network_channels(num_channels), outputs))

    return trace_training_step(build, (batch_size, representation.input_channels(num_channels), *window), num_outputs)


def trace_training_step(build: Callable[[], nn.Module], image_shape: Sequence[int], num_outputs: int) -> MemoryUse:
    """Run one training step without data and follow its memory.

    The step is what `training/trainer.py` does: bfloat16 or float16 where autocast says so, float32 weights, gradients
    of the step before kept during the forward pass, Dice and cross-entropy on every output; AdamW, the optimizer
    that takes the most.

    Args:
        build: Makes the model: (B, C, D, H, W) to a list of (scores, weight) in training mode, or to scores.
        image_shape: (B, C, D, H, W).
        num_outputs: Scores per voxel, K.
    """
    with loading(for_good=False):
        fake_tensors = FakeTensorMode()  # the first one loads torch's compiler
    with fake_tensors, StorageTracker() as tracker:
        model = build().train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        averaged = [torch.empty_like(parameter) for parameter in parameters]
        tracker.label("parameters", (*model.parameters(), *model.buffers(), *averaged))
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        tracker.label("gradients", _gradients(parameters))
        optimizer = torch.optim.AdamW(parameters, fused=True)
        optimizer.step()
        tracker.label("optimizer", [value for state in optimizer.state.values() for value in state.values()])
        images = torch.empty(*image_shape)
        target = torch.empty(image_shape[0], *image_shape[2:], dtype=torch.uint8)
        tracker.start()
        with torch.autocast("cpu", torch.bfloat16), CudaPrecision():
            outputs = model(images)
        loss = _loss(outputs, target, num_outputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        tracker.label("gradients", _gradients(parameters))
        optimizer.step()
        peak = tracker.peak()
    return MemoryUse(
        parameters=peak["parameters"],
        gradients=peak["gradients"],
        optimizer=peak["optimizer"],
        activations=peak[""],
        num_parameters=sum(parameter.numel() for parameter in parameters),
        largest_tensor=tracker.largest_tensor,
        flops=tracker.flops,
    )


def prediction_memory(build: Callable[[], nn.Module], image_shape: Sequence[int]) -> int:
    """Run a model on a window without data and without gradients, and follow its memory.

    Args:
        build: Makes the model, from images (B, C, D, H, W) to scores.
        image_shape: (B, C, D, H, W).

    Returns:
        Bytes at the peak, weights included.
    """
    with loading(for_good=False):
        fake_tensors = FakeTensorMode()
    with fake_tensors, StorageTracker() as tracker, torch.no_grad():
        model = build().eval()
        tracker.start()
        model(torch.empty(*image_shape))
        return sum(tracker.peak().values())


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storage of every tensor that an operation returns until it is released, and counts arithmetic."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._labels: dict[int, str] = {}
        self._events: list[tuple[int, int]] = []
        self._start = 0
        self._count = 0
        self.largest_tensor = 0
        """Numbers in the largest tensor so far; one that repeats a smaller one counts as that."""
        self.flops = 0
        """Floating-point operations so far."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, and note what it computes and the storages of its result."""
        del types
        result = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._watch(value)
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following."""
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._watched.clear()

    def label(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Label tensors by their purpose; storages without a label count as ""."""
        for tensor in tensors:
            self._labels[self._watch(tensor)] = name

    def start(self) -> None:
        """Record the peak from here on."""
        self._start = len(self._events)

    def peak(self) -> Counter[str]:
        """Bytes per label at the moment of the peak."""
        live: Counter[str] = Counter()
        total, highest, at_peak = 0, -1, Counter[str]()
        for position, (key, num_bytes) in enumerate(self._events):
            live[self._labels.get(key, "")] += num_bytes
            total += num_bytes
            if position >= self._start and total > highest:
                highest, at_peak = total, live.copy()
        return at_peak

    def _watch(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        identity = id(storage)
        known = self._watched.get(identity)
        if known:
            return known[1]
        self._count += 1
        key, num_bytes = self._count, int(storage.nbytes())
        self.largest_tensor = max(self.largest_tensor, num_bytes // tensor.element_size())

        def gone(_: object) -> None:
            self._watched.pop(identity, None)
            self._events.append((key, -num_bytes))

        # PyTorch keeps the Python object of a storage alive as long as C++ (a saved activation, say) uses the storage.
        self._watched[identity] = weakref.ref(storage, gone), key
        self._events.append((key, num_bytes))
        return key


class CudaPrecision(TorchFunctionMode):
    """Makes autocast on a CPU choose CUDA's precisions where it matters: norms and losses in float32."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function, on float32 inputs if it is one of `FLOAT32_ON_CUDA`."""
        del types
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in FLOAT32_ON_CUDA and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, _to_float32, (args, kwargs))
        return func(*args, **kwargs)


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _loss(outputs: Tensor | list[tuple[Tensor, float]], target: Tensor, num_outputs: int) -> Tensor:
    """Dice and cross-entropy of all outputs: the same tensors as the training loss, which lives above this package."""
    scales = [(outputs, 1.0)] if isinstance(outputs, Tensor) else outputs
    total = torch.zeros(())
    for scores, weight in scales:
        size = scores.shape[2:]
        labels = functional.interpolate(target[:, None].float(), size=tuple(size))[:, 0].to(torch.uint8)
        entropy, valid, overlap, sizes = sums_in_parts(
            partial(_sums, num_outputs), scores, labels, most_parts=TRACED_PARTS
        )
        total = total + weight * (entropy / valid - (2 * overlap / (sizes + 1)).mean())
    return total


def _sums(num_outputs: int, scores: Tensor, labels: Tensor) -> Sequence[Tensor]:
    scores = scores.float()
    valid = labels != 255
    classes = torch.arange(num_outputs, dtype=labels.dtype)
    truth = (labels[:, None] == classes[:, None, None, None]).float()
    entropy = functional.cross_entropy(scores, labels.long(), ignore_index=255, reduction="sum")
    probabilities = scores.softmax(1) * valid[:, None]
    axes = (0, 2, 3, 4)
    return entropy, valid.sum(), (probabilities * truth).sum(axes), probabilities.sum(axes) + truth.sum(axes)
