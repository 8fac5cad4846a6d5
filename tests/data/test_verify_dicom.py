"""Data sets whose images are folders of DICOM files."""

import json
from pathlib import Path

import numpy as np
import pytest

from seg25d.cli.main import main
from seg25d.data.image_io import read_geometry, write_labels
from seg25d.data.verify import verify_dataset
from tests.data.dicom_files import write_slices

SHAPE = (12, 32, 28)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace" / "raw" / "Dataset007_Series"
    cases = {}
    for number in range(5):
        rng = np.random.default_rng(number)
        series = write_slices(tmp_path / "series" / f"case{number}", rng.integers(0, 99, SHAPE).astype(np.int16))
        geometry = read_geometry(series)
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:9, 8:20, 8:20] = 1
        root.mkdir(parents=True, exist_ok=True)
        write_labels(root / f"case{number}.nii.gz", geometry.to_canonical(labels), geometry)
        cases[f"case{number}"] = {"images": [str(series)], "label": f"case{number}.nii.gz"}
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
        "dataset": cases,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return tmp_path / "workspace"


def test_they_are_verified_and_preprocessed(workspace: Path) -> None:
    words = ["plan_and_preprocess", "-d", "7", "-c", "2d", "--workspace", str(workspace), "-np", "0"]
    assert main(words) == 0
    assert list((workspace / "preprocessed" / "Dataset007_Series").glob("*/case0*"))


def test_irregular_series_are_problems_of_their_cases(workspace: Path) -> None:
    root = workspace / "raw" / "Dataset007_Series"
    memory = workspace / "memory.json"
    assert verify_dataset(root, 0, memory) == []
    series = workspace.parent / "series"
    (series / "case1" / "5.dcm").unlink()
    whole = (series / "case3" / "2.dcm").read_bytes()
    (series / "case3" / "2.dcm").write_bytes(whole[:-9])
    problems = {each.case: each for each in verify_dataset(root, 0, memory)}
    assert list(problems) == ["case1", "case3"]
    assert "1 slice is missing between 4.dcm and 6.dcm" in problems["case1"].problem
    assert "--accept-gaps" in problems["case1"].cure
    assert "2.dcm: the file is cut off" in problems["case3"].problem
