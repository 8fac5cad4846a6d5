"""What the system refuses is one sentence with the file and the cure, whichever library wrote, in every process."""

import errno
import io
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import environment
from faults.environment import can_mount, small_disk
from safetensors.torch import save_file

from seg25d.cli.common import run_guarded
from seg25d.core import parallel
from seg25d.core.arrays import StoredArray, write_array
from seg25d.core.errors import InputError, ResourceError, WorkerError
from seg25d.core.files import atomic_path, write_text
from seg25d.core.npz import npz_writer
from seg25d.core.parallel import check_num_processes, map_cases
from seg25d.core.system_errors import check_open_files, refusal
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import write_labels
from seg25d.inference.probability_maps import probability_map_writer, write_probability_channels
from seg25d.planning.model_file import load_header
from seg25d.training import loading
from seg25d.training.checkpoint import load_checkpoint, save_checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="needs limits of processes")
VALUES = np.random.default_rng(0).integers(0, 200, (8, 64, 64)).astype(np.uint8)
GEOMETRY = Geometry(
    shape=VALUES.shape, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)
)


def write_safetensors(path: Path) -> None:
    with atomic_path(path) as temporary:
        save_file({"a": torch.from_numpy(VALUES)}, temporary)


def write_npz(path: Path) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, a=VALUES)


def write_pieces(path: Path) -> None:
    with atomic_path(path) as temporary, npz_writer(temporary, "a", VALUES.shape) as write:
        write(VALUES)


def write_planes(path: Path) -> None:
    with probability_map_writer(path) as writer:
        depth, height, width = VALUES.shape
        writer.begin((1, *VALUES.shape), 0, ((0, depth), (0, height), (0, width)), (0,))
        for index, plane in enumerate(VALUES):
            writer.add(index, torch.from_numpy(plane)[None])
        writer.finish()


def write_zip(path: Path) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr("a", VALUES.tobytes())


def write_slice(path: Path) -> None:
    """As a picture, which has one slice."""
    write_labels(path, VALUES.reshape(1, 512, 64), GEOMETRY.model_copy(update={"shape": (1, 512, 64)}))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.txt": lambda path: write_text(path, "a" * VALUES.size),
    "a.b2nd": lambda path: write_array(path, VALUES),
    "planes.b2nd": write_planes,
    "channels.b2nd": lambda path: write_probability_channels(path, (1, *VALUES.shape), [VALUES]),
    "a.pt": lambda path: save_checkpoint(path, {"a": torch.from_numpy(VALUES)}),
    "a.safetensors": write_safetensors,
    "a.npz": write_npz,
    "pieces.npz": write_pieces,
    "a.zip": write_zip,
    **dict.fromkeys(("a.bmp", "a.png"), write_slice),
    **{
        f"a{ending}": lambda path: write_labels(path, VALUES, GEOMETRY)
        for ending in (".nii", ".nii.gz", ".nrrd", ".mha")
    },
}


def write_named(folder: Path, name: str) -> None:
    WRITERS[name](folder / name)


@pytest.fixture
def limited_files() -> Iterator[None]:
    """No file of this process may have more than 8 KiB: what every file system does to every library."""
    import resource  # noqa: PLC0415 - absent on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("limited_files")
def test_every_library_tells_why_it_cannot_write(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}: no file may be as large; raise the limit"):
        write_named(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not can_mount(), reason="only root mounts")
@pytest.mark.parametrize("pages", [2, 7])
def test_on_a_full_disk_every_library_tells_it_and_leaves_nothing(pages: int, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", f"remount,size={4096 * pages}", str(disk)], check=True)
        for name in WRITERS:
            with pytest.raises(ResourceError, match=rf"{name}: the disk is full; make room.*same command again"):
                write_named(disk, name)
            assert not list(disk.iterdir()), name


def fail_in_a_worker(folder: Path, number: int) -> None:
    with atomic_path(folder / f"{number}.txt") as temporary:
        temporary.touch()
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "words", "num_workers"),
    [
        (errno.ENOSPC, "the disk is full; make room", 0),
        (errno.ENOSPC, "the disk is full; make room", 2),
        (errno.EROFS, "read-only; make it writable", 0),
        (errno.EMFILE, r"too many open files; raise the limit \(`ulimit -n", 0),
    ],
)
def test_workers_tell_it_too(num_workers: int, number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=rf"{number}\.txt: .*{words}"):
        list(map_cases(partial(fail_in_a_worker, tmp_path), [number, number], num_workers=num_workers))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            np._core._exceptions._ArrayMemoryError((9, 9), np.dtype(float)),
            r"not enough memory for it \(Unable",
        ),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (ImportError("a.so: failed to map segment from shared object"), "not enough memory"),
        (RuntimeError("can't start new thread"), "no further process or thread; stop.*ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no further process"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), "^/x: the name is longer.*; shorten it"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "set TMPDIR"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x"), "^/x: you have no right"),
    ],
)
def test_what_the_system_refused_is_found(error: Exception, message: str) -> None:
    for each in (error, _from(error), _while_handling(error)):
        with pytest.raises(InputError, match=message):
            raise refusal(each) or each


def _from(cause: Exception) -> Exception:
    error = ValueError("of a library")
    error.__cause__ = cause
    return error


def _while_handling(context: Exception) -> Exception:
    error = ValueError("of a library")
    error.__context__ = _from(context)
    return error


def test_other_errors_are_not_the_systems() -> None:
    endless = ValueError()
    endless.__context__ = KeyError()
    endless.__context__.__context__ = endless
    for error in (endless, FileNotFoundError(errno.ENOENT, "No such file", "/x"), RuntimeError("full of disks")):
        assert refusal(error) is None
    assert refusal(WorkerError("No space left on device")) is None


def test_a_command_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/x")

    assert run_guarded(fill, debug=False) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: /home/x: your quota of the disk is used up; make room")
    assert shown.count("\n") == 1


def _closed(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_no_file_is_called_damaged_for_lack_of_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "a.b2nd": lambda path: StoredArray(path, "delete it"),
        "a.safetensors": load_header,
        "a.pt": load_checkpoint,
    }
    for name in readers:
        (tmp_path / name).write_bytes(b"no such file")
    with pytest.raises(InputError, match="damaged"):
        readers["a.b2nd"](tmp_path / "a.b2nd")
    monkeypatch.setattr(io, "open", _closed)
    for name, read in readers.items():
        with pytest.raises(ResourceError, match="too many open files"):
            read(tmp_path / name)


def test_open_files_and_processes_are_counted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    check_open_files(1, "a")
    with pytest.raises(ResourceError, match=r"9 processes need 1000000000000 open files.*ulimit -n"):
        check_open_files(10**12, "9 processes")
    check_num_processes(1)
    with pytest.raises(InputError, match=r"100000 processes need about .* GB.*--num-processes \d+ fits"):
        check_num_processes(100_000)
    monkeypatch.setattr(parallel, "available_memory_bytes", lambda: 1 << 60)
    monkeypatch.setattr(parallel, "free_processes", lambda: 70)
    check_num_processes(16)
    with pytest.raises(InputError, match=r"more than this user may still start; --num-processes 16 fits.*ulimit -u"):
        check_num_processes(100_000)


@posix
def test_groups_and_users_limit_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource  # noqa: PLC0415 - absent on Windows

    group = tmp_path / "sys" / "fs" / "cgroup" / "a"
    for path, text in {
        tmp_path / "proc" / "self" / "cgroup": "0::/a\n",
        tmp_path / "proc" / "7" / "status": f"Name:\tx\nUid:\t{os.getuid()}\t0\nThreads:\t5\n",
        tmp_path / "proc" / "8" / "status": f"Name:\tx\nUid:\t{os.getuid() + 1}\t0\nThreads:\t5\n",
        group / "pids.max": "50\n",
        group / "pids.current": "20\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (25, 25))
    assert parallel.free_processes(tmp_path) == 20
    (group / "pids.max").write_text("21")
    assert parallel.free_processes(tmp_path) == 1


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", ResourceError, "prepares batches.*lack of memory"),
        (
            f"DataLoader worker (pid 7) exited with exit code {100 + errno.EMFILE}.",
            ResourceError,
            "ulimit -n",
        ),
        (
            f"DataLoader worker (pid 7) exited with exit code {100 + errno.ENOSPC}.",
            ResourceError,
            "--shm-size",
        ),
        ("DataLoader worker (pid 7) exited unexpectedly with exit code 1.", WorkerError, "prepares batches"),
        ("Too many open files. Communication with the workers is no longer possible", ResourceError, "ulimit -n"),
        ("shapes differ", RuntimeError, "^shapes differ$"),
    ],
)
def test_what_ended_a_loader_is_told(message: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), loading.loaders_named():
        raise RuntimeError(message)


@posix
@pytest.mark.parametrize(
    "closed", [*(pytest.param(each, marks=pytest.mark.slow) for each in (">&-", "2>&-")), "<&- >&- 2>&-"]
)
def test_closed_streams_do_no_harm(closed: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m seg25d info --workspace "{tmp_path}" {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.campaign
@posix
@pytest.mark.parametrize("kind", environment.KINDS, ids=lambda kind: kind.name)
def test_some_of_the_campaign(kind: environment.Kind, prepared: Path, tmp_path: Path) -> None:
    for number in range(3):
        result = kind.attempt(random.Random(f"tests {kind.name} {number}"), prepared, tmp_path / str(number))
        assert result.as_promised, f"{number}: {result.outcome}\n{result.detail}"
