"""The speed of a machine: a power of two, measured once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from seg25d.core.device import Execution
from seg25d.core.processor import cache_folder
from seg25d.machine import speed


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Seconds that the updates take, of which each is asked for once; two threads, and nothing that is known."""
    seconds = [0.1, 1.0]

    def take(executions: Sequence[Execution]) -> list[float]:
        assert len(executions) == 1
        return [seconds.pop(0)]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(speed, "check_before_training", lambda *_: None)
    monkeypatch.setattr(speed, "seconds_per_update", take)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return seconds


def test_the_speed_is_a_power_of_two_for_all_threads(timed: list[float]) -> None:
    # 7.9 GFLOP in a tenth of a second on each of two threads: 158, which is nearer to 128 than to 256.
    assert speed.cpu_gflops() == 128
    (file,) = cache_folder().glob("speed_*.json")
    file.unlink()
    assert speed.cpu_gflops() == 16
    assert not timed


def test_it_is_measured_once_and_again_where_the_file_cannot_be_read(timed: list[float]) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert speed.cpu_gflops() == speed.cpu_gflops()
    assert torch.rand(1) == drawn
    assert len(timed) == 1
    (file,) = cache_folder().glob("speed_*.json")
    file.write_text("{")
    assert speed.cpu_gflops() == 16


def test_no_place_for_the_file_is_no_error(timed: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert speed.cpu_gflops() == 128
    assert len(timed) == 1
