"""Importing a cross-validation as nnU-Net v2 leaves it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.errors import DatasetError, InputError, RecordError
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_splits
from seg25d.data.image_io import read_geometry, read_labels
from seg25d.data.labels import Labels
from seg25d.inference.probability_maps import open_probability_map
from seg25d.runs.imported import ImportedRun, read_imported
from seg25d.selection import nnunet_results
from seg25d.selection.candidates import read_validated_run
from seg25d.selection.compared_runs import runs_to_compare
from seg25d.selection.nnunet_results import import_nnunet_results

NAME = "Dataset003_Some"
IDENTITY = "nnUNetTrainer__nnUNetPlans__3d_fullres"
SHAPE = (3, 4, 5)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
FOLDS = (("a", "b"), ("c",))
DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
REGIONS = {"labels": {"background": 0, "all": [1, 2], "lesion": [2]}, "regions_class_order": [1, 2]}


def write_image(path: Path, array: np.ndarray, spacing: float = 2.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, spacing))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))


def write_dataset(root: Path, description: dict[str, object]) -> None:
    """A raw data set; labels are not looked at but for their grid."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(description))
    for case in "abc":
        write_image(root / "imagesTr" / f"{case}_0000.nii.gz", np.zeros(SHAPE, np.float32))
        write_image(root / "labelsTr" / f"{case}.nii.gz", np.zeros(SHAPE, np.uint8))


def write_prediction(folder: Path, case: str, labels: Labels) -> np.ndarray:
    """The segmentation and the probabilities (K, z, y, x) of a case; gives these."""
    rng = np.random.default_rng(ord(case))
    probabilities = rng.random((labels.num_outputs, *SHAPE)).astype(np.float32)
    if not labels.has_regions:
        probabilities /= probabilities.sum(0)
    values = labels.decode(labels.from_probabilities(probabilities))
    write_image(folder / f"{case}.nii.gz", values.astype(np.uint8))
    np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)
    (folder / f"{case}.pkl").write_bytes(b"never read")
    return probabilities


def write_results(folder: Path, **changes: object) -> Path:
    """The folder of a trained configuration of nnU-Net."""
    folder.mkdir(parents=True, exist_ok=True)
    description = DESCRIPTION | changes
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    names = {key: tuple(value) if isinstance(value, list) else value for key, value in description["labels"].items()}
    labels = Labels(names=names, regions_class_order=description.get("regions_class_order"))
    for fold, cases in enumerate(FOLDS):
        for case in cases:
            write_prediction(folder / f"fold_{fold}" / "validation", case, labels)
        (folder / f"fold_{fold}" / "validation" / "summary.json").write_text("{}")
    write_prediction(folder / "fold_all" / "validation", "a", labels)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    write_dataset(workspace.raw_dataset(NAME), DESCRIPTION)
    return workspace


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_results(tmp_path / "nnUNet_results" / NAME / IDENTITY)


def import_all(workspace: Workspace, source: Path) -> RunFolder:
    return import_nnunet_results(workspace, source, "3", num_processes=0)


def problems_of(workspace: Workspace, source: Path) -> str:
    """What an import says; nothing may have been written."""
    with pytest.raises(DatasetError) as caught:
        import_all(workspace, source)
    assert not workspace.results.exists()
    return str(caught.value)


def test_a_cross_validation_becomes_a_run(workspace: Workspace, source: Path) -> None:
    for number in ("1000000", "²"):  # no folds
        (source / f"fold_{number}" / "validation").mkdir(parents=True)
    run = import_all(workspace, source)
    assert run == workspace.run(NAME, f"nnunet__{IDENTITY}")
    assert read_imported(run) == ImportedRun(
        program="nnU-Net",
        trainer="nnUNetTrainer",
        plans="nnUNetPlans",
        configuration="3d_fullres",
        folds=(0, 1),
        num_cases=3,
    )
    splits = read_splits(run.splits)
    assert [split.val for split in splits] == [("a", "b"), ("c",)]
    assert [split.train for split in splits] == [("c",), ("a", "b")]
    assert json.loads(run.dataset.read_text())["labels"] == DESCRIPTION["labels"]
    assert run.trained_folds() == []


def test_the_run_is_a_candidate(workspace: Workspace, source: Path) -> None:
    run = import_all(workspace, source)
    candidate = read_validated_run(run)
    assert candidate.case_folds == {"a": 0, "b": 0, "c": 1}
    assert (candidate.store, candidate.threshold, candidate.missing_folds) == (None, None, ())
    assert candidate.probability_map("c") == run.fold(1).probabilities / "c.b2nd"
    assert runs_to_compare(workspace, NAME) == [candidate]


def test_maps_are_in_canonical_axes(workspace: Workspace, source: Path) -> None:
    run = import_all(workspace, source)
    for fold, cases in enumerate(FOLDS):
        for case in cases:
            stored = open_probability_map(run.fold(fold).probabilities / f"{case}.b2nd")[...]
            folder = source / f"fold_{fold}" / "validation"
            with np.load(folder / f"{case}.npz") as archive:
                wanted = read_geometry(folder / f"{case}.nii.gz").to_canonical(archive["probabilities"])
            assert stored.dtype == np.float16
            assert np.abs(stored - wanted).max() < 5e-4
            assert np.mean(stored.argmax(0) == read_labels(folder / f"{case}.nii.gz")[0]) > 0.98


def test_regions(workspace: Workspace, tmp_path: Path) -> None:
    write_dataset(workspace.raw_dataset(NAME), DESCRIPTION | REGIONS)
    run = import_all(workspace, write_results(tmp_path / IDENTITY, **REGIONS))
    assert open_probability_map(run.fold(1).probabilities / "c.b2nd").shape == (2, 3, 5, 4)


def test_arrays_of_readers_that_reorient(workspace: Workspace, source: Path) -> None:
    wanted = open_probability_map(import_all(workspace, source).fold(1).probabilities / "c.b2nd")[...]
    shutil.rmtree(workspace.results)
    (source / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIOWithReorient"}))
    for path in source.glob("fold_*/validation/*.npz"):
        with np.load(path) as archive:
            canonical = read_geometry(path.with_suffix(".nii.gz")).to_canonical(archive["probabilities"])
        # To the right and to the front instead of to the left and to the back.
        np.savez(path, probabilities=np.flip(canonical, (-2, -1)))
    run = import_all(workspace, source)
    assert np.array_equal(open_probability_map(run.fold(1).probabilities / "c.b2nd")[...], wanted)


def test_a_preprocessed_data_set_will_do(workspace: Workspace, source: Path) -> None:
    folder = workspace.preprocessed_dataset(NAME)
    folder.root.mkdir(parents=True)
    shutil.move(workspace.raw_dataset(NAME) / "dataset.json", folder.dataset)
    shutil.rmtree(workspace.raw)
    with pytest.raises(InputError, match="neither in"):
        import_all(workspace, source)
    folder.splits.write_text(json.dumps([{"train": ["a", "b", "d"], "val": ["c"]}]))
    assert read_splits(import_all(workspace, source).splits)[1].train == ("a", "b", "d")


def test_all_problems_come_at_once(workspace: Workspace, source: Path) -> None:
    labels = Labels(names=DESCRIPTION["labels"])
    fold_0, fold_1 = (source / f"fold_{fold}" / "validation" for fold in range(2))
    (fold_0 / "a.npz").unlink()
    (fold_0 / "b.nii.gz").unlink()
    (fold_1 / "c.npz").write_bytes((fold_1 / "c.npz").read_bytes()[:-60])
    write_prediction(fold_1, "x", labels)
    write_prediction(fold_1, "b", labels)
    write_image(fold_1 / "b.nii.gz", np.zeros(SHAPE, np.uint8), spacing=3.0)
    np.savez(fold_1 / "a.npz", probabilities=np.zeros((2, *SHAPE), np.float32))
    write_image(fold_1 / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    message = problems_of(workspace, source)
    for wanted in (
        "fold_0/validation/a.npz is missing",
        "--val --npz",
        "fold_0/validation/b.npz has no segmentation of the same name",
        "fold_1/validation/c.npz is damaged",
        "the data set has no such case",
        "another grid than",
        "fold_1/validation/a.npz: shape (2, 3, 4, 5), expected is (3, 3, 4, 5)",
    ):
        assert wanted in message
    assert message.splitlines()[0].endswith("has 6 problems:")


def test_labels_must_be_those_of_the_data_set(workspace: Workspace, tmp_path: Path) -> None:
    other = {"background": 0, "organ": 1, "cyst": 2}
    assert "other labels than the data set" in problems_of(workspace, write_results(tmp_path / IDENTITY, labels=other))
    capitals = {"Background": 0, "Organ": 1, "Lesion": 2}
    import_all(workspace, write_results(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", labels=capitals))


def test_a_case_belongs_to_one_fold_and_no_fold_lacks(workspace: Workspace, source: Path) -> None:
    shutil.copytree(source / "fold_1", source / "fold_2")
    assert "in the validation of fold 1 and of fold 2" in problems_of(workspace, source)
    shutil.rmtree(source / "fold_1")
    assert "fold_1/validation does not exist, but there are later folds" in problems_of(workspace, source)


def test_folders_that_are_no_results(workspace: Workspace, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder TRAINER__PLANS__CONFIG"):
        import_all(workspace, source.parent)
    for path in source.glob("fold_*"):
        shutil.rmtree(path)
    assert "has no validation cases" in problems_of(workspace, source)


def test_probabilities_must_belong_to_the_segmentation(workspace: Workspace, source: Path) -> None:
    path = source / "fold_1" / "validation" / "c.npz"
    with np.load(path) as archive:
        probabilities = archive["probabilities"]
    np.savez(path, probabilities=probabilities[:, ::-1])
    with pytest.raises(InputError, match=r"c\.npz does not belong to c\.nii\.gz"):
        import_all(workspace, source)
    run = workspace.run(NAME, f"nnunet__{IDENTITY}")
    assert read_imported(run) is None
    np.savez(path, probabilities=probabilities)
    assert read_imported(import_all(workspace, source)) is not None


def test_a_second_call_keeps_what_is_there(workspace: Workspace, source: Path) -> None:
    run = import_all(workspace, source)
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    import_all(workspace, source)
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == before
    write_prediction(source / "fold_1" / "validation", "c", Labels(names=DESCRIPTION["labels"]))
    import_all(workspace, source)
    changed = {path.name for path, time in before.items() if path.suffix == ".b2nd" and path.stat().st_mtime_ns != time}
    assert changed == {"c.b2nd"}
    (run.fold(0).probabilities / "a.b2nd").unlink()
    assert (import_all(workspace, source).fold(0).probabilities / "a.b2nd").exists()


def test_an_import_that_was_cut_off_goes_on(
    workspace: Workspace, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = nnunet_results.write_probability_channels, []

    def cut(path: Path, shape: tuple[int, ...], channels: Iterator[np.ndarray]) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(path)
        write(path, shape, channels)

    monkeypatch.setattr(nnunet_results, "write_probability_channels", cut)
    with pytest.raises(KeyboardInterrupt):
        import_all(workspace, source)
    run = workspace.run(NAME, f"nnunet__{IDENTITY}")
    assert read_imported(run) is None
    first = seen[0].stat().st_mtime_ns
    monkeypatch.setattr(nnunet_results, "write_probability_channels", write)
    import_all(workspace, source)
    assert seen[0].stat().st_mtime_ns == first
    assert len(list(run.root.rglob("*.b2nd"))) == 3


def test_a_damaged_record_is_named(workspace: Workspace, source: Path) -> None:
    run = import_all(workspace, source)
    run.imported.write_text("{")
    with pytest.raises(RecordError, match=r"imported\.json is not valid"):
        read_imported(run)
