"""`seg25d convert`: which arguments go together, and what bad input leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.cli.main import main


def make_task(root: Path) -> Path:
    for name in ("imagesTr/a", "labelsTr/a"):
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8)), str(path))
    description = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "msd", "-o", "x"], "--from msd does not accept -o"),
        (["--from", "msd", "-d", "Dataset001_A"], "expected the number"),
        (["--from", "msd", "-d", "9" * 5000], "expected the number"),
        (["--from", "msd"], "has no dataset.json"),
        (["--from", "dicom"], "--from dicom needs -o"),
        (["--from", "dicom", "-o", "out", "-d", "1"], "--from dicom does not accept -d"),
        (["--from", "dicom", "-o", "out"], "is not a folder"),
        (["--from", "msd", "--split-phases"], "--from msd does not accept --split-phases"),
        (["--from", "nnunet-results", "-d", "1", "--suv"], "--from nnunet-results does not accept --suv"),
        (["--from", "nnunet-results"], "needs -d"),
        (["--from", "slices", "-d", "1"], "--from slices needs --slices-labelled"),
        (["--from", "slices", "--slices-labelled", "axial"], "--from slices needs -d"),
        (["--from", "slices", "-d", "X", "--slices-labelled", "axial:5"], "expected the number of the new data set"),
        (["--from", "slices", "-d", "1", "--slices-labelled", "axial:5"], "absent is not a folder"),
        (["--from", "msd", "--slices-labelled", "axial"], "--from msd does not accept --slices-labelled"),
        (["--from", "nnunet-results", "-d", "1"], "data set 1 not found"),
    ],
)
def test_bad_input_is_status_2_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "-i", "absent", "--workspace", "workspace", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("axial:1", "at least 2, got '1'"),
        ("axial:", "at least 2"),
        ("top:5", "axial, coronal, sagittal, or axial:5, got"),
    ],
)
def test_slices_are_named_by_their_axis(value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "--from", "slices", "-i", "absent", "-d", "1", "--slices-labelled", value])
    assert message in capsys.readouterr().err


def test_a_task_becomes_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = make_task(tmp_path / "Task03_Some")
    workspace = tmp_path / "workspace"
    words = ["convert", "--from", "msd", "-i", str(task), "--workspace", str(workspace), "-np", "0"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(workspace / "raw" / "Dataset003_Some")
    assert main(["plan_and_preprocess", "-d", "3", "--workspace", str(workspace), "--verify-only"]) == 0
