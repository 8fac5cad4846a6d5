"""Device and precision of models. Loads torch: import it only where something is computed."""

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from seg25d.core.errors import InputError
from seg25d.core.processor import read_verdict, this_processor

logger = logging.getLogger(__name__)
ALLOCATOR_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Environment variables by which users choose how memory is allocated."""

SIGNS_OF_LACKING_MEMORY = (
    "unable to find an engine to execute this computation",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
"""Messages of errors that mean a lack of memory: torch, when the workspace of no cuDNN algorithm finds room
(aten/src/ATen/native/cudnn/Conv_v8.cpp; github.com/QwenLM/Qwen3-VL/issues/151); libraries that allocate their own
memory; MPS (github.com/pytorch/pytorch/issues/130112)."""


def computes_on_x86() -> bool:
    """Whether torch computes with AVX2 or AVX-512 here."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def computes_with_avx2() -> bool:
    """Whether torch computes with AVX2 here, as on CPUs that lack AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


@dataclass(frozen=True)
class Execution:
    """A device, the type of its fast arithmetic, and the layout of images."""

    device: torch.device
    dtype: torch.dtype
    """Type of matrix products and convolutions; float32 means no mixed precision."""

    def __str__(self) -> str:
        """The kind of device and the type, such as `cpu bfloat16`."""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"

    def autocast(self) -> torch.autocast:
        """The context in which the model computes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def ready(self, models: Sequence[nn.Module]) -> list[nn.Module]:
        """Move models to the device, and let them predict."""
        return [self.place(model.eval()) for model in models]

    def array(self, values: NDArray[np.float32]) -> Tensor:
        """A tensor on the CPU, which shares the memory."""
        return torch.from_numpy(values)

    def lacks_memory(self, error: RuntimeError) -> bool:
        """Whether an operation failed for lack of memory on the device."""
        return lacks_memory(error)

    def give_freed_memory_back(self) -> None:
        """Return memory that was kept for work that is finished."""
        give_freed_memory_back()

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the layout that is fastest there.

        Channels-last is the layout of tensor cores. In 3D it is not taken on GPUs where a norm of each image undoes it:
        torch 2.13 copies what group and instance norms get to the usual layout (tests/core/test_layouts_on_gpus.py),
        the next convolution copies it back, and nnU-Net's residual encoder takes 24 % more time so
        (github.com/pytorch/pytorch/issues/59168). In 2D cuDNN would copy around its kernels otherwise; both are
        measured by benchmarks/gpu_check.py.

        On CPUs it depends on their vectors (seconds per update on two cores, documentation/concepts/choices.md): in
        bfloat16 it is slower in 2D; in float32 it is faster in 2D with AVX-512 and in 3D with AVX2.

        Raises:
            InputError: If the device has too little memory.
        """
        with memory_of(self.device, "for the weights of the model", "take --device cpu"):
            model = model.to(self.device)
        layouts = self._channels_last(model)
        # Tensor by tensor: a model may have layers in 2D and in 3D.
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() in layouts:
                tensor.data = tensor.data.contiguous(memory_format=layouts[tensor.dim()])
        return model

    def _channels_last(self, model: nn.Module) -> dict[int, torch.memory_format]:
        """The layout by the number of axes, where it is not the usual one."""
        in_2d, in_3d = {4: torch.channels_last}, {5: torch.channels_last_3d}
        if self.device.type == "cuda":
            return in_2d if any(map(_undoes_layout, model.modules())) else in_2d | in_3d
        if self.device.type != "cpu" or self.dtype != torch.float32:
            return {}
        return in_3d if computes_with_avx2() else in_2d


def _undoes_layout(layer: nn.Module) -> bool:
    """Whether a layer returns the usual layout on GPUs for any input; seg25d's layers may declare it."""
    norms = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
    return isinstance(layer, norms) or getattr(layer, "undoes_layout", False)


def choose_execution(device: str | None, precision: str = "auto") -> Execution:
    """Find device and precision.

    Args:
        device: `cuda`, `cuda:1`, `cpu`, `mps`, or None for the best there is.
        precision: `auto`, `float32`, `bfloat16` or `float16`.

    Raises:
        InputError: If the device is unknown or absent, or does not compute in that precision.
    """
    name = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try --device cpu"
        ) from None
    if chosen.type == "cuda":
        chosen = _make_current(chosen)
    dtype = _fast_dtype(chosen) if precision == "auto" else getattr(torch, precision)
    if chosen.type == "cuda":
        # Windows have one shape, parts of deep ones two: let cuDNN try its algorithms once for each.
        torch.backends.cudnn.benchmark = True
    if chosen.type == "cpu":
        # Denormal numbers are many times slower than others and mean nothing here.
        torch.set_flush_denormal(True)
        _keep_freed_memory()
        if dtype == torch.float16:
            raise InputError("float16 trains only on GPUs; use bfloat16 or float32 on a CPU")
    if chosen.type == "mps" and dtype != torch.float32:
        # github.com/pytorch/pytorch/issues/160739; open in torch 2.13.
        raise InputError(
            f"{precision} is not for mps, where transposed convolutions in 3D take float32 alone; use that"
        )
    return Execution(chosen, dtype)


def check_device(name: str) -> None:
    """Check that a device exists, for another process that computes on it; takes none of its memory.

    Raises:
        InputError: If it is not.
    """
    if not name.startswith("cuda:"):
        choose_execution(name)
    elif torch.device(name).index >= torch.cuda.device_count():
        raise InputError(f"device {name!r} cannot be used here: torch sees {torch.cuda.device_count()} GPU(s)")


def check_devices(names: str | None) -> list[str]:
    """Check the devices of one process, or of a process each where there are several.

    Args:
        names: One name or several, separated by commas; None: the best device.

    Returns:
        The names; an empty one is the best device.

    Raises:
        InputError: If one is not there.
    """
    devices = (names or "").split(",")
    if len(devices) == 1:
        choose_execution(names)
    else:
        for device in devices:
            check_device(device)
    return devices


def _make_current(device: torch.device) -> torch.device:
    """Make a GPU the one that this thread means where it names none; gives it with its number.

    Whether there is bfloat16 (`torch.cuda.is_bf16_supported`, also asked by every autocast), whose context pins memory
    (`torch/utils/data/dataloader.py`: that of `torch.accelerator.current_device_index()`) and whose memory is counted
    is otherwise a matter of the first GPU, which may be another model, or full.
    """
    numbered = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    torch.cuda.set_device(numbered)
    return numbered


def gpu_memory_gb(device: str | None) -> float | None:
    """Memory of the GPU that would compute: what the driver gives programs, which is less than what is printed on it.

    Args:
        device: As for `choose_execution`.

    Returns:
        GiB, rounded down to tenths; of the smallest of several GPUs if none is named, as tasks share them out; None
        without such a GPU.
    """
    if (device or "cuda").partition(":")[0] != "cuda" or not torch.cuda.is_available():
        return None
    number = torch.device(device or "cuda").index
    numbers = [each for each in range(torch.cuda.device_count()) if number in (None, each)]
    memory = [torch.cuda.get_device_properties(each).total_memory for each in numbers]
    return min(memory) * 10 // 2**30 / 10 if memory else None


def free_gpu_memory_bytes(device: torch.device) -> int:
    """Memory of a GPU that tensors may still take: free memory, and memory of released tensors that torch keeps.

    `torch.cuda.mem_get_info` is the driver's answer, for which torch's cache is taken
    (docs.pytorch.org/docs/stable/notes/cuda.html, memory management).
    """
    unused, _ = torch.cuda.mem_get_info(device)
    return unused + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _keep_freed_memory() -> None:
    """Let the C library keep memory that one update or window frees for the next one, up to 32 MiB in one piece.

    Else it goes back to the system after every backward pass and comes again page by page: 16,000 page faults per
    update of `stack` and `2d` on the hippocampus, a tenth of the time (326 against 293 ms, 408 against 374 ms on one
    core). The peak of memory stays the same. Whoever has set how the C library does it is left alone.
    """
    if any(name in os.environ for name in ALLOCATOR_SETTINGS):
        return
    set_option = _function_of_c_library("mallopt")
    if set_option is not None:
        trim_threshold, mmap_threshold = -1, -3
        set_option(trim_threshold, 2**31 - 1)
        # Where glibc's own, growing threshold ends; to set the other one stops its growth.
        set_option(mmap_threshold, 2**25)


def lacks_memory(error: RuntimeError) -> bool:
    """Whether an operation failed for lack of memory on its device, also where torch has another error for that."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(sign in message for sign in SIGNS_OF_LACKING_MEMORY)


@contextmanager
def memory_of(device: torch.device, purpose: str, cure: str) -> Iterator[None]:
    """Raise an error that says what to do if a device has too little memory for the work in this block.

    Args:
        device: Where it is done.
        purpose: What it is for.
        cure: What may help besides stopping other programs.

    Raises:
        InputError: In place of what `lacks_memory` knows.
    """
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the memory of {device} is too small {purpose} ({reason}); stop other programs there, or {cure}"
        ) from None


def give_freed_memory_back() -> None:
    """Let torch and the C library return memory that they kept for updates or windows that are finished.

    The last predictions and scores of a training then come in place of its activations, not on top of them. On a GPU
    that matters to other programs and to cuDNN, whose blocks would have to fit into gaps.
    """
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    trim = _function_of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _function_of_c_library(name: str) -> Callable[..., int] | None:
    """One of glibc's that other C libraries need not have."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu":
        return torch.float32
    processor = this_processor()
    if not processor.multiplies_bfloat16:
        return torch.float32
    # Whether it is right and faster there is what the self-test says (machine/self_test.py), once it has run.
    verdict = read_verdict(processor)
    return torch.bfloat16 if verdict is None or verdict.precision == "bfloat16" else torch.float32


def device_name(device: torch.device) -> str:
    """The kind of device, and which GPU it is."""
    return f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far, in GiB: on the GPU where there is one, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource  # noqa: PLC0415 - not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def flop_counter() -> FlopCounterMode:
    """Torch's counter of additions and multiplications, which also sees 3D convolutions that oneDNN computes."""

    def of_convolution(
        images: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
    ) -> int:
        return conv_flop_count(list(images), list(weight), list(out_shape))

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: of_convolution})
