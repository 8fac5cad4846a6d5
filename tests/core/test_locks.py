"""One process writes in a place at a time, and its lock leaves nothing behind."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seg25d.core import locks
from seg25d.core.errors import BusyError, InputError
from seg25d.core.locks import file_lock, folder_lock, patience, reading_lock

HOLD = """
import signal, sys, time
from pathlib import Path
from seg25d.core import locks
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background has it ignored
with getattr(locks, sys.argv[1])(Path(sys.argv[2]), "holding"):
    print("held", flush=True)
    time.sleep(60)
"""


def held_elsewhere(kind: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_neither_the_lock_nor_a_folder_that_was_made_for_it_stays(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "a" / "b", "trying"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    with file_lock(tmp_path / "c" / "model.zip", "trying"):
        assert (tmp_path / "c" / ".model.zip.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="refused"), folder_lock(tmp_path / "a", "trying"):
        raise InputError("refused")
    assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path / "a", "trying"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_leftovers_go_first(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / f".tmp-{10**30}-a").touch()
    with file_lock(tmp_path / "a", "trying"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.lock", "inner"]
    with folder_lock(tmp_path, "trying", deep=True):
        assert not list((tmp_path / "inner").iterdir())


@pytest.mark.parametrize("kind", ["folder_lock", "file_lock"])
def test_the_lock_of_a_killed_process_is_taken_over(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    process = held_elsewhere(kind, path)
    with (
        pytest.raises(BusyError, match=rf"a is in use \(process {process.pid}: holding\)"),
        getattr(locks, kind)(path, "x"),
    ):
        pass
    end(process)
    with getattr(locks, kind)(path, "x"):
        pass
    assert not any(tmp_path.rglob("*.lock"))


def test_many_may_read_and_none_writes_meanwhile(tmp_path: Path) -> None:
    process = held_elsewhere("reading_lock", tmp_path)
    with reading_lock(tmp_path, "reading"), pytest.raises(BusyError), folder_lock(tmp_path, "writing"):
        pass
    with pytest.raises(BusyError), folder_lock(tmp_path, "writing"):
        pass
    assert (tmp_path / ".lock").exists()
    end(process)
    with folder_lock(tmp_path, "writing"), pytest.raises(BusyError), reading_lock(tmp_path, "reading"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_into_is_read_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading_lock(tmp_path / "missing", "reading"):
        assert not list(tmp_path.iterdir())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    with reading_lock(tmp_path, "reading"):
        assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot be written"), folder_lock(tmp_path, "writing"):
        pass


def test_one_may_wait_for_another(tmp_path: Path) -> None:
    released = threading.Event()

    def hold() -> None:
        with folder_lock(tmp_path / "a", "holding"):
            released.set()
            time.sleep(1)

    other = threading.Thread(target=hold)
    other.start()
    released.wait()
    with folder_lock(tmp_path / "a", "waiting", patience_seconds=30):
        pass
    other.join()
    assert not list((tmp_path / "a").iterdir())


def test_of_many_at_once_one_at_a_time_is_inside(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with folder_lock(tmp_path / "a" / "b", "working", patience_seconds=60):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(os.name != "posix", reason="flock")
def test_a_disk_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl  # noqa: PLC0415 - absent on Windows

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder_lock(tmp_path, "trying"):
        pass
    assert "this disk has no locks (Function not implemented); run one command at a time" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_releases_it(tmp_path: Path) -> None:
    process = held_elsewhere("folder_lock", tmp_path / "a")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_read_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: object, **settings: object) -> object:
        if path.name == ".lock":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, *arguments, **settings)  # type: ignore[arg-type]

    opened = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    with reading_lock(tmp_path, "reading"):
        pass


ELSEWHERE = ["unshare", "--net", "--uts", "--pid", "--fork"]
"""A place with a network, a host name and numbers of processes of its own, as a container has them."""
HOLD_OR_TELL = """
import sys
from pathlib import Path
from seg25d.core.errors import BusyError
from seg25d.core.locks import folder_lock
try:
    with folder_lock(Path(sys.argv[1]), "training there"):
        print("holds", flush=True)
        sys.stdin.read()
except BusyError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_lock_holds_in_other_containers_that_see_the_folder(tmp_path: Path) -> None:
    try:
        subprocess.run([*ELSEWHERE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    command = [*ELSEWHERE, sys.executable, "-c", HOLD_OR_TELL, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "holds\n"
        second = subprocess.run(command, input="", capture_output=True, text=True, check=True)
        assert "is in use (process" in second.stdout
        assert "training there" in second.stdout
        first.stdin.close()
    third = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert third.stdout == "holds\n"


def test_more_patience_is_for_the_block(tmp_path: Path) -> None:
    with folder_lock(tmp_path, "here"), pytest.raises(BusyError), folder_lock(tmp_path, "again"):
        pass
    released = threading.Timer(1.0, lambda: lock.__exit__(None, None, None))
    lock = folder_lock(tmp_path, "for a second")
    lock.__enter__()
    released.start()
    with patience(20), folder_lock(tmp_path, "after it"):
        released.join()
