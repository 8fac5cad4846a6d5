"""Arrays in files: where these lie, what is refused or said, and that they hold what is written."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from seg25d.core import temporary_arrays
from seg25d.core.backend import NUMPY
from seg25d.core.errors import InputError
from seg25d.core.temporary_arrays import LargeMaps, TemporaryArray, file_if_large, large_arrays_in, large_zeros

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such files")
FOLDERS = ("tmp", "var", "out")


class Disks:
    """Three folders, which are in memory or full as one wants it, and where files came to lie."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.used = root, []
        self.full: set[str] = set()
        for name in FOLDERS[:2]:
            (root / name).mkdir()
        monkeypatch.setattr(temporary_arrays, "MOUNTS", root / "mounts")
        monkeypatch.setattr(temporary_arrays, "LARGE_FILES", root / "var")
        monkeypatch.setattr(temporary_arrays.tempfile, "tempdir", str(root / "tmp"))
        monkeypatch.setattr(os, "posix_fallocate", self.allocate)
        self.in_memory()

    def in_memory(self, *names: str) -> None:
        lines = ["/dev/sda1 / ext4 rw 0 0", *(f"tmpfs {self.root / name} tmpfs rw 0 0" for name in names)]
        (self.root / "mounts").write_text("\n".join(lines) + "\n")

    def allocate(self, descriptor: int, start: int, size: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        name = place.relative_to(self.root).parts[0]
        if name in self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.used.append(name)
        os.ftruncate(descriptor, start + size)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    temporary_arrays._warn.cache_clear()
    return Disks(tmp_path.resolve(), monkeypatch)


def test_they_are_zeros_that_can_be_written(disks: Disks) -> None:
    array = TemporaryArray((2, 3), "float16")
    assert disks.used == ["tmp"]
    assert not array.values.any()
    array.values[1] = 7
    array.release()
    np.testing.assert_array_equal(array.values, [[0] * 3, [7] * 3])
    assert list((disks.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("in_memory", "full", "used"),
    [((), (), "tmp"), (("tmp",), (), "var"), (("tmp",), ("var",), "out"), ((), ("tmp", "var"), "out")],
)
def test_they_lie_in_the_first_folder_on_a_disk_with_room(
    disks: Disks, in_memory: tuple[str, ...], full: tuple[str, ...], used: str
) -> None:
    disks.in_memory(*in_memory)
    disks.full = set(full)
    (disks.root / "out").mkdir()
    with large_arrays_in(disks.root / "out" / "is" / "made" / "later"):
        assert file_if_large((4,), "float32", 0) is not None
    assert disks.used == [used]


def test_where_no_folder_has_room_they_stay_in_memory_which_is_said_once(
    disks: Disks, caplog: pytest.LogCaptureFixture
) -> None:
    disks.in_memory("tmp")
    disks.full = {"var"}
    assert file_if_large((4,), "float32", 0) is None
    assert file_if_large((5,), "float32", 0) is None
    (said,) = caplog.messages
    assert "scores of more than 640 MiB stay in memory" in said
    assert f"({disks.root / 'tmp'}: its files are kept in memory; {disks.root / 'var'}: No space left" in said
    assert said.endswith("let TMPDIR name a folder on a disk with more space")


def test_what_is_small_is_in_memory_and_what_has_no_room_anywhere_is_refused(
    disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_if_large((4,), "float32", 16) is None
    assert file_if_large((4,), "float32", 15) is not None
    monkeypatch.setattr("seg25d.core.memory.available_memory_bytes", lambda: 15)
    assert file_if_large((4,), "float32", 16) is not None
    disks.in_memory(*FOLDERS)
    with pytest.raises(InputError, match=r"the scores: 4 numbers take .* let TMPDIR name a folder on a disk"):
        file_if_large((4,), "float32", 16)


def test_systems_without_such_files_have_memory(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    assert file_if_large((4,), "float32", 0) is None
    assert disks.used == []


@pytest.mark.parametrize("axis", range(3))
def test_maps_in_a_file_are_those_in_memory(disks: Disks, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.random.default_rng(axis).random((2, 3, 4, 5), np.float32).astype(np.float16)
    planes = np.moveaxis(expected, 1 + axis, 0)
    for most_bytes in (1 << 20, 0):
        monkeypatch.setattr(temporary_arrays, "IN_MEMORY_BYTES", most_bytes)
        maps = LargeMaps(expected.shape, NUMPY)
        maps.write(axis, 0, planes[:2])
        maps.write(axis, 2, planes[2:])
        np.testing.assert_array_equal(maps.maps, expected)
        assert maps.maps.flags.c_contiguous == (most_bytes > 0)
    assert disks.used == ["tmp"]
    assert np.moveaxis(maps.maps, 1 + axis, 0).flags.c_contiguous, "a plane is in one piece"


def test_zeros_in_a_file_may_be_left_to_the_system(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary_arrays, "IN_MEMORY_BYTES", 0)
    values, release = large_zeros((3, 4), "float32")
    values[1] = 2
    release()
    np.testing.assert_array_equal(values, [[0] * 4, [2] * 4, [0] * 4])
    assert disks.used == ["tmp"]
