"""Run the tests marked `processor` with the kernels of each processor that this one can stand for.

python tests/run_on_processors.py [PYTEST ARGUMENTS]: torch takes other kernels under ATEN_CPU_CAPABILITY, oneDNN under
ONEDNN_MAX_CPU_ISA. Two combinations run side by side. Exit status 1 if one failed.
"""

import concurrent.futures
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SIDE_BY_SIDE = 2
FOLDERS = ("tests/networks", "tests/machine", "tests/training", "tests/inference")
"""That have marked tests."""
TIMEOUT_S = 600
COMBINATIONS: dict[tuple[str, str], frozenset[str]] = {
    ("ATEN_CPU_CAPABILITY", "default"): frozenset(),
    ("ATEN_CPU_CAPABILITY", "avx2"): frozenset({"avx2"}),
    ("ATEN_CPU_CAPABILITY", "avx512"): frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"): frozenset({"avx2"}),
    ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE"): frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"): frozenset({"avx512_bf16"}),
    ("ONEDNN_MAX_CPU_ISA", "DEFAULT"): frozenset(),
}
"""What is set, and what the processor must have for it to say anything (names of Linux)."""


class Outcome(NamedTuple):
    """How a combination ended."""

    status: str
    seconds: float
    last_line: str
    output: str


def instruction_sets() -> frozenset[str]:
    """What the processor has by Linux's names; nothing where that is not known."""
    information = Path("/proc/cpuinfo")
    if not information.exists() or platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    flags = [line for line in information.read_text().splitlines() if line.startswith("flags")]
    return frozenset(flags[0].split(":", 1)[1].split()) if flags else frozenset()


def missing(combination: tuple[str, str], there: frozenset[str]) -> str:
    """What the processor lacks for a combination; nothing if it can be run."""
    return " ".join(sorted(COMBINATIONS[combination] - there))


def run(combination: tuple[str, str], arguments: list[str]) -> Outcome:
    """The marked tests with one variable set."""
    name, value = combination
    environment = {"SEG25D_FUZZ_COUNT": "3", "OMP_NUM_THREADS": "1"} | os.environ | {name: value}
    words = ["-q", "-m", "processor", "-p", "no:cacheprovider", "--no-cov", *FOLDERS]
    command = [sys.executable, "-m", "pytest", *words, *arguments]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode() if isinstance(error.stdout, bytes) else str(error.stdout)
        return Outcome("hung", TIMEOUT_S, f"no end after {TIMEOUT_S} s", said)
    said = done.stdout + done.stderr
    lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
    return Outcome("passed" if done.returncode == 0 else "failed", time.monotonic() - begun, lines[-1], said)


def main(arguments: list[str]) -> int:
    """Run all that can be, and print a table."""
    there, begun = instruction_sets(), time.monotonic()
    lacking = {combination: missing(combination, there) for combination in COMBINATIONS}
    chosen = [combination for combination, what in lacking.items() if not what]
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = {combination: pool.submit(run, combination, arguments) for combination in chosen}
        outcomes = {combination: future.result() for combination, future in futures.items()}
    for combination, outcome in outcomes.items():
        if outcome.status != "passed":
            print("=" * 20, *combination, "=" * 20, outcome.output, sep="\n")
    for combination in COMBINATIONS:
        setting = "=".join(combination)
        if combination in outcomes:
            outcome = outcomes[combination]
            print(f"{setting:40} {outcome.status:8} {outcome.seconds:6.1f} s  {outcome.last_line}")
        else:
            print(f"{setting:40} not run: the processor has no {lacking[combination]}")
    failed = sum(outcome.status != "passed" for outcome in outcomes.values())
    counts = f"{failed} failed, " if failed else ""
    print(
        f"==== processors: {counts}{len(outcomes) - failed} passed, {len(COMBINATIONS) - len(chosen)} skipped "
        f"in {time.monotonic() - begun:.2f}s ===="
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
