"""Calls in a child process: values, arrays, errors and messages come back, crashes are exceptions."""

import logging
import os
import signal
import subprocess
import sys
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.apart import Crash, call_apart
from seg25d.core.errors import InputError
from seg25d.core.parallel import map_cases

logger = logging.getLogger("seg25d.test")


def arrays(size: int) -> dict[str, object]:
    return {"process": os.getpid(), "a": np.arange(size, dtype=np.int16), "b": np.ones((2, 3))[:, ::2], "none": []}


def refuse(name: str) -> None:
    raise InputError(f"{name} is wrong")


def divide(number: int) -> float:
    return number / 0


def say(text: str) -> str:
    logger.warning("said %s", text)
    logger.debug("not said")
    return str(Path.cwd())


def crash(number: int) -> None:
    if number == 0:
        sys.exit(3)
    os.kill(os.getpid(), number)


def process_of(_: int) -> tuple[int, int]:
    return os.getpid(), call_apart(os.getpid)


@pytest.mark.parametrize("size", [0, 5, 3_000_001])
def test_arrays_come_back(size: int) -> None:
    value = call_apart(arrays, size)
    assert value["process"] != os.getpid()
    assert np.array_equal(value["a"], np.arange(size, dtype=np.int16))
    assert value["b"].tolist() == [[1, 1], [1, 1]]
    assert value["a"].flags.writeable
    assert value["none"] == []


def test_one_child_serves_all_calls() -> None:
    assert call_apart(os.getpid) == call_apart(os.getpid)


def test_errors_are_those_of_the_function() -> None:
    with pytest.raises(InputError, match=r"^case a is wrong$"):
        call_apart(refuse, "case a")
    with pytest.raises(ZeroDivisionError) as caught:
        call_apart(divide, 1)
    assert "in divide" in caught.value.__notes__[0]


def test_messages_are_said_here(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "seg25d"):
        assert call_apart(say, "a") == str(tmp_path)
    assert [record.getMessage() for record in caplog.records] == ["said a"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_an_exception_and_the_next_call_works(number: int) -> None:
    with pytest.raises(Crash, match=signal.Signals(number).name):
        call_apart(crash, number)
    assert call_apart(arrays, 1)["a"].tolist() == [0]


def test_an_end_of_the_child_is_an_exception() -> None:
    with pytest.raises(Crash, match="status 3"):
        call_apart(crash, 0)


def test_workers_call_themselves() -> None:
    for here, apart in dict(map_cases(process_of, [1, 2, 3], num_workers=2)).values():
        assert here == apart != os.getpid()


def test_a_script_is_not_run_once_more(tmp_path: Path) -> None:
    """Users call `predict` from scripts without `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom seg25d.core.apart import call_apart\nprint(call_apart(os.getpid) != os.getpid())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def square(number: int) -> int:
    return call_apart(pow, number, 2)


@pytest.mark.parametrize("start", get_all_start_methods())
def test_processes_that_may_have_no_children_call_it_themselves(start: str) -> None:
    with get_context(start).Pool(1) as pool:
        assert pool.map(square, [3]) == [9]


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="needs fork")
def test_a_fork_of_this_process_has_a_child_of_its_own() -> None:
    assert call_apart(pow, 2, 2) == 4
    process = get_context("fork").Process(target=square, args=(3,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
