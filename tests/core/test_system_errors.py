"""What the system refuses, where the error does not say so; all else is in tests/faults/test_environment.py."""

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of the address space")
def test_any_error_of_a_process_that_met_its_limit_is_lack_of_memory() -> None:
    code = """
import resource, sys
from seg25d.cli.common import run_guarded
def half_imported():
    blocks = []
    try:
        while sys.argv[1] == "full":
            blocks.append(bytearray(1 << 24))
    except MemoryError:
        blocks.clear()
    raise NameError("name 'features' is not defined")
limit = int(open("/proc/self/statm").read().split()[0]) * 4096 + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(run_guarded(half_imported, debug=False))
"""
    for how, status, words in (("full", 2, "not enough memory"), ("empty", 1, "this is a bug of seg25d")):
        ended = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=False)
        assert (ended.returncode, words in ended.stderr) == (status, True), ended.stderr
