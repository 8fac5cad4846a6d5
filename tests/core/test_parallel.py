"""Work on cases: results, failures that name the case, and workers that end with their parent."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seg25d.core.errors import InputError, WorkerError
from seg25d.core.parallel import (
    available_cores,
    available_memory_bytes,
    choose_num_workers,
    map_cases,
    torchrun_processes,
)


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    if number == 2:
        raise ValueError("no two")
    return number


def refuse(number: int) -> int:
    raise InputError(f"case {number} is wrong")


def fill_the_disk(number: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", "/data/x.b2nd")


def read_nothing(number: int) -> int:
    raise FileNotFoundError(errno.ENOENT, "No such file", "/data/x.b2nd")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_item_gets_its_result(num_workers: int) -> None:
    assert sorted(map_cases(double, [1, 2, 3], num_workers=num_workers)) == [(1, 2), (2, 4), (3, 6)]
    assert list(map_cases(double, [], num_workers=num_workers)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_failure_names_the_case_and_shows_its_traceback(num_workers: int) -> None:
    with pytest.raises(WorkerError, match=r"(?s)case_2: ValueError\('no two'\).*Traceback.*in fail"):
        list(map_cases(fail, [1, 2, 3], name=lambda number: f"case_{number}", num_workers=num_workers))


def test_nothing_of_the_pool_is_left_when_the_work_is_done() -> None:
    """A thread that is still ending when the interpreter ends: `OSError: Bad file descriptor`, or a hang."""
    before = set(threading.enumerate())
    assert len(list(map_cases(double, [1, 2, 3], num_workers=2))) == 3
    assert set(threading.enumerate()) <= before
    with pytest.raises(WorkerError):
        list(map_cases(fail, [2], num_workers=2))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_our_own_errors_pass_unchanged(num_workers: int) -> None:
    with pytest.raises(InputError, match=r"case \d is wrong"):
        list(map_cases(refuse, [1, 2], num_workers=num_workers))


def test_a_dead_worker_is_explained() -> None:
    with pytest.raises(WorkerError, match=r"died.*lack of memory.*--num-processes"):
        list(map_cases(die, [1, 2], num_workers=2))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from seg25d.core.parallel import map_cases\n"
        "def slow(number):\n"
        "    open(sys.argv[1] + str(number), 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(map_cases(slow, [1, 2], num_workers=2))\n"
    )
    files = [tmp_path / "pid1", tmp_path / "pid2"]
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "pid")])
    while not all(file.exists() and file.read_text() for file in files):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [Path("/proc") / file.read_text() for file in files]
    deadline = time.monotonic() + 10
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.exists() for worker in workers)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_server_of_workers_ends_without_a_word_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import resource\n"
        "from multiprocessing import forkserver\n"
        "from seg25d.core.errors import Seg25dError\n"
        "from seg25d.core.parallel import map_cases, start_worker_server\n"
        "if __name__ == '__main__':\n"
        "    start_worker_server([])\n"
        "    assert sorted(map_cases(abs, [1, 2], num_workers=2)) == [(1, 1), (2, 2)]\n"
        "    server = forkserver._forkserver._forkserver_pid\n"
        "    resource.prlimit(server, resource.RLIMIT_NOFILE, (9, 9))\n"
        "    try:\n"
        "        list(map_cases(abs, [1, 2], num_workers=2))\n"
        "    except (Seg25dError, OSError, EOFError) as error:\n"
        "        print('told')\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "told\n", "")


def test_the_number_of_workers_respects_request_and_memory() -> None:
    assert choose_num_workers(3, 1, 9) == 3
    assert choose_num_workers(100_000, 1, 3) == 3
    assert choose_num_workers(None, available_memory_bytes(), 9) == 0
    assert choose_num_workers(None, 1, 9) in (0, available_cores())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_full_disk_is_not_our_fault(num_workers: int) -> None:
    with pytest.raises(InputError, match=r"^case_\d: /data/x\.b2nd: the disk is full; make room.*goes on") as caught:
        list(map_cases(fill_the_disk, [1, 2], name=lambda number: f"case_{number}", num_workers=num_workers))
    assert "Traceback" not in str(caught.value)
    with pytest.raises(WorkerError, match="Traceback"):
        list(map_cases(read_nothing, [1, 2], num_workers=num_workers))


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is a signal to a process group elsewhere")
def test_ctrl_c_ends_all_processes_without_tracebacks_of_workers(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from seg25d.core.parallel import map_cases\n"
        "def slow(number):\n"
        "    open(sys.argv[1] + str(number), 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored\n"
        "    try:\n"
        "        list(map_cases(slow, [1, 2, 3, 4, 5, 6], num_workers=2))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
    )
    files = [tmp_path / "pid1", tmp_path / "pid2"]
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "pid")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Coverage's own handlers of signals and exits would take part in what is tested.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    while not all(file.exists() and file.read_text() for file in files):
        assert parent.poll() is None
        time.sleep(0.05)
    os.killpg(parent.pid, signal.SIGINT)
    output, errors = parent.communicate(timeout=50)  # less than the minute that the cases take
    assert output == "interrupted\n"
    assert errors == ""
    assert parent.returncode == 0


def test_workers_find_loaded_what_their_server_loads(tmp_path: Path) -> None:
    (tmp_path / "loaded_by_the_server.py").write_text("import os\n\nPROCESS = os.getpid()\n")
    code = """if __name__ == '__main__':
        import loaded_by_the_server as module
        from seg25d.core.parallel import map_cases, start_worker_server

        start_worker_server([module.__name__, 'no_such_module_of_seg25d'])
        values = [value for _, value in map_cases(worker.processes, range(4), num_workers=2)]
        print(len({server for server, _ in values}), any(worker == server for server, worker in values))
        print(any(server == module.PROCESS for server, _ in values))
"""
    (tmp_path / "worker.py").write_text(
        "import os\nimport loaded_by_the_server\n\n\n"
        "def processes(_):\n    return loaded_by_the_server.PROCESS, os.getpid()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code.replace("if __name__", "import worker\n\nif __name__", 1))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["1", "False", "False"], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sockets there have names of files")
def test_a_temporary_folder_with_a_long_name_stops_no_processes(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text("""
from torch import ones
from torch.utils.data import DataLoader
from seg25d.core.parallel import map_cases

if __name__ == '__main__':
    print(sorted(value for _, value in map_cases(abs, [1, -2, 3], num_workers=2)))
    print([len(batch) for batch in DataLoader([ones(1), ones(2)], batch_size=None, num_workers=1)])
""")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == ["[1, 2, 3]", "[1, 2]"], done.stderr
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_ctrl_c_while_the_server_loads_is_for_the_command_alone(tmp_path: Path) -> None:
    (tmp_path / "slow_to_load.py").write_text(
        "import pathlib, time\n\npathlib.Path('loading').touch()\ntime.sleep(3)\n"
    )
    code = (
        "import signal, time\nfrom seg25d.core.parallel import start_worker_server\n"
        # A shell has SIGINT ignored for what runs in its background, these tests included.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "start_worker_server(['slow_to_load'])\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "loading").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (out, error) == ("interrupted\n", "")


def test_a_limit_of_the_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="absent on Windows")
    free = available_memory_bytes()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (taken + (100 << 20), -1))
    assert 50 << 20 < available_memory_bytes() < 150 << 20 < free
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, -1))
    assert available_memory_bytes() == 0


@pytest.mark.parametrize(("value", "number"), [(None, 1), ("", 1), (" ", 1), ("1", 1), ("4", 4)])
def test_torchrun_says_how_many_processes_there_are(
    value: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if value is not None:
        monkeypatch.setenv("WORLD_SIZE", value)
    assert torchrun_processes() == number


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "²"])
def test_what_is_no_number_of_processes_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", value)
    with pytest.raises(InputError, match=f"LOCAL_WORLD_SIZE: expected a number .*, got '{value}'; unset it"):
        torchrun_processes("LOCAL_WORLD_SIZE")
