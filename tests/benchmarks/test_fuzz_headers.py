"""benchmarks/fuzz_headers.py: a few damaged files of every format, and what its processes of their own tell."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from seg25d.core.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked processes with limits of memory")


@pytest.fixture
def fuzz() -> ModuleType:
    return importlib.import_module("fuzz_headers")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "mhd"])
def test_damaged_files_are_read_right_or_refused(fuzz: ModuleType, ending: str, tmp_path: Path) -> None:
    outcomes = fuzz.read_all(fuzz.mutated_files(tmp_path, ending, 12, seed=1), fuzz.read_everywhere, ending)
    assert len(outcomes) == 12
    assert {outcome.status for outcome in outcomes} <= {0, 2}
    assert max(outcome.seconds for outcome in outcomes) < fuzz.SECONDS
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_good_files_are_read(fuzz: ModuleType, tmp_path: Path) -> None:
    for ending in fuzz.FORMATS:
        folder = tmp_path / ending
        folder.mkdir()
        for index, (_, files) in enumerate(fuzz.good_files(folder, ending)):
            target = folder / str(index)
            target.mkdir()
            for path in files:
                (target / path.name).write_bytes(path.read_bytes())
            assert fuzz.run_apart(lambda path=target / files[0].name: fuzz.read_everywhere(path)).status == 0


def raise_input_error() -> int:
    raise InputError("case a; do this")


def test_what_processes_tell(fuzz: ModuleType) -> None:
    assert fuzz.run_apart(lambda: 0).status == 0
    refused = fuzz.run_apart(raise_input_error)
    assert (refused.status, refused.text) == (2, "case a; do this")
    assert fuzz.run_apart(lambda: 1 // 0).status == 1
    assert fuzz.run_apart(lambda: os.kill(os.getpid(), signal.SIGUSR1)).status == -signal.SIGUSR1
    assert fuzz.run_apart(lambda: time.sleep(60), seconds=0.3).status == -signal.SIGKILL
    assert "MemoryError" in fuzz.run_apart(lambda: len(bytes(3 << 30))).text


def test_a_wrong_reading_is_found(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fuzz.good_files(tmp_path, "nrrd")[0][0]
    read_image = fuzz.read_image
    monkeypatch.setattr(fuzz, "read_image", lambda paths: (read_image(paths)[0] + 1, read_image(paths)[1]))
    assert fuzz.run_apart(lambda: fuzz.read_everywhere(path)).status == fuzz.WRONG


def test_the_table(fuzz: ModuleType) -> None:
    outcomes = [fuzz.Outcome(0, 0.5, 80 << 20, ""), fuzz.Outcome(2, 1.5, 90 << 20, ""), fuzz.Outcome(-11, 0.1, 0, "")]
    assert fuzz.table({"mha": outcomes}).splitlines()[1].split() == ["mha", "3", "1", "1", "1", "1.50", "90"]
