"""How a process begins and ends."""

import gc
import os
import subprocess
import sys
import textwrap

import pytest

from seg25d.core.process import loading


def run(code: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_nothing_is_collected_while_modules_load() -> None:
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collecting_goes_on_after_a_module_that_does_not_load() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        __import__("no_such_module_of_seg25d")
    assert gc.isenabled()


def test_loaded_modules_are_never_collected_and_garbage_without_them_is() -> None:
    done = run("""
        import gc
        from seg25d.core.process import loading

        with loading():
            pass
        print(gc.get_freeze_count() > 0)
        with loading():
            import fractions
        print(gc.get_freeze_count() > 0)
    """)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_process_leaves_with_its_status_after_threads_handlers_and_buffers() -> None:
    done = run("""
        import atexit, sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from seg25d.core.process import leave

        def work():
            time.sleep(0.5)
            print("thread")

        atexit.register(print, "handler")
        pool = ThreadPoolExecutor(1)  # its thread waits for more until it is told that this is the end
        pool.submit(time.time).result()
        threading.Thread(target=work).start()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        print("message", end="", file=sys.stderr)
        leave(7)
        print("not reached")
    """)
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, ["thread", "handler"], "message")


def test_a_process_leaves_although_the_reader_of_its_output_has_gone() -> None:
    # Coverage of this process would be a tracer, under which it ends in the usual way.
    code = "import sys; from seg25d.core.process import leave; sys.settrace(None); sys.stdin.read(); print(1); leave(3)"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.communicate(b"", timeout=60)
    assert process.returncode == 3


CRASH = """
import faulthandler, os, sys
from seg25d.core.process import crashes_named
with crashes_named("what to do"):
    print("all is well")
with crashes_named("what to do"):
    {deed}
"""


@pytest.mark.parametrize(
    ("deed", "status", "told"),
    [
        ("faulthandler._sigsegv()", -11, True),
        ("os.abort()", -6, True),
        ("os.kill(os.getpid(), 9)", -9, True),
        ("sys.exit(3)", 3, False),
        ("raise OSError", 1, False),
    ],
)
def test_an_end_without_a_word_names_what_to_do(deed: str, status: int, told: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", CRASH.format(deed=deed)], capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert ended.stdout == ("all is well\n" if status != -9 and status >= 0 else ended.stdout)
    assert ("what to do" in ended.stderr) == told
    assert ("Current thread" in ended.stderr) == (status in (-11, -6))


def test_a_daemon_that_ignores_sigterm_does_not_hold_up_the_end() -> None:
    done = run("""
        import multiprocessing, signal, sys, time
        from seg25d.core.process import leave

        sys.settrace(None)  # that of coverage, under which it would end in the usual way

        def work(begun):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            begun.set()
            time.sleep(600)

        context = multiprocessing.get_context("fork")
        begun = context.Event()
        context.Process(target=work, args=(begun,), daemon=True).start()
        begun.wait()
        leave(3)
    """)
    assert done.returncode == 3, done.stderr
