"""benchmarks/clinical_size.py: what it measures again, what its tables say, and a few stages in small."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import clinical_size
import pytest
from clinical_size import tables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl")
DATA = "10 x 20 x 20, 0.8 mm, 3 labels, 4 cases"
SMALL = ["--slices", "10", "--size", "20", "--labels", "3"]


def row(**changes: Any) -> dict[str, Any]:
    figures = {"wall_s": 2.0, "cpu_s": 4.0, "memory_gb": 0.5, "memory_of_all_gb": 0.7, "with_files_gb": 1.0}
    known = {"status": 0, "over_limit": None, "voxels": 4_000_000, "case_voxels": 1_000_000, "labels": 2}
    return {**figures, **known, "limit_gb": 20.0, **changes}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured, without being run; `--plan-only` fails, and what verifies is over the limit."""
    commands: list[str] = []

    def measure(command: Sequence[str], environment: Mapping[str, str], log: Path, **_: Any) -> dict[str, Any]:
        commands.append(" ".join(command))
        if "--verify-only" in command:
            return row(status=-9, over_limit="memory")
        return row(status=int("--plan-only" in command))

    monkeypatch.setattr(clinical_size, "measure", measure)
    return commands


def test_what_is_measured_or_over_the_limit_is_kept_and_what_failed_is_done_again(
    commands: list[str], tmp_path: Path
) -> None:
    words = ["-o", str(tmp_path / "a.json"), "--folder", str(tmp_path / "f"), *SMALL, "--stages", "verify", "plan"]
    assert clinical_size.main(words) == 1
    assert [each.split("801 ")[-1] for each in commands[1:]] == [
        "--verify-only",
        "-c axial coronal sagittal si stack mip 3d --plan-only",
    ]
    commands.clear()
    (tmp_path / "f" / "10x20_0.8mm_3labels_4" / "raw" / "Dataset801_Clinical").mkdir(parents=True)
    (tmp_path / "f" / "10x20_0.8mm_3labels_4" / "raw" / "Dataset801_Clinical" / "dataset.json").touch()
    assert clinical_size.main([*words, "repeat", "--configurations", "si"]) == 1
    assert [each.split("801 ")[-1] for each in commands] == ["-c si --plan-only", "-c si"]
    kept = json.loads((tmp_path / "a.json").read_text())["figures"][DATA]["seg25d"]
    assert {name: each["status"] for name, each in kept.items()} == {"verify": -9, "plan": 1, "repeat": 0}
    assert (kept["plan"]["voxels"], kept["plan"]["case_voxels"]) == (16_000, 4_000)


def test_what_a_stage_writes_is_removed_before_it(commands: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "f" / "10x20_0.8mm_3labels_4"
    made = folder / "seg25d" / "preprocessed" / "Dataset801_Clinical"
    (made / "store").mkdir(parents=True)
    for name in ("plans.json", "fingerprint.json", "store/a.b2nd"):
        (made / name).touch()
    words = ["-o", str(tmp_path / "a.json"), "--folder", str(tmp_path / "f"), *SMALL, "--stages", "preprocess"]
    assert clinical_size.main(words) == 0
    assert sorted(path.name for path in made.rglob("*")) == ["fingerprint.json", "plans.json", "store"]
    assert clinical_size.main([*words[:-1], "fingerprint"]) == 0
    assert not made.exists()


def test_more_cases_to_predict_are_data_of_their_own(commands: list[str], tmp_path: Path) -> None:
    words = ["-o", str(tmp_path / "a.json"), "--folder", str(tmp_path / "f"), *SMALL, "--stages", "predict", "evaluate"]
    words += ["--configurations", "si", "--test-cases", "2"]
    raw = tmp_path / "f" / "10x20_0.8mm_3labels_4_2" / "raw" / "Dataset801_Clinical"
    (raw / "labelsTs").mkdir(parents=True)
    assert clinical_size.main(words) == 0
    assert commands[0].endswith("--cases 4 --test-cases 2")
    kept = json.loads((tmp_path / "a.json").read_text())["figures"][f"{DATA}, 2 to predict"]
    assert kept["data"]["generate"]["voxels"] == 6 * 4_000
    assert [kept["seg25d"][name]["voxels"] for name in ("predict si", "evaluate")] == [8_000, 8_000]


def test_tables_compare_programs_and_sizes() -> None:
    ours = {"predict 3d": row(), "verify": row(cpu_s=8.0), "plan": row(status=1), "mirrored mip": row()}
    theirs = {
        "verify": row(cpu_s=32.0, with_files_gb=2.0),
        "predict 3d": row(status=-9, over_limit="memory"),
        "plan": row(status=-9, over_limit="time", wall_s=60.0, cpu_s=99.0),
    }
    data = {"data": {"generate": row()}, "seg25d": ours, "nnunet": theirs}
    lines = tables({"figures": {DATA: data}}).splitlines()
    assert [line for line in lines if line.startswith(("| verify", "| plan", "| predict", "| mirrored", "| gen"))] == [
        "| verify | 2.0 | 8.0 | 1.00 | 2.0 | 32.0 | 2.00 | 0.25 | 0.50 |",
        "| plan | failed | - | - | > 60 | > 99 | 1.00 | - | - |",
        "| predict 3d | 2.0 | 4.0 | 1.00 | - | - | > 20 | - | - |",
        "| mirrored mip | 2.0 | 4.0 | 1.00 | - | - | - | - | - |",
        "| verify | 2 s, 1 s, 1.07e+03 B |",
        "| predict 3d | 1 s, 0.5 s, 1.07e+03 B |",
        "| mirrored mip | 1 s, 0.5 s, 1.07e+03 B |",
        "| verify | 8 s, 4 s, 2.15e+03 B |",
    ]


HERE = {"cpu": "AMD EPYC", "instruction_sets": ["AVX2"], "cores": 2, "free_memory_gb": 3.0}


def test_figures_of_two_machines_are_not_divided() -> None:
    elsewhere = {**HERE, "instruction_sets": ["AVX2", "AMX"]}
    ours = {stage: row(machine=HERE) for stage in ("verify", "plan", "evaluate")}
    theirs = {"verify": row(machine=elsewhere), "plan": row(machine={**HERE, "free_memory_gb": 9.0}), "evaluate": row()}
    table = tables({"figures": {DATA: {"seg25d": ours, "nnunet": theirs}}})
    ratios = [line.split(" | ")[-2:] for line in table.splitlines() if line.startswith("| ") and line.count("|") == 10]
    assert ratios[2:] == [["-", "- |"], ["1.00", "1.00 |"], ["1.00", "1.00 |"]]
    assert "Figures of different machines have no ratio." in table
    theirs["verify"] = row(machine=HERE)
    assert "different machines" not in tables({"figures": {DATA: {"seg25d": ours, "nnunet": theirs}}})


def test_each_figure_has_its_machine_also_those_of_older_files(
    commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"cpu": "Intel", "cores": 2}
    path = tmp_path / "a.json"
    content = {"machine": older, "figures": {DATA: {"seg25d": {"export": row()}, "nnunet": {"fingerprint": row()}}}}
    path.write_text(json.dumps(content))
    monkeypatch.setattr(clinical_size, "this_machine", lambda: HERE)
    words = ["-o", str(path), "--folder", str(tmp_path / "f"), *SMALL, "--stages", "fingerprint"]
    assert clinical_size.main(words) == 0
    assert commands
    found = json.loads(path.read_text())
    assert "machine" not in found
    ours, theirs = (found["figures"][DATA][program] for program in ("seg25d", "nnunet"))
    assert {stage: each["machine"] for stage, each in ours.items()} == {"export": older, "fingerprint": HERE}
    assert theirs["fingerprint"]["machine"] == older


def test_another_python_than_one_of_nnunet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected the Python of an environment with nnunetv2, got /nowhere/python"):
        clinical_size.main(["-o", str(tmp_path / "a.json"), "--nnunet", "/nowhere/python"])


@pytest.mark.slow  # five commands that load torch, and a training
def test_stages_of_small_data_end_well(tmp_path: Path) -> None:
    words = ["-o", str(tmp_path / "a.json"), "--folder", str(tmp_path / "f"), "--cases", "2", "--updates", "1"]
    stages = ["fingerprint", "plan", "preprocess", "train", "predict", "evaluate", "export"]
    small = ["--slices", "16", "--size", "48", "--labels", "3"]
    assert clinical_size.main([*words, *small, "--configurations", "axial", "--stages", *stages]) == 0
    [data] = json.loads((tmp_path / "a.json").read_text())["figures"].values()
    assert set(data["seg25d"]) == {*stages, "train axial", "predict axial"} - {"train", "predict"}
    assert all(each["status"] == 0 and each["cpu_s"] > 0 for each in data["seg25d"].values())
    assert data["seg25d"]["train axial"]["updates"] == 1
