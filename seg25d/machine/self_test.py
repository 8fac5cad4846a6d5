"""The self-test: checks in a process of their own, so that a crash or a hang of a native library is a finding.

The short form takes seconds and runs before the first training on a machine; `seg25d info --check` runs the long one.
Its verdict, bfloat16 or float32, is kept in the user's cache folder (core/processor.py) and read wherever a device is
chosen.
"""

import json
import logging
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from typing import IO, Any, Literal

from pydantic import Field

from seg25d.core.device import choose_execution
from seg25d.core.parallel import torchrun_processes
from seg25d.core.processor import Processor, Verdict, read_verdict, this_processor
from seg25d.core.records import Record
from seg25d.machine.names import KNOWN, LAYERS, NETWORKS, TIMING

logger = logging.getLogger(__name__)
CHILD = ("-m", "seg25d.machine")
SECONDS_WITHOUT_A_WORD = 60.0
"""Seconds after which a check counts as hung: its trials take milliseconds, networks a few seconds."""
SECONDS_PER_CHECK = 4.0
"""Time for each check of random layers, in the long form."""
MOST_TRIALS = 100_000
CRASHES = {
    int(getattr(signal, name)) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL") if hasattr(signal, name)
}
"""Signals by which native code ends a process; others come from outside, such as SIGKILL where memory is short."""
MOST_CRASHES = 3
"""After which the other checks are left out."""
CLEARLY_FASTER = 1.25
"""Minimum speed-up for choosing float32: less may be noise, and bfloat16 takes less memory."""
PRECISIONS = {"torch.float32": "float32", "torch.bfloat16": "bfloat16", "torch.float16": "float16"}


class Finding(Record):
    """Result of a check."""

    check: str
    status: Literal["right", "wrong", "crashed", "hung", "not tested"]
    """`not tested`: the process could not do it, which says nothing about the processor."""
    detail: str
    """For people: how many trials and the largest error, or what went wrong where."""
    seconds: float
    seconds_per_update: dict[str, float] = Field(default_factory=dict)
    """Seconds of an update per precision, from the check that takes the time."""


class SelfTest(Record):
    """Result of `seg25d info --check`."""

    schema_version: Literal[1] = 1
    device: str
    processor: Processor
    precision: str
    """Default precision of training on this machine, unless `--set precision=...` changes it."""
    findings: dict[str, tuple[Finding, ...]]
    """Findings per precision that was checked."""
    reason: str
    """Why it is this precision."""
    advice: str | None
    """Advice on settings, if something is wrong."""

    @property
    def safe(self) -> bool:
        """Whether all checks passed in the chosen precision."""
        return all(finding.status == "right" for finding in self.findings[self.precision])


def run_self_test(device: str | None = None) -> SelfTest:
    """The long form, under a minute: layers, networks and speed; keeps its verdict on the CPU.

    Args:
        device: As for `choose_execution`.
    """
    processor = this_processor()
    execution = choose_execution(device)
    name = str(execution.device)
    seed = date.today().toordinal()
    on_cpu = execution.device.type == "cpu"
    precision = "bfloat16" if on_cpu and processor.multiplies_bfloat16 else PRECISIONS[str(execution.dtype)]
    timing = (TIMING,) if on_cpu and processor.multiplies_bfloat16 else ()
    findings = {precision: tuple(run_checks(name, precision, (*LAYERS, NETWORKS, *timing), seed, SECONDS_PER_CHECK))}
    reason = "the fastest type of this device" if not on_cpu else "this processor has no products in bfloat16"
    if timing:
        verdict = _judge(processor, findings[precision])
        verdict.save()
        precision, reason = verdict.precision, verdict.reason
    elif not _are_right(findings[precision]):
        precision, reason = "float32", f"{precision} is wrong here"
    if precision not in findings:
        findings[precision] = tuple(run_checks(name, precision, (*LAYERS, NETWORKS), seed, SECONDS_PER_CHECK / 4))
    return SelfTest(
        device=name,
        processor=processor,
        precision=precision,
        findings=findings,
        reason=reason,
        advice=_advice(findings, precision, processor, on_cpu=on_cpu),
    )


def check_before_training(device: str | None, precision: str) -> None:
    """Run the short form, if a training is to choose its precision on a CPU with bfloat16 that was never tested.

    Says in one line what came out, as a warning if bfloat16 is not safe.

    Args:
        device: As for `choose_execution`.
        precision: Of the training's settings.
    """
    alone = torchrun_processes() == 1  # else processes of torchrun might disagree
    if not alone or precision != "auto" or choose_execution(device, "float32").device.type != "cpu":
        return
    processor = this_processor()
    if not processor.multiplies_bfloat16:
        return
    verdict = read_verdict(processor)
    if verdict is None:
        logger.info("testing once how %s computes", processor.description)
        verdict = _judge(processor, run_checks("cpu", "bfloat16", (KNOWN, TIMING), seed=0, seconds=0.0))
        verdict.save()
    level = logging.INFO if verdict.safe else logging.WARNING
    logger.log(level, "computing in %s: %s", verdict.precision, verdict.reason)


def run_checks(
    device: str, precision: str, checks: Sequence[str], seed: int, seconds: float, trials: int = MOST_TRIALS
) -> list[Finding]:
    """Run checks in a process of their own; after a crash or a hang another one goes on with the next check.

    Args:
        device: Such as `cpu` or `cuda:0`.
        precision: `float32`, `bfloat16` or `float16`.
        checks: Names from `machine/names.py`.
        seed: Of random layers.
        seconds: That each check of random layers may take.
        trials: Of each check of random layers, at the most.
    """
    findings: list[Finding] = []
    while len(findings) < len(checks):
        rest = checks[len(findings) :]
        findings += _findings([device, precision, str(seed), str(seconds), str(trials), *rest], rest)
        ended_badly = [finding for finding in findings if finding.status in ("crashed", "hung", "not tested")]
        if len(ended_badly) >= MOST_CRASHES:
            detail = f"left out after {len(ended_badly)} checks that ended badly"
            left_out = checks[len(findings) :]
            findings += [Finding(check=check, status="not tested", detail=detail, seconds=0) for check in left_out]
    return findings


def _findings(arguments: Sequence[str], checks: Sequence[str]) -> Iterator[Finding]:
    """Findings of one process, until its end; the last may be that it crashed or hung."""
    command = [sys.executable, *CHILD, *arguments]
    begun, at, num_done = time.perf_counter(), "", 0

    def ended(status: Literal["crashed", "hung", "not tested"], words: str) -> Finding:
        where = f" at {at}" if at else " at the start" if num_done < len(checks) else " at its end"
        check = checks[min(num_done, len(checks) - 1)]
        return Finding(check=check, status=status, detail=words + where, seconds=time.perf_counter() - begun)

    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        # The process ends when its standard input does: with this one, however that ends.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, errors="replace"
        ) as process,
    ):
        last: Finding | None = None
        try:
            for line in _lines(process):
                if "at" in line:
                    at = line["at"]
                    continue
                if last is not None:
                    yield last
                last = _finding(line)
                begun, at, num_done = time.perf_counter(), "", num_done + 1
            # It may hang while it ends, too.
            status = process.wait(SECONDS_WITHOUT_A_WORD)
            if -status in CRASHES:
                # Of a heap that was damaged one may hear only at the very end.
                yield from [last] if last is not None and num_done < len(checks) else []
                last = ended("crashed", f"ended with signal {signal.Signals(-status).name}")
            elif num_done < len(checks):
                yield from [last] if last is not None else []
                complaints.seek(0)
                said = (complaints.read().strip().splitlines() or ["nothing was said"])[-1]
                last = ended("not tested", f"the process ended with status {status} ({said[:200]})")
            if last is not None:
                yield last
        except (TimeoutError, subprocess.TimeoutExpired):
            if last is not None:
                yield last
            words = f"no end after {SECONDS_WITHOUT_A_WORD:.0f} s"
            yield ended("hung" if at else "not tested", words)
        finally:
            process.kill()


def _lines(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """Read the output of a process, line by line.

    Raises:
        TimeoutError: If it has not said a word for long.
    """
    assert process.stdout is not None
    said: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, said), daemon=True).start()
    while True:
        try:
            line = said.get(timeout=SECONDS_WITHOUT_A_WORD)
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        # Libraries may speak there too, as oneDNN does under ONEDNN_VERBOSE.
        with suppress(json.JSONDecodeError):
            value = json.loads(line)
            if isinstance(value, dict) and "check" in value:
                yield value


def _read(stream: IO[str], said: "queue.Queue[str | None]") -> None:
    for line in stream:
        said.put(line)
    said.put(None)


def _finding(line: dict[str, Any]) -> Finding:
    """Finding in the line that ends a check."""
    per_update = line.get("seconds_per_update", {})
    if per_update:
        detail = ", ".join(f"{seconds:.3f} s in {precision}" for precision, seconds in per_update.items())
    elif "wrong" in line:
        detail = line["wrong"]
    else:
        detail = f"{line['trials']} tried, largest error {line['error']:.2g}"
    return Finding(
        check=line["check"],
        status="wrong" if "wrong" in line else "right",
        detail=detail,
        seconds=line["seconds"],
        seconds_per_update=per_update,
    )


def _are_right(findings: Sequence[Finding]) -> bool:
    return all(finding.status == "right" for finding in findings)


def _judge(processor: Processor, findings: Sequence[Finding]) -> Verdict:
    """bfloat16 where it is safe and not slower."""
    seconds = {key: value for finding in findings for key, value in finding.seconds_per_update.items()}
    wrong = next((finding for finding in findings if finding.status in ("wrong", "crashed", "hung")), None)
    if wrong is not None:
        reason = f"bfloat16 is not safe on this processor ({wrong.check}: {wrong.detail}); see `seg25d info --check`"
        return Verdict(processor=processor, precision="float32", safe=False, reason=reason, seconds=seconds)
    untested = next((finding for finding in findings if finding.status == "not tested"), None)
    if untested is not None:
        reason = f"bfloat16 could not be tested ({untested.check}: {untested.detail}); try `seg25d info --check`"
        return Verdict(
            processor=processor, precision="float32", safe=False, tested=False, reason=reason, seconds=seconds
        )
    slower = seconds["bfloat16"] / seconds["float32"]
    if slower > CLEARLY_FASTER:
        precision: Literal["bfloat16", "float32"] = "float32"
        reason = f"{slower:.1f} times as fast as bfloat16 on this processor"
    else:
        precision, reason = "bfloat16", f"{1 / slower:.1f} times as fast as float32 on this processor"
    return Verdict(processor=processor, precision=precision, safe=True, reason=reason, seconds=seconds)


def _advice(test: dict[str, tuple[Finding, ...]], precision: str, processor: Processor, *, on_cpu: bool) -> str | None:
    """Advise what to do if something is wrong."""
    if _are_right(test[precision]):
        if all(_are_right(each) for each in test.values()):
            return None
        return f"nothing: trainings and predictions compute in {precision} here; do not set precision to another type"
    if not on_cpu:
        return "compute with --device cpu, update the driver and torch, and report the lines above to seg25d"
    lower = "SSE41" if processor.vectors != "AVX512" or "ONEDNN_MAX_CPU_ISA" in processor.caps else "AVX2"
    return (
        f"set ONEDNN_MAX_CPU_ISA={lower} in the environment and run this check again; if it is right then, keep that "
        "setting for all commands, and report the lines above to seg25d"
    )


def to_text(test: SelfTest) -> str:
    """A self-test for people."""
    lines = [
        f"{'processor:':14}{test.processor.description}",
        f"{'device:':14}{test.device}",
        f"{'precision:':14}{test.precision} ({test.reason})",
    ]
    for precision, findings in test.findings.items():
        lines += ["", f"in {precision}:"]
        lines += [
            f"  {finding.status:11}{finding.check + ':':44}{finding.detail} ({finding.seconds:.1f} s)"
            for finding in findings
        ]
    lines += ["", f"advice: {test.advice}" if test.advice else "all is right: nothing to set"]
    return "\n".join(lines)
