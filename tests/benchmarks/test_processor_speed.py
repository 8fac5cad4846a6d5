"""benchmarks/processor_speed.py: what is measured how often, and that what torch.compile makes is kept between."""

import json
import sys
from pathlib import Path
from typing import Any

import processor_speed
import pytest


@pytest.mark.parametrize("asks", [False, True])
def test_compiled_models_are_measured_with_an_empty_cache_and_with_a_full_one(
    asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[bool, int, str | None]] = []

    def finish(command: list[str], env: dict[str, str], timeout: float, **_: Any) -> Any:
        folder = env.get("TORCHINDUCTOR_CACHE_DIR")
        known = len(list(Path(folder).iterdir())) if folder else 0
        commands.append(("--compiled" in command, known, folder))
        assert timeout == (processor_speed.TIMEOUT_COMPILED_S if folder else processor_speed.TIMEOUT_S)
        if folder:
            (Path(folder) / "made").touch()
        return processor_speed.subprocess.CompletedProcess(command, 0, json.dumps({"median": len(commands)}) + "\n", "")

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(processor_speed.subprocess, "run", finish)
    words = ["--workspace", str(tmp_path), "--datasets", "4", "--configurations", "axial", "--precisions", "float32"]
    words += ["--output", str(tmp_path / "out.json"), *(["--compile"] if asks else [])]
    monkeypatch.setattr(sys, "argv", ["processor_speed.py", *words])
    processor_speed.main()
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["here"] == {"median": 1}
    assert [(compiled, known) for compiled, known, _ in commands] == [(False, 0), *([(True, 0), (True, 1)] * asks)]
    assert ("compiled" in row, "compiled_again" in row) == (asks, asks)
    if asks:
        assert (row["compiled"], row["compiled_again"]) == ({"median": 2}, {"median": 3})
        assert commands[1][2] == commands[2][2] is not None
        assert not Path(str(commands[1][2])).exists()
