"""benchmarks/measured.py: all processes of a command count."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measured import Limits, family, measure, memory_kb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl")
ALLOCATE = "import time; taken = b'x' * (200 << 20); time.sleep(1)"
FAMILY = """
import os, sys
shared = b"x" * (100 << 20)
child = os.fork()
own = b"y" * (0 if child else 100 << 20)
print("ready", flush=True)
sys.stdin.read()
child and os.waitpid(child, 0)
"""
BURN = "import time\nwhile time.process_time() < 0.5: pass"
CHILD = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]])"


def run(tmp_path: Path, *words: str, limits: Limits | None = None) -> dict[str, Any]:
    return measure([sys.executable, "-c", *words], os.environ, tmp_path / "log" / "one.log", limits=limits)


def test_the_memory_of_a_child_is_seen(tmp_path: Path) -> None:
    found = run(tmp_path, f"{CHILD}; child.wait()", ALLOCATE)
    assert found["status"] == 0
    assert 0.2 < found["memory_of_all_gb"] < 0.3
    assert 0.2 < found["memory_gb"] < 0.3
    assert found["with_files_gb"] >= found["memory_of_all_gb"]
    assert found["cpu_s"] < 1 < found["wall_s"]


def test_memory_of_the_whole_family_is_found_and_shared_pages_count_once() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        first, second = family(process.pid)
        own = sum(memory_kb(pid)[0] for pid in (first, second))
        process.communicate(b"")
    assert (first, process.returncode) == (process.pid, 0)
    # 100 MiB are the parent's alone or shared with its fork, another 100 MiB the fork's.
    assert 200 << 10 < own < 240 << 10


def test_the_work_of_a_child_that_nobody_waits_for_counts(tmp_path: Path) -> None:
    found = run(tmp_path, CHILD, BURN)
    assert found["cpu_s"] >= 0.5


def test_status_and_output_are_those_of_the_command(tmp_path: Path) -> None:
    found = run(tmp_path, "import sys; print('said'); sys.exit(3)")
    assert (found["status"], found["over_limit"]) == (3, None)
    assert (tmp_path / "log" / "one.log").read_text() == "said\n"


def test_too_much_memory_or_time_ends_a_command_and_its_children(tmp_path: Path) -> None:
    hold = "open(sys.argv[2], 'w').write(str(child.pid)); child.wait()"
    pid = tmp_path / "pid"
    found = run(tmp_path, f"{CHILD}; {hold}", ALLOCATE + "; time.sleep(60)", str(pid), limits=Limits(memory_gb=0.1))
    assert (found["over_limit"], found["status"]) == ("memory", -9)
    assert not Path(f"/proc/{pid.read_text()}").exists()
    found = run(tmp_path, "import time; time.sleep(60)", limits=Limits(seconds=0.3))
    assert found["over_limit"] == "time"
    assert found["wall_s"] < 10


def test_what_is_measured_ends_with_the_benchmark(tmp_path: Path) -> None:
    pid, log = tmp_path / "pid", tmp_path / "log"
    stage = f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(60)"
    words = [sys.executable, "-c", stage]
    code = f"import os, pathlib, measured; measured.measure({words}, os.environ, pathlib.Path({str(log)!r}))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "benchmarks") as benchmark:
        await_true(lambda: pid.exists() and pid.read_text().endswith(" "))
        benchmark.kill()
    await_true(lambda: not Path(f"/proc/{int(pid.read_text())}").exists())


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
