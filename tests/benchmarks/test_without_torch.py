"""benchmarks/without_torch.py: what is refused before anything is measured, and what its seconds are."""

import sys
from pathlib import Path
from typing import Any

import pytest
import without_torch
from without_torch import find_run, light_interpreter, measure_way, this_interpreter

from seg25d.core.files import write_json
from seg25d.core.workspace import Workspace


def test_a_python_with_torch_or_without_what_prediction_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has torch, expected a Python without it; take build/light/bin/python"):
        light_interpreter(Path(sys.executable))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'No module named seg25d' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SystemExit, match=r"cannot predict by graphs; .*\nNo module named seg25d"):
        light_interpreter(broken)
    with pytest.raises(SystemExit, match="absent does not exist"):
        light_interpreter(tmp_path / "absent")


def test_runs_without_a_fold_are_refused_with_those_that_have_one(tmp_path: Path) -> None:
    workspace = Workspace.resolve(tmp_path, {})
    for place in ("3d/fold_1", "3d/fold_all", "2d/fold_all"):
        folder = tmp_path / "results" / "Dataset007_Tiny" / place
        folder.mkdir(parents=True)
        (folder / "model_final.safetensors").touch()
    dataset, run, fold = find_run(workspace, "7/3d")
    assert (dataset, run.root.name, fold) == ("Dataset007_Tiny", "3d", "1")
    for name in ("7/2d", "7/axial", "7"):
        with pytest.raises(SystemExit, match=rf"{name} has no trained fold; runs of Dataset007_Tiny that have: 3d$"):
            find_run(workspace, name)


def test_the_start_is_what_a_command_takes_beside_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(python: object, images: Path, archive: Path, out: Path) -> dict[str, Any]:
        del python, archive
        walls = {"way_cold": (9.0, 2.0), "way_warm": (5.0, 2.0), "way": (13.0, 12.0)}
        cases = {"first": ["a"], "all": ["a", "b", "c", "d"]}[images.name]
        write_json(out / "prediction.json", {"seconds": dict.fromkeys(cases, 3.0)})
        wall, seconds = walls[out.name]
        return {"wall_s": wall, "cases_s": seconds, "cpu_s": 20.04, "memory_of_all_gb": 0.25}

    monkeypatch.setattr(without_torch, "predict", predict)
    first, every = tmp_path / "first", tmp_path / "all"
    found = measure_way(this_interpreter(), first, every, tmp_path / "a.zip", tmp_path / "way")
    assert found == {"start_s": 3.0, "case_s": 2.5, "cpu_s": 20.0, "memory_gb": 0.25}
