"""Where models compute, and in which layout."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from seg25d.core import device
from seg25d.core.device import ALLOCATOR_SETTINGS, Execution, choose_execution
from seg25d.core.errors import InputError


@pytest.mark.parametrize(("avx2", "in_2d", "in_3d"), [(True, False, True), (False, True, False)])
def test_layouts_are_chosen_layer_by_layer(
    avx2: bool, in_2d: bool, in_3d: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views and fusion as one model have layers in 2D and in 3D."""
    monkeypatch.setattr(device, "computes_with_avx2", lambda: avx2)
    model = nn.ModuleList([nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3)])
    before = [layer.weight.detach().clone() for layer in model]
    placed = Execution(torch.device("cpu"), torch.float32).place(model)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last) == in_2d
    assert placed[1].weight.is_contiguous(memory_format=torch.channels_last_3d) == in_3d
    assert [layer.weight.is_contiguous() for layer in placed] == [not in_2d, not in_3d]
    assert all(torch.equal(layer.weight, old) for layer, old in zip(placed, before, strict=True))


def test_bfloat16_on_a_cpu_keeps_the_layout() -> None:
    model = nn.Conv2d(4, 8, 3)
    assert Execution(torch.device("cpu"), torch.bfloat16).place(model).weight.is_contiguous()


@pytest.fixture
def allocator_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the C library is told about its allocator from here on."""
    calls: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: None) -> None:
            assert name is None

        def mallopt(self, option: int, value: int) -> int:
            calls.append((option, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ALLOCATOR_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_freed_memory_is_kept_on_cpus(allocator_calls: list[tuple[int, int]]) -> None:
    choose_execution("cpu")
    # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h.
    assert allocator_calls == [(-1, 2**31 - 1), (-3, 2**25)]


@pytest.mark.parametrize("name", ALLOCATOR_SETTINGS)
def test_users_choose_their_allocator(
    name: str, allocator_calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    choose_execution("cpu")
    assert allocator_calls == []


def test_other_systems_are_left_alone(allocator_calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    choose_execution("cpu")
    assert allocator_calls == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_freed_memory_is_given_back_when_asked_for() -> None:
    """Sixty tensors of 4 MiB, which the C library keeps although they are gone."""
    program = """
import ctypes, torch
from pathlib import Path
from seg25d.core.device import choose_execution, give_freed_memory_back

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256

choose_execution("cpu")
if not hasattr(ctypes.CDLL(None), "malloc_trim"):
    print("no glibc")
    raise SystemExit
tensors = [torch.ones(1 << 20) for _ in range(60)]
full = resident_mib()
del tensors
kept = resident_mib()
give_freed_memory_back()
print(full - kept, full - resident_mib())
"""
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    if found.stdout.strip() == "no glibc":
        pytest.skip(found.stdout.strip())
    freed_before, freed = map(float, found.stdout.split())
    assert freed_before < 100
    assert freed > 200


class TwoGPUs:
    """Stands for `torch.cuda` on a machine with an older and a newer GPU; the newer one is the second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        self.allocated: list[torch.device] = []
        self.emptied = 0
        functions = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "current_device": lambda: self.current,
            "set_device": self._set_device,
            "is_bf16_supported": lambda including_emulation=True: self.current == 1,
            "empty_cache": self._empty_cache,
            "device_count": lambda: 2,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(torch, "empty", lambda *_sizes, device: self.allocated.append(device))
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    def _set_device(self, chosen: torch.device) -> None:
        # torch refuses one without a number (torch/cuda/_utils.py, _get_device_index).
        assert chosen.index is not None
        self.current = chosen.index

    def _empty_cache(self) -> None:
        self.emptied += 1


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> TwoGPUs:
    return TwoGPUs(monkeypatch)


@pytest.mark.parametrize(
    ("name", "number", "dtype"),
    [("cuda:1", 1, torch.bfloat16), ("cuda:0", 0, torch.float16), ("cuda", 0, torch.float16), (None, 0, torch.float16)],
)
def test_the_chosen_gpu_becomes_the_current_one(
    two_gpus: TwoGPUs, name: str | None, number: int, dtype: torch.dtype
) -> None:
    """Else precision, pinned memory and caches would be those of the first GPU."""
    execution = choose_execution(name)
    assert (execution.device, execution.dtype) == (torch.device("cuda", number), dtype)
    assert two_gpus.current == number


def test_what_other_processes_compute_on_is_looked_at_without_taking_memory(two_gpus: TwoGPUs) -> None:
    """A context would stay on every GPU for as long as its process predicts."""
    for name in ("cuda:0", "cuda:1"):
        device.check_device(name)
    with pytest.raises(InputError, match=r"'cuda:2' cannot be used here: torch sees 2 GPU"):
        device.check_device("cuda:2")
    assert (two_gpus.allocated, two_gpus.current) == ([], 0)


def test_a_gpu_without_a_number_is_the_one_that_was_current(two_gpus: TwoGPUs) -> None:
    two_gpus.current = 1
    assert choose_execution("cuda").device == torch.device("cuda:1")


def test_the_cache_of_a_gpu_is_given_back(two_gpus: TwoGPUs) -> None:
    device.give_freed_memory_back()
    assert two_gpus.emptied == 1


def test_no_gpu_is_woken_to_give_memory_back(two_gpus: TwoGPUs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    device.give_freed_memory_back()
    assert two_gpus.emptied == 0


def test_what_torch_keeps_of_tensors_that_are_gone_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 250)
    assert device.free_gpu_memory_bytes(torch.device("cuda:0")) == 100 + 700 - 250


def test_a_device_without_room_for_the_weights_is_an_error_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model = nn.Conv2d(4, 8, 3)
    monkeypatch.setattr(model, "to", full)
    with pytest.raises(InputError, match=r"memory of cuda:1 is too small for the weights.*--device cpu"):
        Execution(torch.device("cuda:1"), torch.bfloat16).place(model)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GiB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_libraries_say_in_their_own_words_that_memory_is_short(error: RuntimeError, expected: bool) -> None:
    assert device.lacks_memory(error) == expected
    with (
        pytest.raises(InputError if expected else RuntimeError, match="too small to do it" if expected else str(error)),
        device.memory_of(torch.device("cuda:0"), "to do it", "do less"),
    ):
        raise error
