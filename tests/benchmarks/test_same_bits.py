"""benchmarks/same_bits.py: what it finds in two workspaces; that it runs commands is seen when it is used."""

import gzip
import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RUN = "results/Dataset001_Tiny/axial"
LINE = {"epoch": 1, "train_loss": 0.1, "validation_dice": float("nan"), "seconds": 3.0, "peak_memory_gb": 1.0}
WEIGHTS = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def module() -> ModuleType:
    return importlib.import_module("same_bits")


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_workspace(root: Path) -> None:
    """Every kind of file that is compared, and some that are not."""
    write_json(root / "preprocessed/Dataset001_Tiny/plans.json", {"window": [8, 8], "reasons": {"window": "so"}})
    fold = root / RUN / "fold_0"
    write_json(fold / "config.json", {"seed": 0, "versions": {"torch": "1"}})
    (fold / "log.jsonl").write_text(json.dumps(LINE) + "\n")
    save_file({"layer.weight": WEIGHTS, "layer.bias": WEIGHTS[0]}, fold / "model_final.safetensors")
    write_json(fold / "validation/summary.json", {"foreground_mean": {"dice": 0.5}})
    (fold / "validation/case.nii.gz").write_bytes(gzip.compress(b"voxels", mtime=1))
    (root / "predictions/axial").mkdir(parents=True)
    np.savez(root / "predictions/axial/case.npz", probabilities=WEIGHTS)
    write_json(root / "predictions/axial/prediction.json", {"arguments": str(root)})


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two workspaces that hold the same."""
    before, after = tmp_path / "before", tmp_path / "after"
    write_workspace(before)
    shutil.copytree(before, after)
    return before, after


def compared(module: ModuleType, roots: tuple[Path, Path], error: str | None = None) -> dict[str, str | None]:
    """What differs, by run and column."""
    records = []
    for root in roots:
        paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        files = {"plan": [], "axial": []}
        for path in paths:
            if (column := module.column_of(path)) is not None:
                files["plan" if column == "plan" else "axial"].append(path)
        records.append({"runs": {name: {"error": error, "files": each} for name, each in files.items()}})
    table = module.compare(roots, tuple(records))
    return {f"{run} {column}": each.difference for run, row in table.items() for column, each in row.items()}


def test_same_workspaces_differ_in_nothing(module: ModuleType, roots: tuple[Path, Path]) -> None:
    columns = ["plan plan", *(f"axial {each}" for each in module.COLUMNS if each != "plan")]
    assert compared(module, roots) == dict.fromkeys(columns)


def test_times_versions_reasons_and_the_time_in_an_archive_do_not_count(
    module: ModuleType, roots: tuple[Path, Path]
) -> None:
    root = roots[1]
    write_json(root / "preprocessed/Dataset001_Tiny/plans.json", {"window": [8, 8], "reasons": {"window": "thus"}})
    fold = root / RUN / "fold_0"
    write_json(fold / "config.json", {"seed": 0, "versions": {"torch": "2"}})
    (fold / "log.jsonl").write_text(json.dumps({**LINE, "seconds": 4.0, "peak_memory_gb": 2.0}) + "\n")
    (fold / "validation/case.nii.gz").write_bytes(gzip.compress(b"voxels", mtime=2))
    write_json(root / "predictions/axial/prediction.json", {"arguments": "others"})
    assert set(compared(module, roots).values()) == {None}


def test_one_bit_of_a_weight_is_found(module: ModuleType, roots: tuple[Path, Path]) -> None:
    changed = WEIGHTS.copy()
    changed.view(np.int32)[1, 2] ^= 1
    save_file({"layer.weight": changed, "layer.bias": WEIGHTS[0]}, roots[1] / RUN / "fold_0/model_final.safetensors")
    found = {key: each for key, each in compared(module, roots).items() if each}
    assert list(found) == ["axial weights"]
    assert "layer.weight" in found["axial weights"]
    assert "1 of 6 values differ, by 1.19e-07" in found["axial weights"]


@pytest.mark.parametrize(
    ("path", "content", "column", "words"),
    [
        ("preprocessed/Dataset001_Tiny/plans.json", {"window": [8, 9]}, "plan plan", "window[1]: 8 became 9"),
        (f"{RUN}/fold_0/config.json", {"seed": 1}, "axial settings", "seed: 0 became 1"),
        (f"{RUN}/fold_0/config.json", {"seed": 0, "more": 1}, "axial settings", "more: only after"),
        (f"{RUN}/fold_0/log.jsonl", {**LINE, "train_loss": 0.1 + 2**-54}, "axial losses", "line 1.train_loss: 0.1"),
        (f"{RUN}/fold_0/validation/summary.json", {"foreground_mean": {"dice": None}}, "axial validation", "None"),
    ],
)
def test_what_differs_is_named(
    module: ModuleType, roots: tuple[Path, Path], path: str, content: object, column: str, words: str
) -> None:
    write_json(roots[1] / path, content)
    difference = compared(module, roots)[column]
    assert difference is not None
    assert difference.startswith(path)
    assert words in difference


def test_images_and_probabilities_are_compared(module: ModuleType, roots: tuple[Path, Path]) -> None:
    (roots[1] / RUN / "fold_0/validation/case.nii.gz").write_bytes(gzip.compress(b"Voxels"))
    np.savez(roots[1] / "predictions/axial/case.npz", probabilities=WEIGHTS.astype(np.float64))
    found = compared(module, roots)
    assert "1 of 6 values differ" in (found["axial validation"] or "")
    assert "float32 (2, 3) became float64 (2, 3)" in (found["axial prediction"] or "")


def test_a_file_that_one_side_lacks_is_a_difference(module: ModuleType, roots: tuple[Path, Path]) -> None:
    (roots[1] / "predictions/axial/case.npz").unlink()
    found = compared(module, roots)
    assert found["axial prediction"] == "predictions/axial/case.npz: only before"


def test_nothing_to_compare_and_errors_are_no_proof(module: ModuleType, roots: tuple[Path, Path]) -> None:
    for root in roots:
        shutil.rmtree(root / "predictions")
    assert compared(module, roots)["axial commands"] == "nothing to compare: prediction"
    assert "before: train: status 2" in (compared(module, roots, "train: status 2")["axial commands"] or "")


def test_a_smaller_data_set_has_the_first_cases_and_images_of_the_next(module: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "Dataset001_Tiny"
    for case in "abc":
        write_json(source / f"labelsTr/{case}.nii.gz", case)
        write_json(source / f"imagesTr/{case}_0000.nii.gz", case)
    write_json(source / "dataset.json", {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 3})
    made, images = module.make_raw(source, tmp_path / "made", 2)
    assert sorted(path.name for path in made.rglob("*.gz")) == [
        "a.nii.gz",
        "a_0000.nii.gz",
        "b.nii.gz",
        "b_0000.nii.gz",
    ]
    assert [path.name for path in images.iterdir()] == ["c_0000.nii.gz"]
    assert json.loads((made / "dataset.json").read_text())["numTraining"] == 2
    with pytest.raises(SystemExit, match="has 3 cases; needed are more than 3"):
        module.make_raw(source, tmp_path / "more", 3)


def test_runs_that_are_needed_are_chosen_too(module: ModuleType) -> None:
    runs = [module.Run("axial", "2d"), module.Run("si", "si"), module.Run("mv", "mv", needs=("axial",))]
    assert [run.name for run in module.choose(runs, ["mv"])] == ["axial", "mv"]
    assert [run.name for run in module.choose(runs, ["2d"])] == ["axial"]
    assert module.choose(runs, None) == runs
    with pytest.raises(SystemExit, match="no runs best"):
        module.choose(runs, ["best"])


def test_it_runs_alone(module: ModuleType) -> None:
    """The two checkouts are imported in child processes alone."""
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import same_bits; assert 'seg25d' not in sys.modules"
    assert module.subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
