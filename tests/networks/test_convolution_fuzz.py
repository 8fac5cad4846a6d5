"""Layers of random shapes in processes of their own, so that a crash or a hang is a failure and not an end."""

import datetime
import importlib.util
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PROGRAM = Path(__file__).with_name("convolution_fuzz.py")
COUNT = int(os.environ.get("SEG25D_FUZZ_COUNT", "50"))
"""Shapes per process; four processes."""
SEEDS = {"fixed": 20261121, "of the day": datetime.datetime.now(datetime.UTC).date().toordinal()}
VOLUME = 4e6
TIMEOUT_S = 120
MALLOC_DEBUG = "libc_malloc_debug.so.0"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convolution_fuzz", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load()


def environment() -> dict[str, str]:
    """With glibc's checks of each piece of memory that is freed, where glibc has them."""
    values = dict(os.environ)
    if sys.platform == "linux" and any(Path("/").glob(f"lib/*/{MALLOC_DEBUG}")):
        preloaded = [values["LD_PRELOAD"]] if "LD_PRELOAD" in values else []
        values |= {"MALLOC_CHECK_": "3", "LD_PRELOAD": ":".join([*preloaded, MALLOC_DEBUG])}
    return values


def run(program: Path, *words: str, timeout_s: float = TIMEOUT_S) -> None:
    """Run a fuzz to its end.

    Raises:
        AssertionError: If it ended badly, not in time, or with something wrong: with the last shapes.
    """
    command = [sys.executable, str(program), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    try:
        said, _ = process.communicate(timeout=timeout_s)
        ended = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        ended = f"no end after {timeout_s} s"
    lines = said.splitlines()
    wrong = [pair for pair in itertools.pairwise(lines) if pair[1].startswith("BAD")]
    assert process.returncode == 0 and lines[-1:] == ["DONE"], (  # noqa: PT018
        f"{' '.join(words)}: {ended}\nwrong: {wrong}\nlast:\n" + "\n".join(lines[-5:])
    )


@pytest.mark.slow
@pytest.mark.processor
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_layers_in_bfloat16_are_right(seed: str, threads: int) -> None:
    """Of three shapes two are in 3D."""
    run(PROGRAM, str(SEEDS[seed] * 2 + threads), "3,3,2", str(threads), str(COUNT), str(VOLUME))


@pytest.mark.parametrize(
    ("end", "named"),
    [("os.abort()", "exit status -6"), ("time.sleep(60)", "no end after"), ("print('BAD', {'images': 0.5})", "BAD")],
)
def test_crashes_hangs_and_wrong_results_name_the_shape(end: str, named: str, tmp_path: Path) -> None:
    program = tmp_path / "fuzz.py"
    status = "sys.exit(1)" if "BAD" in named else ""
    program.write_text(f"import os, sys, time\nprint('7 0 Conv3d(1, 2)', flush=True)\n{end}\nprint('DONE')\n{status}\n")
    with pytest.raises(AssertionError) as failure:
        run(program, "7", "3", timeout_s=3)
    assert named in str(failure.value)
    assert "7 0 Conv3d(1, 2)" in str(failure.value)


def test_a_wrong_layer_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One that loses its gradient in bfloat16."""
    case = fuzz.draw(random.Random(1), 2, 1e5)
    assert max(fuzz.errors(case).values()) < fuzz.TOLERANCE
    layer = type(case.layer)
    forward = layer.forward
    monkeypatch.setattr(
        layer, "forward", lambda self, x: forward(self, x.detach() if x.dtype == torch.bfloat16 else x) + 0 * x.sum()
    )
    monkeypatch.setattr(fuzz, "draw", lambda *_: case)
    assert fuzz.main(1, (2,), torch.get_num_threads(), 1) == 1
    assert "BAD" in capsys.readouterr().out
