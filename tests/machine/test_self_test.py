"""The self-test: what its process says, or that it dies, becomes findings, a verdict, the precision of trainings."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from seg25d.cli.info import main as info
from seg25d.core import device, processor
from seg25d.core.device import choose_execution
from seg25d.core.processor import Processor, Verdict, read_verdict, this_processor
from seg25d.machine import self_test
from seg25d.machine.names import KNOWN, LAYERS, NETWORKS, TIMING, convolutions_name
from seg25d.machine.self_test import Finding, SelfTest, check_before_training, run_checks, run_self_test, to_text

ZEN = Processor(
    name="AMD EPYC 9654",
    instruction_sets=("AVX2", "AVX-512", "AVX512-BF16"),
    vectors="AVX512",
    caps={"ONEDNN_MAX_CPU_ISA": "DEFAULT"},
    torch="2.13.0",
)
OLD = ZEN.model_copy(update={"instruction_sets": ("AVX2",), "caps": {}})
GOOD = 'print(json.dumps({"check": check, "trials": 3, "error": 0.01, "seconds": 0.1}), flush=True)'
FAST = '{"bfloat16": 1.0, "float32": 2.0}'


def child(monkeypatch: pytest.MonkeyPatch, deed: str, timing: str = FAST) -> None:
    """Let the process of the checks do something else with each check; `trouble` stands for a random 3D convolution."""
    code = f"""
import json, os, signal, sys, time
for check in sys.argv[6:]:
    print(json.dumps({{"check": check, "at": "a shape"}}), flush=True)
    if check == {TIMING!r}:
        print(json.dumps({{"check": check, "seconds_per_update": {timing}, "seconds": 0.1}}), flush=True)
    elif check == {convolutions_name(3, False)!r} or check == {KNOWN!r}:
        {deed}
    else:
        {GOOD}
"""
    monkeypatch.setattr(self_test, "CHILD", ("-c", code))


@pytest.fixture
def zen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Processor:
    """A processor with bfloat16, whatever this one is, that was never tested."""
    monkeypatch.setattr(processor, "_OF_THIS_PROCESS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (device, self_test):
        monkeypatch.setattr(module, "this_processor", lambda: ZEN)
    return ZEN


CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"
WRONG = 'print(json.dumps({"check": check, "wrong": "a shape: relative error 1", "seconds": 0.1}), flush=True)'


@pytest.mark.slow
def test_the_real_process_checks_layers_and_takes_the_time() -> None:
    checks = (KNOWN, convolutions_name(3, True), TIMING)
    findings = run_checks("cpu", "bfloat16", checks, seed=1, seconds=0.2)
    assert [finding.check for finding in findings] == list(checks)
    assert [finding.status for finding in findings] == ["right"] * 3, findings
    assert set(findings[2].seconds_per_update) == {"bfloat16", "float32"}


@pytest.mark.parametrize(
    ("deed", "status", "words"),
    [
        (CRASH, "crashed", "SIGSEGV at a shape"),
        ("os.abort()", "crashed", "SIGABRT at a shape"),
        ("sys.exit('what went wrong')", "not tested", "status 1 (what went wrong) at a shape"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "not tested", "status -9"),
        ("time.sleep(60)", "hung", "at a shape"),
        ("print('onednn_verbose,v1,info', 7, sep=chr(10)); " + WRONG, "wrong", "relative error 1"),
        (WRONG, "wrong", "relative error 1"),
        (GOOD, "right", "3 tried, largest error 0.01"),
    ],
)
def test_a_crash_or_a_hang_is_a_finding_and_the_next_checks_follow(
    deed: str, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status == "hung":
        monkeypatch.setattr(self_test, "SECONDS_WITHOUT_A_WORD", 2.0)
    child(monkeypatch, deed)
    checks = (NETWORKS, convolutions_name(3, False), convolutions_name(2, False))
    findings = run_checks("cpu", "bfloat16", checks, seed=1, seconds=1)
    assert [finding.check for finding in findings] == list(checks)
    assert [finding.status for finding in findings] == ["right", status, "right"]
    assert words in findings[1].detail


def test_after_a_few_crashes_the_rest_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, CRASH)
    findings = run_checks("cpu", "bfloat16", (KNOWN,) * 5, seed=1, seconds=1)
    most = self_test.MOST_CRASHES
    assert [finding.status for finding in findings] == ["crashed"] * most + ["not tested"] * (5 - most)


def test_a_crash_at_the_very_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a heap was damaged before."""
    child(monkeypatch, f"{GOOD}; import atexit; atexit.register(os.abort)")
    (finding,) = run_checks("cpu", "bfloat16", (KNOWN,), seed=1, seconds=1)
    assert (finding.status, finding.detail) == ("crashed", "ended with signal SIGABRT at its end")


def test_the_process_ends_with_the_one_that_started_it() -> None:
    command = [sys.executable, *self_test.CHILD, "cpu", "bfloat16", "1", "60", "100000", *LAYERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    "case",
    [
        (GOOD, FAST, "bfloat16", logging.INFO, "2.0 times as fast as float32"),
        (GOOD, '{"bfloat16": 1.1, "float32": 1.0}', "bfloat16", logging.INFO, "0.9 times as fast as float32"),
        (GOOD, '{"bfloat16": 3.0, "float32": 1.0}', "float32", logging.INFO, "3.0 times as fast as bfloat16"),
        (CRASH, FAST, "float32", logging.WARNING, "bfloat16 is not safe on this processor"),
        (WRONG, FAST, "float32", logging.WARNING, "see `seg25d info --check`"),
        ("sys.exit(1)", FAST, "float32", logging.WARNING, "bfloat16 could not be tested"),
    ],
)
def test_trainings_compute_in_what_is_safe_and_fast(
    case: tuple[str, str, str, int, str],
    zen: Processor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deed, timing, precision, level, words = case
    child(monkeypatch, deed, timing)
    assert choose_execution("cpu").dtype == torch.bfloat16, "what is not known yet counts as right"
    with caplog.at_level(logging.INFO, "seg25d"):
        check_before_training("cpu", "auto")
    assert words in caplog.text
    assert caplog.records[-1].levelno == level
    assert choose_execution("cpu").dtype == getattr(torch, precision)
    assert any((tmp_path / "cache").rglob("*.json")) == ("could not be tested" not in words)
    # What is known is not tested again, and is said again.
    child(monkeypatch, "sys.exit('tested again')")
    caplog.clear()
    with caplog.at_level(logging.INFO, "seg25d"):
        check_before_training("cpu", "auto")
    assert [record.levelno for record in caplog.records] == [level]
    assert choose_execution("cpu", "bfloat16").dtype == torch.bfloat16, "whoever asks for it gets it"


def test_several_processes_do_not_test_each_for_itself(zen: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, CRASH)
    monkeypatch.setenv("WORLD_SIZE", "")
    check_before_training("cpu", "auto")
    assert read_verdict(zen) is not None, "no number of processes is one"


@pytest.mark.parametrize("why", ["precision", "torchrun", "processor", "device"])
def test_nothing_is_tested_where_nothing_is_to_be_chosen(
    why: str, zen: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "run_checks", lambda *_, **__: pytest.fail("tested"))
    if why == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "2")
    if why == "processor":
        monkeypatch.setattr(self_test, "this_processor", lambda: OLD)
    name = "cpu"
    if why == "device":
        chosen = device.Execution(torch.device("cuda", 0), torch.float32)
        monkeypatch.setattr(self_test, "choose_execution", lambda *_: chosen)
        name = "cuda"
    check_before_training(name, "float32" if why == "precision" else "auto")


def test_a_verdict_is_for_one_processor_torch_and_setting_of_caps(
    zen: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    Verdict(processor=zen, precision="float32", safe=False, reason="wrong", seconds={}).save()
    monkeypatch.setattr(processor, "_OF_THIS_PROCESS", {})
    assert read_verdict(zen) is not None
    for change in ({"torch": "2.14.0"}, {"caps": {}}, {"name": "another"}, {"vectors": "AVX2"}):
        assert read_verdict(zen.model_copy(update=change)) is None


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 1}'])
def test_a_damaged_verdict_is_none(content: str, zen: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    Verdict(processor=zen, precision="float32", safe=False, reason="wrong", seconds={}).save()
    monkeypatch.setattr(processor, "_OF_THIS_PROCESS", {})
    processor._verdict_file(zen).write_text(content, encoding="utf-8")
    assert read_verdict(zen) is None


@pytest.mark.parametrize("why", ["no folder", "no home"])
def test_without_a_place_for_it_a_verdict_holds_for_this_process(
    why: str, zen: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "no folder":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
    assert choose_execution("cpu").dtype == torch.bfloat16
    child(monkeypatch, CRASH)
    check_before_training("cpu", "auto")
    assert choose_execution("cpu").dtype == torch.float32


def test_this_processor_is_described() -> None:
    here = this_processor()
    assert here.name
    assert here.torch == torch.__version__
    assert here.description.startswith(here.name)
    assert ZEN.description == "AMD EPYC 9654 (AVX2, AVX-512, AVX512-BF16, ONEDNN_MAX_CPU_ISA=DEFAULT)"
    assert ZEN.multiplies_bfloat16
    assert not OLD.multiplies_bfloat16


def fake_checks(wrong_in: Sequence[str]) -> Callable[..., list[Finding]]:
    def checks(_: str, precision: str, names: Sequence[str], *__: float) -> list[Finding]:
        status = "wrong" if precision in wrong_in else "right"
        speed = {"bfloat16": 1.0, "float32": 2.0}
        return [
            Finding(check=name, status="right", detail="-", seconds=1, seconds_per_update=speed)
            if name == TIMING
            else Finding(check=name, status=status, detail="-", seconds=1)
            for name in names
        ]

    return checks


@pytest.mark.parametrize(
    ("wrong_in", "precision", "advice"),
    [
        ((), "bfloat16", None),
        (("bfloat16",), "float32", "nothing: trainings and predictions compute in float32 here"),
        (("bfloat16", "float32"), "float32", "set ONEDNN_MAX_CPU_ISA=SSE41"),
    ],
)
def test_the_long_form(
    wrong_in: Sequence[str],
    precision: str,
    advice: str | None,
    zen: Processor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(self_test, "run_checks", fake_checks(wrong_in))
    test = run_self_test("cpu")
    assert test.precision == precision
    assert test.safe == (precision not in wrong_in)
    assert (test.advice or "").startswith(advice or "")
    assert {finding.check for finding in test.findings[precision]} >= {*LAYERS, NETWORKS}
    verdict = read_verdict(zen)
    assert verdict is not None
    assert verdict.precision == precision
    text = to_text(test)
    assert zen.description in text
    assert ("all is right" in text) == (not wrong_in)

    status = info(["--check", "--device", "cpu"])
    assert status == (0 if test.safe else 1)
    out, err = capsys.readouterr()
    assert out.strip() == text
    assert err.startswith("error: this machine computes wrong results in float32") == (not test.safe)
    info(["--check", "--json", "--device", "cpu"])
    assert SelfTest.model_validate(json.loads(capsys.readouterr().out)) == test


def test_the_long_form_on_a_cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (device, self_test):
        monkeypatch.setattr(module, "this_processor", lambda: OLD)
    monkeypatch.setattr(self_test, "run_checks", fake_checks(()))
    test = run_self_test("cpu")
    assert (test.precision, test.safe, list(test.findings)) == ("float32", True, ["float32"])
    assert TIMING not in {finding.check for finding in test.findings["float32"]}


def test_the_child_is_a_module_of_this_package() -> None:
    assert self_test.CHILD == ("-m", "seg25d.machine")
    assert sys.executable
