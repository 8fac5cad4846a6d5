"""The fingerprint: measurements worked out by hand, kept cases, data sets that are odd."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.records import read_record
from seg25d.core.workspace import PreprocessedFolder
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.planning import case_fingerprint
from seg25d.planning.case_fingerprint import CaseFingerprint, count_classes, measure_case
from seg25d.planning.fingerprint import Fingerprint, extract_fingerprint

LABELS = Labels(names={"background": 0, "organ": 1, "lesion": 7, "ignore": 9})


def _write(path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(image, str(path))
    return path


def _case(
    folder: Path, name: str, image: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, float, float]
) -> Case:
    """Write a case of one channel per entry of `image` (C, D, H, W), in canonical orientation."""
    images = tuple(
        _write(folder / f"{name}_{index:04d}.nrrd", channel, spacing_mm) for index, channel in enumerate(image)
    )
    return Case(name=name, images=images, label=_write(folder / f"{name}.nrrd", labels, spacing_mm))


def _dataset(folder: Path, cases: list[Case], channels: tuple[str, ...] = ("CT",)) -> Dataset:
    description = DatasetDescription(
        channel_names=channels, labels=LABELS, file_ending=".nrrd", num_training=len(cases)
    )
    return Dataset(name="Dataset001_X", root=folder, description=description, cases=tuple(cases))


@pytest.fixture
def two_cases(tmp_path: Path) -> Dataset:
    raw = tmp_path / "raw"
    raw.mkdir()
    first = np.zeros((1, 4, 5, 6), np.float32)
    first[0, 1:3, 1:4, :] = 10
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1, 0:2] = 1
    labels[2, 2, 2] = 1  # touches the voxels before by a corner
    labels[2, 3, 5] = 7
    labels[0, 0, :] = 9
    first[0, 1, 1, 0] = 50
    second = np.full((1, 8, 5, 6), 100, np.float32)
    more = np.zeros((8, 5, 6), np.uint8)
    more[0, 0, 0] = more[7, 0, 0] = 7
    return _dataset(raw, [_case(raw, "a", first, labels, (3, 1, 1)), _case(raw, "b", second, more, (1.5, 0.5, 1))])


def test_a_case_by_hand(two_cases: Dataset) -> None:
    case = measure_case(two_cases.cases[0], LABELS).fingerprint
    assert case.shape == (4, 5, 6)
    assert case.cropped_shape == (2, 3, 6)
    assert case.spacing_mm == (3, 1, 1)
    assert case.orientation == "LPS"
    assert case.voxels == {"1": 3, "7": 1}
    assert case.components == {"1": 1, "7": 1}
    assert case.extent_voxels == (2, 3, 6)
    assert case.extent_mm == (6, 3, 6)
    assert case.foreground_fraction == 4 / (120 - 6)
    assert case.labelled_slices == (4, 5, 6)
    assert case.intensities is not None
    channel = case.intensities[0]
    assert (channel.mean, channel.minimum, channel.maximum, channel.median) == (20, 10, 50, 10)
    assert channel.std == pytest.approx(np.sqrt(300))


def test_labelled_slices_are_counted(tmp_path: Path) -> None:
    labels = np.full((10, 5, 6), 9, np.uint8)
    labels[2::5] = 0
    labels[2, 1, 1] = labels[7, 1, 1] = 1
    cases = [_case(tmp_path, name, np.ones((1, 10, 5, 6), np.float32), labels, (3, 1, 1)) for name in "ab"]
    case = measure_case(cases[0], LABELS).fingerprint
    assert case.labelled_slices == (2, 5, 6)
    assert case.foreground_fraction == 2 / 60
    assert CaseFingerprint.model_validate_json(case.model_dump_json()) == case
    fingerprint = extract_fingerprint(_dataset(tmp_path, cases), PreprocessedFolder(root=tmp_path / "out"), 0)
    assert fingerprint.labelled_slices_in_words == (
        "2 of 2 case(s) are labelled in some slices along D (inferior-superior) only, in the median in 2 of 10; the "
        "others are ignored, and windows are drawn where labels are"
    )
    unknown = case.model_copy(update={"labelled_slices": None})
    assert "labelled_slices" in case.model_dump(mode="json")
    assert "labelled_slices" not in unknown.model_dump(mode="json"), "as in files of earlier versions"
    assert fingerprint.model_copy(update={"cases": (unknown,)}).labelled_slices_in_words is None
    whole = case.model_copy(update={"labelled_slices": case.shape})
    assert fingerprint.model_copy(update={"cases": (whole,)}).labelled_slices_in_words is None


def test_without_an_ignored_value_slices_are_not_counted(tmp_path: Path) -> None:
    case = _case(tmp_path, "a", np.ones((1, 4, 5, 6), np.float32), np.ones((4, 5, 6), np.uint8), (3, 1, 1))
    names = {name: value for name, value in LABELS.names.items() if name != "ignore"}
    assert measure_case(case, Labels(names=names)).fingerprint.labelled_slices is None


def test_a_data_set_by_hand(two_cases: Dataset, tmp_path: Path) -> None:
    folder = PreprocessedFolder(root=tmp_path / "out")
    fingerprint = extract_fingerprint(two_cases, folder, num_workers=0)
    assert read_record(folder.fingerprint, Fingerprint) == fingerprint
    assert fingerprint.num_cases == 2
    assert fingerprint.num_channels == 1
    assert fingerprint.median_spacing_mm == (2.25, 0.75, 1)
    assert fingerprint.shapes_at((1.5, 1, 1)).tolist() == [[4, 3, 6], [8, 2, 6]]
    assert fingerprint.median_shape_at((1.5, 1, 1)) == (6, 2, 6)
    assert fingerprint.total_voxels_at((1.5, 1, 1)) == 72 + 96
    # Cases of 4 x 5 x 6 voxels of 3 x 1 x 1 mm, cropped to 2 x 3 x 6, and of 8 x 5 x 6 voxels of 1.5 x 0.5 x 1 mm.
    assert fingerprint.shapes_at((1.5, 1, 1), (None, 10, 3)).tolist() == [[4, 10, 3], [8, 10, 3]]
    assert fingerprint.median_shape_at((1.5, 1, 1), (None, 10, 3)) == (6, 10, 3)
    assert fingerprint.total_voxels_at((1.5, 1, 1), (None, 10, 3)) == 12 * 30
    assert fingerprint.spacing_with((1.5, 1, 1), (None, 10, 3)) == (1.5, (0.5 + 0.25) / 2, 2)
    assert fingerprint.median_relative_size_after_cropping == pytest.approx((36 / 120 + 1) / 2)
    assert fingerprint.sparsity == pytest.approx((4 / 114 + 2 / 240) / 2)
    # Each case counts the same: 20 and 100, whatever their numbers of voxels.
    assert fingerprint.intensities[0].mean == 60
    assert fingerprint.intensities[0].std == pytest.approx(np.sqrt(300 / 2 + 40**2))
    assert fingerprint.intensities[0].minimum == 10
    assert fingerprint.intensities[0].maximum == 100


def test_pooled_percentiles_are_close_to_exact_ones(tmp_path: Path, rng: np.random.Generator) -> None:
    cases = []
    arrays = []
    for index in range(3):
        image = rng.gamma(2, 100 * (index + 1), size=(1, 20, 20, 20)).astype(np.float32)
        arrays.append(image)
        cases.append(_case(tmp_path, f"c{index}", image, np.ones((20, 20, 20), np.uint8), (1, 1, 1)))
    folder = PreprocessedFolder(root=tmp_path / "out")
    channel = extract_fingerprint(_dataset(tmp_path, cases), folder, num_workers=0).intensities[0]
    values = np.concatenate(arrays).astype(float)
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    assert channel.percentile_00_5 == pytest.approx(low, rel=0.02)
    assert channel.median == pytest.approx(median, rel=0.002)
    assert channel.percentile_99_5 == pytest.approx(high, rel=0.01)
    assert channel.mean == pytest.approx(values.mean())
    assert channel.std == pytest.approx(values.std())


def test_kept_cases_are_used_and_changed_files_read_again(
    two_cases: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PreprocessedFolder(root=tmp_path / "out")
    read: list[str] = []

    def measure(case: Case, labels: Labels) -> case_fingerprint.MeasuredCase:
        read.append(case.name)
        if len(read) == 2 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return measure_case(case, labels)

    interrupted: list[bool] = []
    monkeypatch.setattr("seg25d.planning.fingerprint.measure_case", measure)
    with pytest.raises(KeyboardInterrupt):
        extract_fingerprint(two_cases, folder, num_workers=0)
    before = extract_fingerprint(two_cases, folder, num_workers=0)
    assert read == ["a", "b", "b"]
    assert extract_fingerprint(two_cases, folder, num_workers=0) == before
    assert read == ["a", "b", "b"]
    path = two_cases.cases[0].images[0]
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    extract_fingerprint(two_cases, folder, num_workers=0)
    assert read == ["a", "b", "b", "a"]


def test_leftovers_of_killed_processes_go(two_cases: Dataset, tmp_path: Path) -> None:
    folder = PreprocessedFolder(root=tmp_path / "out")
    folder.fingerprint_cases.mkdir(parents=True)
    for place in (folder.root, folder.fingerprint_cases):
        (place / f".tmp-{10**30}-x.json").touch()
    extract_fingerprint(two_cases, folder, num_workers=0)
    assert not list(folder.root.rglob(".tmp-*"))


def test_a_folder_that_cannot_be_made_is_told_at_once(two_cases: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        extract_fingerprint(two_cases, PreprocessedFolder(root=tmp_path / "file" / "out"), num_workers=0)


def test_a_damaged_kept_case_is_made_anew(two_cases: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = PreprocessedFolder(root=tmp_path / "out")
    before = extract_fingerprint(two_cases, folder, num_workers=0)
    (folder.fingerprint_cases / "a.json").write_text("{", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert extract_fingerprint(two_cases, folder, num_workers=0) == before
    assert "made again" in caplog.text


def test_a_case_without_foreground_counts_but_adds_no_intensities(two_cases: Dataset, tmp_path: Path) -> None:
    empty = _case(two_cases.root, "c", np.zeros((1, 1, 3, 3), np.float32), np.zeros((1, 3, 3), np.uint8), (1, 1, 1))
    dataset = two_cases.model_copy(update={"cases": (*two_cases.cases, empty)})
    fingerprint = extract_fingerprint(dataset, PreprocessedFolder(root=tmp_path / "out"), num_workers=0)
    assert fingerprint.intensities[0].mean == 60
    last = fingerprint.cases[-1]
    assert last.intensities is None
    assert last.voxels == {"1": 0, "7": 0}
    assert last.components == {"1": 0, "7": 0}
    assert last.extent_voxels == (0, 0, 0)
    assert last.cropped_shape == (1, 3, 3)


def test_no_foreground_at_all(tmp_path: Path) -> None:
    case = _case(tmp_path, "c", np.ones((1, 1, 3, 3), np.float32), np.zeros((1, 3, 3), np.uint8), (1, 1, 1))
    with pytest.raises(DatasetError, match="has a foreground voxel"):
        extract_fingerprint(_dataset(tmp_path, [case]), PreprocessedFolder(root=tmp_path / "out"), num_workers=0)


def test_regions_are_counted_as_wholes() -> None:
    indices = np.zeros((1, 1, 7), np.uint8)
    indices[0, 0] = [1, 2, 0, 1, 0, 2, 255]
    voxels, components = count_classes(indices, {"whole": (1, 2), "core": (2,)})
    assert voxels == {"whole": 4, "core": 2}
    assert components == {"whole": 3, "core": 2}


@pytest.mark.slow
def test_workers_give_what_this_process_gives(two_cases: Dataset, tmp_path: Path) -> None:
    alone = extract_fingerprint(two_cases, PreprocessedFolder(root=tmp_path / "one"), num_workers=0)
    assert extract_fingerprint(two_cases, PreprocessedFolder(root=tmp_path / "two"), num_workers=2) == alone
