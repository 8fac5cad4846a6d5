"""Time and memory of a command with all its processes: wall and processor seconds, and peak memory.

    python benchmarks/measured.py -o FILE.json [--memory-limit-gb GB] [--time-limit-s S] -- COMMAND ...

Run by other benchmarks, as a process of its own that has no other children: it adopts what the command leaves behind
(PR_SET_CHILD_SUBREAPER, prctl(2)) and waits for it, so that processor time of processes whose parent does not wait for
them counts, too: the workers of Python's fork server are such. Memory is sampled from `/proc/PID/smaps_rollup`
(proc_pid_smaps(5)): pages that processes share count once. Linux only.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

KILOBYTES_OF_GIGABYTE = 1 << 20
SECONDS_BETWEEN_SAMPLES = 0.1
SHARE_OF_SAMPLING = 0.1
"""Of the time, at most: a sample of a process takes longer the more memory it has."""
PATIENCE_SECONDS = 10.0
"""How long what a command leaves behind may take to end, before it is killed."""
PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h."""


class Limits(NamedTuple):
    """What a command may take."""

    memory_gb: float = math.inf
    """Of all its processes together, without mapped files."""
    seconds: float = math.inf


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    limits: Limits | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run a command and measure it.

    Args:
        command: The command and its arguments.
        environment: Its variables.
        log: File for its output, replaced.
        limits: It is killed once it takes more.
        folder: Where it runs; None: here.

    Returns:
        `wall_s`; `cpu_s`, user and system, of all processes; `memory_gb` of the largest process; `memory_of_all_gb` of
        all together at the same time, without files that are mapped, such as those of libraries; `with_files_gb`, the
        same with them; `status` of the command; `over_limit`, the limit that it was killed for, `memory` or `time`, or
        None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    found = log.with_suffix(".measured.json")
    found.unlink(missing_ok=True)
    words = [sys.executable, str(Path(__file__).resolve()), "-o", str(found.resolve())]
    limits = limits or Limits()
    words += ["--memory-limit-gb", str(limits.memory_gb), "--time-limit-s", str(limits.seconds)]
    with log.open("wb") as stream:
        whole = [*words, "--", *command]
        subprocess.run(whole, check=False, env=environment, cwd=folder, stdout=stream, stderr=subprocess.STDOUT)
    if not found.exists():
        raise SystemExit(f"error: {' '.join(command)} could not be measured; its output is in {log}")
    result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    found.unlink()
    return result


@dataclass
class Peaks:
    """The most memory so far of this process's descendants together, in KiB."""

    own: int = 0
    """Without mapped files."""
    with_files: int = 0

    def look(self) -> None:
        """Take a sample."""
        samples = [memory_kb(pid) for pid in family(os.getpid())[1:]]
        self.own = max(self.own, sum(own for own, _ in samples))
        self.with_files = max(self.with_files, sum(every for _, every in samples))


def watch(command: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Run a command in this process's family and measure it, see `measure`."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peaks, over, parent = Peaks(), None, os.getppid()
    started = time.perf_counter()
    process = subprocess.Popen(command)
    pause = SECONDS_BETWEEN_SAMPLES
    try:
        while True:
            try:
                process.wait(pause)
                break
            except subprocess.TimeoutExpired:
                begun = time.perf_counter()
                peaks.look()
                pause = max(SECONDS_BETWEEN_SAMPLES, (time.perf_counter() - begun) / SHARE_OF_SAMPLING)
            if peaks.own > limits.memory_gb * KILOBYTES_OF_GIGABYTE:
                over = "memory"
            elif begun - started > limits.seconds:
                over = "time"
            if over is not None:
                kill_family()
            if os.getppid() != parent:
                raise SystemExit("error: the benchmark was killed, and so is what it measured")
        wall = time.perf_counter() - started
    finally:
        reap(0.0 if process.returncode is None else PATIENCE_SECONDS)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "memory_gb": usage.ru_maxrss / KILOBYTES_OF_GIGABYTE,
        "memory_of_all_gb": peaks.own / KILOBYTES_OF_GIGABYTE,
        "with_files_gb": peaks.with_files / KILOBYTES_OF_GIGABYTE,
        "status": process.returncode,
        "over_limit": over,
    }


def reap(patience_seconds: float) -> None:
    """Wait for all children, and kill those that do not end in time."""
    deadline = time.monotonic() + patience_seconds
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    kill_family()
                time.sleep(0.02)


def kill_family() -> None:
    """Kill all descendants of this process."""
    for pid in family(os.getpid())[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: list[int] = []
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return [pid, *(below for child in children for below in family(child))]


def memory_kb(pid: int) -> tuple[int, int]:
    """Memory of a process in KiB without and with mapped files; shared pages are divided among the processes."""
    kinds: dict[str, int] = {}
    with suppress(OSError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            words = line.split()
            kinds[words[0]] = int(words[1])
    return kinds.get("Pss_Anon:", 0) + kinds.get("Pss_Shmem:", 0), kinds.get("Pss:", 0)


def main() -> None:
    """Measure the command of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--memory-limit-gb", type=float, default=math.inf)
    parser.add_argument("--time-limit-s", type=float, default=math.inf)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    found = watch(options.command, Limits(options.memory_limit_gb, options.time_limit_s))
    options.output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
