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
