"""benchmarks/gpu_augmentation.py on a CPU: all of it in little time."""

import importlib
import json
from pathlib import Path

import pytest

from seg25d.training import supply


@pytest.mark.slow
def test_all_of_it_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    words = ["--device", "cpu", "--precision", "float32", "--shape", "12", "24", "24", "--gpu-memory-gb", "1"]
    words += ["--configurations", "2d", "3d", "--seconds", "0.1", "--training-seconds", "3", "--output", str(output)]
    monkeypatch.setattr(supply, "WATCHED_DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(supply, "SETTLING", 0)
    monkeypatch.setattr(supply, "WATCHED", 1)
    monkeypatch.setattr("sys.argv", ["gpu_augmentation.py", *words])
    importlib.import_module("gpu_augmentation").main()
    rows = json.loads(output.read_text())["rows"]
    assert {row["name"] for row in rows} == {"axial", "3d"}
    for row in rows:
        found = row["comparison"]
        assert found["without_noise"] > 0
        assert found["largest_difference"] < 1e-3
        assert found["labels_that_differ"] < 1e-3
        assert found["same_bits_again"]
        low, high = found["noise"]["deviation_to_that_of_loaders"]
        assert 0.9 < low < high < 1.1
        assert all(value > 0 for value in row["windows_per_s"].values())
        assert all(row[f"training_{place}"]["busy_share"] > 0 for place in ("loaders", "device", "auto"))
        assert row["training_auto"]["auto_came_to"] in ("loaders", "device")
