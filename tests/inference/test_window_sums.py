import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg25d.core import temporary_arrays
from seg25d.core.errors import InputError
from seg25d.core.torch_backend import TORCH
from seg25d.inference import sliding_window, window_sums
from seg25d.inference.sliding_window import Slab, WindowOptions, predict_slabs
from seg25d.inference.window_sums import WindowSums

pytestmark = pytest.mark.processor
OPTIONS = WindowOptions((6, 5, 4), mirror_axes=(0, 2), batch_size=3)
SHAPE = (19, 8, 7)


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32))


@pytest.fixture
def predicted(image: Tensor) -> Callable[[], tuple[Tensor, list[int]]]:
    """Predicts the image; gives the scores (D, K, H, W), and the planes of each slab."""
    torch.manual_seed(0)
    model = nn.Conv3d(1, 3, 3, padding=1).eval()

    def predict() -> tuple[Tensor, list[int]]:
        slabs = [Slab(*slab[:2], slab.planes.clone()) for slab in predict_slabs([model], image, 3, OPTIONS)]
        assert [slab.start for slab in slabs] == np.cumsum([0, *(len(slab.planes) for slab in slabs[:-1])]).tolist()
        return torch.cat([slab.planes for slab in slabs]), [len(slab.planes) for slab in slabs]

    return predict


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /proc/mounts says: temporary files are on a disk, whatever this machine has."""
    path = tmp_path / "mounts"
    path.write_text("/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n")
    monkeypatch.setattr(temporary_arrays, "MOUNTS", path)
    return path


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def in_file(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let sums of any size lie in a temporary file; gives the sizes of those files."""
    sizes: list[int] = []
    allocate = os.posix_fallocate

    def noted(descriptor: int, start: int, size: int) -> None:
        sizes.append(size)
        allocate(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", noted)
    monkeypatch.setattr(window_sums, "PLANES_BYTES", 0)
    return sizes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep sums in memory")
def test_sums_in_a_file_are_those_in_memory(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 6 planes (3 x 8 x 7) are open, 2 bytes a number.
    monkeypatch.setattr(window_sums, "PLANES_BYTES", 2 * 6 * 3 * 8 * 7)
    in_memory, _ = predicted()
    assert in_memory.dtype == torch.float16
    sizes = in_file(monkeypatch)
    scores, _ = predicted()
    assert sizes == [2 * 6 * 3 * 8 * 7]
    assert torch.equal(scores, in_memory)


@pytest.mark.usefixtures("full_disk")
def test_sums_are_in_memory_where_the_disk_has_no_room(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_sums, "PLANES_BYTES", 0)
    scores, _ = predicted()
    assert scores.dtype == torch.float16
    assert scores.any()


@pytest.mark.usefixtures("full_disk")
def test_what_neither_memory_nor_disk_has_room_for_is_refused(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg25d.core.memory.available_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"6 x 3 x 8 x 7 numbers take .* or let TMPDIR name a folder"):
        predicted()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep sums in memory")
def test_sums_are_in_a_file_where_memory_has_no_room(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, _ = predicted()
    monkeypatch.setattr("seg25d.core.memory.available_memory_bytes", lambda: 1000)
    assert torch.equal(predicted()[0], in_memory)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep sums in memory")
def test_few_finished_planes_of_a_file_are_read_at_a_time(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, planes = predicted()
    assert max(planes) == 6
    in_file(monkeypatch)
    monkeypatch.setattr(window_sums, "RESIDENT_BYTES", 2 * 2 * 3 * 8 * 7)
    parts, planes = predicted()
    assert max(planes) == 2
    torch.testing.assert_close(parts.float(), whole, atol=2e-3, rtol=2e-3)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sums_in_a_file_take_little_memory() -> None:
    """Of 64 MiB, a few portions whether windows are added, planes read or dropped."""
    program = """
import torch
from pathlib import Path
from seg25d.inference import window_sums
from seg25d.inference.sliding_window import axis_weights
from seg25d.inference.window_sums import WindowSums

def peak_mib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

window_sums.PLANES_BYTES, window_sums.RESIDENT_BYTES, window_sums.TERM_BYTES = 0, 8 << 20, 1 << 20
weights = [axis_weights(size, size, [0]) for size in (8, 256, 256)]

def summed_up(classes):
    sums = WindowSums(0, (8, classes, 256, 256), weights, torch.device("cpu"), on_cpu=False)
    sums.add((0, 0, 0), (0,), torch.ones(1).expand(classes, 8, 256, 256), 1.0)
    total = sum(float(row.float().sum()) for _, planes in sums.finished(4) for plane in planes for row in plane)
    assert total == 4 * classes * 256 * 256, total
    sums.advance(4)
    return sums.planes.nbytes >> 20

summed_up(2)  # what torch itself takes when it computes such things for the first time
before = peak_mib()
print(summed_up(64), peak_mib() - before)
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    size, peak = map(float, found.stdout.split())
    assert size == 64
    assert peak < 40


def test_mirrorings_are_summed_up_before_they_go_to_the_cpu(
    predicted: Callable[[], tuple[Tensor, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = predicted()
    added: list[tuple[int, ...]] = []
    add = WindowSums._add

    def noted(sums: WindowSums, start: tuple[int, int, int], *rest: object) -> None:
        added.append(start)
        add(sums, start, *rest)

    monkeypatch.setattr(WindowSums, "_add", noted)
    predicted()
    passes = len(added)
    added.clear()
    # As where the device of the models has no room for the sums.
    monkeypatch.setattr(WindowSums, "gathers", property(lambda _: True, lambda *_: None), raising=False)
    scores, _ = predicted()
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-5)
    assert len(added) == len(set(added)) == passes / 4


class Device:
    """A device without data that has room for so many bytes, and what was copied to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.room = torch.device("meta"), 0
        self.copied: list[tuple[int, ...]] = []
        to = Tensor.to

        def noted(tensor: Tensor, place: torch.device) -> Tensor:
            if place == self.device != tensor.device:
                self.copied.append(tuple(tensor.shape))
            return to(tensor, place)

        def place(_device: torch.device, num_bytes: int, _share: float) -> torch.device:
            return self.device if num_bytes <= self.room else torch.device("cpu")

        monkeypatch.setattr(Tensor, "to", noted)
        monkeypatch.setattr(sliding_window, "buffer_device", place)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    with monkeypatch.context() as patches:
        yield Device(patches)


@pytest.mark.parametrize(
    ("room", "on_cpu", "copied"),
    [(10**6, False, [(1, *SHAPE)]), (0, False, [(1, 6, 5, 4)] * 2), (10**6, True, [(1, 6, 5, 4)] * 2)],
)
def test_a_device_gets_the_volume_or_each_window_once(
    image: Tensor, device: Device, room: int, on_cpu: bool, copied: list[tuple[int, ...]]
) -> None:
    device.room = room
    windows = sliding_window._Windows(image, (6, 5, 4), device.device, on_cpu=on_cpu)
    items = [sliding_window._Item(start, mirror) for start in ((0, 0, 0), (3, 0, 0)) for mirror in ((), (0,), (0, 2))]
    for batch in (items[:2], items[2:4], items[4:]):
        images = windows.images(batch)
        assert (images.shape, images.device) == ((2, 1, 6, 5, 4), device.device)
    assert device.copied == copied


def test_a_gpu_gets_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class Pinned:
        def copy_(self, part: Tensor) -> "Pinned":
            calls.append(part)
            return self

        def to(self, place: torch.device, *, non_blocking: bool) -> str:
            calls.append((place, non_blocking))
            return "there"

    part, gpu = torch.zeros(2, 3, 4)[:, 1:], torch.device("cuda:1")

    def empty(shape: torch.Size, *, dtype: torch.dtype, pin_memory: bool) -> Pinned:
        assert (shape, dtype, pin_memory) == (part.shape, torch.float32, True)
        return Pinned()

    monkeypatch.setattr(torch, "empty", empty)
    assert TORCH.send(part, gpu) == "there"
    assert calls[0] is part
    assert calls[1:] == [(gpu, True)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep sums in memory")
def test_files_that_take_memory_are_no_place_for_what_memory_lacks(
    mounts: Path,
    predicted: Callable[[], tuple[Tensor, list[int]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mounts.write_text("tmpfs / tmpfs rw 0 0\n")
    sizes = in_file(monkeypatch)
    temporary_arrays._warn.cache_clear()
    predicted()
    assert sizes == []
    assert "stay in memory, as no folder has room" in caplog.text
    monkeypatch.setattr(temporary_arrays, "lack_of_memory", lambda *_: "too much")
    with pytest.raises(InputError, match="let TMPDIR name a folder on a disk"):
        predicted()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep sums in memory")
@pytest.mark.parametrize("on_cpu", [False, True])
def test_sums_that_a_gpu_has_no_room_for_take_no_more_memory_than_those_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool
) -> None:
    sizes = in_file(monkeypatch)
    weights = [sliding_window.axis_weights(size, size, [0]) for size in (6, 5, 4)]
    # No CPU, and it has no room for any sums.
    sums = WindowSums(0, (6, 61, 5, 4), weights, torch.device("meta"), on_cpu=on_cpu)
    assert sizes == [2 * 6 * 61 * 5 * 4]
    assert sums.planes.device == torch.device("cpu")
