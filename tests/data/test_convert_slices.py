"""Data sets of which only some slices are labelled, made from those whose other slices are empty."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.workspace import Workspace
from seg25d.data import convert_slices as module
from seg25d.data.convert_slices import convert_slices
from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_geometry, read_labels
from seg25d.data.verify import verify_dataset

SHAPE = (9, 5, 6)
NAMES = {"background": 0, "whole": [1, 3], "core": 3}


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two cases with every third slice labelled, the others empty; one is stored upside down."""
    root = tmp_path / "elsewhere" / "Dataset004_Some"
    for number, case in enumerate("ab"):
        labels = np.zeros(SHAPE, np.uint8)
        labels[1 + number :: 3, 1:4, 1:4] = 1
        labels[4 + number, 2, 2] = 3
        for folder, name, array in (
            ("imagesTr", f"{case}_0000", rng.normal(size=SHAPE).astype(np.float32)),
            ("labelsTr", case, labels),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 2.0, 3.0))
            image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1 - 2 * number))
            sitk.WriteImage(image, str(root / folder / f"{name}.nii.gz"))
    description = {
        "channel_names": {"0": "MRI"},
        "labels": NAMES,
        "regions_class_order": [1, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "licence": "free",
    }
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (root / "patients.json").write_text(json.dumps({"a": "one", "b": "one"}), encoding="utf-8")
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path / "workspace", {})


def shown(path: Path) -> list[int]:
    """Slices along D that are not ignored, of a file."""
    labels, _ = read_labels(path)
    ignored = labels == 4
    assert (ignored.all((1, 2)) | ~ignored.any((1, 2))).all()
    return np.flatnonzero(~ignored.any((1, 2))).tolist()


@pytest.mark.parametrize(("every", "slices"), [(None, {"a": [1, 4, 7], "b": [0, 3, 6]}), (3, None), (6, None)])
def test_other_slices_are_ignored(
    source: Path, workspace: Workspace, every: int | None, slices: dict[str, list[int]] | None
) -> None:
    made = convert_slices(workspace, source, 104, 0, every, num_processes=0)
    assert made == workspace.raw / "Dataset104_Some"
    assert verify_dataset(made, 0) == []
    dataset = read_dataset(made)
    assert dataset.description.labels.ignore_value == 4
    assert dataset.description.labels.has_regions
    assert dataset.description.metadata["licence"] == "free"
    assert dataset.patients == {"a": "one", "b": "one"}
    for case in dataset.cases:
        assert case.label is not None
        assert case.images == ((source / "imagesTr" / f"{case.name}_0000.nii.gz").resolve(),)
        assert read_geometry(case.label).difference(read_geometry(case.images[0])) is None
        before, _ = read_labels(source / "labelsTr" / f"{case.name}.nii.gz")
        after, _ = read_labels(case.label)
        np.testing.assert_array_equal(after[after != 4], before[after != 4])
        first = int(np.flatnonzero(before.any((1, 2)))[0])
        expected = [*range(first % (every or 3), SHAPE[0], every or 3)] if slices is None else slices[case.name]
        assert shown(case.label) == expected


def test_the_same_command_goes_on(source: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[str] = []
    convert = module._convert_case

    def noted(*arguments):
        if len(converted) == 1 and arguments[-1].name == "b":
            converted.append("stopped")
            raise KeyboardInterrupt
        converted.append(arguments[-1].name)
        convert(*arguments)

    monkeypatch.setattr(module, "_convert_case", noted)
    with pytest.raises(KeyboardInterrupt):
        convert_slices(workspace, source, 104, 0, 3, num_processes=0)
    assert not (workspace.raw / "Dataset104_Some" / "dataset.json").exists()
    for expected in (["a", "stopped", "b"], ["a", "stopped", "b"]):
        made = convert_slices(workspace, source, 104, 0, 3, num_processes=0)
        assert converted == expected
    assert len(read_dataset(made).cases) == 2
    with pytest.raises(InputError, match="a conversion of other files: nothing is overwritten"):
        convert_slices(workspace, source, 104, 0, 5, num_processes=0)


def test_what_cannot_be_is_refused_before_anything_is_written(source: Path, workspace: Workspace) -> None:
    (workspace.raw / "Dataset007_Other").mkdir(parents=True)
    with pytest.raises(InputError, match="the number 7 is taken by Dataset007_Other"):
        convert_slices(workspace, source, 7, 0)
    with pytest.raises(InputError, match="Dataset1000_Some cannot be the name"):
        convert_slices(workspace, source, 1000, 0)
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    known = description | {"labels": {**NAMES, "ignore": 4}}
    (source / "dataset.json").write_text(json.dumps(known), encoding="utf-8")
    with pytest.raises(InputError, match="has an `ignore` label"):
        convert_slices(workspace, source, 8, 0)
    wrong = description | {"labels": {"background": 0, "whole": 1}, "regions_class_order": None}
    (source / "dataset.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(DatasetError, match="not declared"):
        convert_slices(workspace, source, 8, 0, num_processes=0)
    assert [path.name for path in workspace.raw.iterdir() if not path.name.startswith(".")] == ["Dataset007_Other"]
