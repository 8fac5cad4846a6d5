"""benchmarks/fuzz_dicom.py: a few damaged series of every encoding."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked processes with limits of memory")


@pytest.fixture
def fuzz() -> ModuleType:
    return importlib.import_module("fuzz_dicom")


@pytest.mark.parametrize("kind", ["plain", "RLE", "JPEG", "JPEG2000", "frames"])
def test_damaged_series_are_read_right_or_refused(fuzz: ModuleType, kind: str, tmp_path: Path) -> None:
    outcomes = fuzz.read_all(tmp_path, kind, 8, seed=1)
    assert {outcome.status for outcome in outcomes} <= {0, 2}


def test_a_wrong_reading_is_found(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz.good_series(tmp_path / "a", "plain")
    assert fuzz.read_series(tmp_path / "a") == 0
    read_channel = fuzz.read_channel
    monkeypatch.setattr(fuzz, "read_channel", lambda path: (read_channel(path)[0] + 1, read_channel(path)[1]))
    assert fuzz.read_series(tmp_path / "a") == fuzz.WRONG
