"""Every bad input: status 2, one `error:` message that names case and cure, no traceback, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.cli.main import main

CASES = ("case_a", "case_b", "case_c")
SHAPE = (6, 8, 7)


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), *, vector: bool = False) -> None:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(spacing[: image.GetDimension()] + (1.0,) * (image.GetDimension() - len(spacing)))
    sitk.WriteImage(image, str(path))


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def label() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:4, 2:5, 3:5] = 1
    return array


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A small sound data set with two channels."""
    root = tmp_path / "raw" / "Dataset001_Bad"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number, case in enumerate(CASES):
        write(root / "labelsTr" / f"{case}.nii.gz", label())
        for channel in range(2):
            write(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image(10 * number + channel))
    describe(root)
    return root


def describe(root: Path, **changes: object) -> None:
    description = {
        "channel_names": {"0": "MRI", "1": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description | changes))


def with_values(value: float) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        array = image(1)
        array[1, 2, 3] = value
        write(root / "imagesTr" / "case_b_0001.nii.gz", array)

    return damage


def truncate(root: Path) -> None:
    path = root / "imagesTr" / "case_b_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def undeclared(root: Path) -> None:
    write(root / "labelsTr" / "case_b.nii.gz", label() * 7)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing channel": (lambda root: (root / "imagesTr" / "case_b_0001.nii.gz").unlink(), "case_b"),
    "missing label": (lambda root: (root / "labelsTr" / "case_b.nii.gz").unlink(), "case_b"),
    "grids of channels differ": (
        lambda root: write(root / "imagesTr" / "case_b_0001.nii.gz", image(1), (1.0, 1.0, 2.0)),
        "case_b",
    ),
    "grid of the label differs": (lambda root: write(root / "labelsTr" / "case_b.nii.gz", label()[:-1]), "case_b"),
    "undeclared value": (undeclared, "case_b"),
    "NaN": (with_values(np.nan), "case_b"),
    "infinity": (with_values(np.inf), "case_b"),
    "4D": (lambda root: write(root / "imagesTr" / "case_b_0001.nii.gz", np.stack([image(1)] * 2)), "case_b"),
    "RGB": (
        lambda root: write(root / "imagesTr" / "case_b_0001.nii.gz", np.zeros((*SHAPE, 3), np.uint8), vector=True),
        "case_b",
    ),
    "empty file": (lambda root: (root / "imagesTr" / "case_b_0001.nii.gz").write_bytes(b""), "case_b"),
    "truncated file": (truncate, "case_b"),
    "duplicate case": (
        lambda root: [
            shutil.copy(root / "imagesTr" / f"case_a_{n:04d}.nii.gz", root / "imagesTr" / f"case_b_{n:04d}.nii.gz")
            for n in range(2)
        ],
        "case_b",
    ),
    "empty label": (lambda root: write(root / "labelsTr" / "case_b.nii.gz", label() * 0), "case_b"),
    "wrong numTraining": (lambda root: describe(root, numTraining=5), "numTraining"),
    "colliding name": (
        lambda root: shutil.copy(root / "labelsTr" / "case_b.nii.gz", root / "labelsTr" / "case_b.nrrd"),
        "case_b",
    ),
    "no labels declared": (lambda root: describe(root, labels={}), "labels"),
    "unknown window": (lambda root: describe(root, channel_names={"0": "ct_window:abc", "1": "CT"}), "ct_window"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_input_is_refused_and_nothing_is_written(
    dataset: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    damage, named = FAULTS[fault]
    damage(dataset)
    before = sorted(dataset.parent.parent.rglob("*"))
    workspace = str(dataset.parent.parent)
    assert main(["plan_and_preprocess", "-d", "1", "--workspace", workspace, "--num-processes", "0"]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1, message
    assert named in message
    assert "Traceback" not in message
    assert sorted(dataset.parent.parent.rglob("*")) == before


def test_all_faults_are_told_at_once(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset / "imagesTr" / "case_a_0001.nii.gz").unlink()
    write(dataset / "labelsTr" / "case_b.nii.gz", label() * 7)
    truncate(dataset)
    describe(dataset, numTraining=9)
    assert main(["plan_and_preprocess", "-d", "1", "--workspace", str(dataset.parent.parent)]) == 2
    message = capsys.readouterr().err
    for word in ("case_a", "case_b", "numTraining"):
        assert word in message


def test_the_sound_data_set_passes(dataset: Path) -> None:
    arguments = ["plan_and_preprocess", "-d", "1", "--workspace", str(dataset.parent.parent), "--verify-only"]
    assert main([*arguments, "--num-processes", "0"]) == 0
