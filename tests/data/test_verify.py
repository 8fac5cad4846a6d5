"""Verification: every kind of bad input is found, all in one table."""
# mypy: disallow-untyped-calls=False

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.core import progress
from seg25d.core.errors import DatasetError
from seg25d.data import verify
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription
from seg25d.data.verify import Problem, raise_problems, verify_dataset

DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "tumour": 1, "ignore": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def save(path: Path, array: np.ndarray, spacing: float = 1.0, is_vector: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    if image.GetDimension() == 3:
        image.SetSpacing((1.0, 1.0, spacing))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def root(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A good data set of three cases, with mixed types and a float label."""
    for case in "abc":
        save(tmp_path / f"imagesTr/{case}_0000.nii.gz", rng.normal(size=(6, 7, 8)).astype(np.float32))
        save(tmp_path / f"imagesTr/{case}_0001.nii.gz", rng.integers(0, 255, (6, 7, 8)).astype(np.uint8))
        label = np.zeros((6, 7, 8), np.float32 if case == "b" else np.uint8)
        label[2:4, 2:4, 2:4] = 1
        label[0, 0, 0] = 2
        save(tmp_path / f"labelsTr/{case}.nii.gz", label)
    describe(tmp_path)
    return tmp_path


def describe(root: Path, **changes: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(DESCRIPTION | changes))


def lines(root: Path, num_workers: int = 0) -> list[str]:
    return [f"{item.case}: {item.problem} -> {item.cure}" for item in verify_dataset(root, num_workers)]


def test_good_data_set(root: Path) -> None:
    assert lines(root) == []


def nan_voxel(root: Path) -> None:
    array = np.zeros((6, 7, 8), np.float32)
    array[0, 0, :2] = np.nan
    array[1, 0, 0] = np.inf
    save(root / "imagesTr/a_0000.nii.gz", array)


def nan_in_label(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.full((6, 7, 8), np.nan, np.float64))


def other_spacing(root: Path) -> None:
    save(root / "imagesTr/a_0001.nii.gz", np.zeros((6, 7, 8), np.uint8), spacing=1.5)


def other_shape_of_label(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.ones((6, 7, 9), np.uint8))


def undeclared_value(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.full((6, 7, 8), 5, np.uint8))


def fractions(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.full((6, 7, 8), 0.5, np.float32))


def only_background(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.zeros((6, 7, 8), np.uint8))


def only_ignored(root: Path) -> None:
    save(root / "labelsTr/a.nii.gz", np.full((6, 7, 8), 2, np.uint8))


def four_axes(root: Path) -> None:
    save(root / "imagesTr/a_0000.nii.gz", np.zeros((2, 6, 7, 8), np.uint8))


def colours(root: Path) -> None:
    save(root / "imagesTr/a_0000.nii.gz", np.zeros((6, 7, 8, 3), np.uint8), is_vector=True)


def empty_file(root: Path) -> None:
    (root / "imagesTr/a_0000.nii.gz").write_bytes(b"")


def truncated_image(root: Path) -> None:
    path = root / "imagesTr/a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def truncated_label(root: Path) -> None:
    path = root / "labelsTr/a.nii.gz"
    path.write_bytes(path.read_bytes()[:-5])


def same_images(root: Path) -> None:
    for channel in range(2):
        target = root / f"imagesTr/c_{channel:04d}.nii.gz"
        target.write_bytes((root / f"imagesTr/a_{channel:04d}.nii.gz").read_bytes())


def missing_channel(root: Path) -> None:
    (root / "imagesTr/a_0001.nii.gz").unlink()


def missing_label(root: Path) -> None:
    (root / "labelsTr/a.nii.gz").unlink()


def collision(root: Path) -> None:
    (root / "imagesTr/a_0000.nrrd").touch()


def wrong_number(root: Path) -> None:
    describe(root, numTraining=4)


def wrong_description(root: Path) -> None:
    describe(root, labels={"background": 1})


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (nan_voxel, "a: a_0000.nii.gz: 2 voxels are NaN and 1 are infinite -> replace them"),
        (nan_in_label, "a: a.nii.gz: 336 voxels are NaN"),
        (
            other_spacing,
            "a: different grid: channel a_0001.nii.gz and first channel a_0000.nii.gz: spacing 1.5 x 1 x 1",
        ),
        (other_shape_of_label, "a: different grid: label a.nii.gz and first channel a_0000.nii.gz: shape 6 x 7 x 9"),
        (
            undeclared_value,
            "a: a.nii.gz: label value 5 is not declared in dataset.json, which has 0, 1 and 2 (ignore) -> ",
        ),
        (
            fractions,
            "a: a.nii.gz: label value 0.5 is not a whole number, dataset.json has 0, 1 and 2 (ignore) -> declare",
        ),
        (only_background, "a: empty label: a.nii.gz has no foreground -> label it, remove the case, or set"),
        (only_ignored, "a: empty label"),
        (four_axes, "a: a_0000.nii.gz: the file is 4D (8 x 7 x 6 x 2), expected is 3D -> save each volume as a"),
        (colours, "a: a_0000.nii.gz: the file has 3 numbers per voxel (RGB or vectors)"),
        (empty_file, "a: a_0000.nii.gz: the file is empty (0 bytes) -> copy or export it again"),
        (truncated_image, "a: a_0000.nii.gz: the file is truncated"),
        (truncated_label, "a: a.nii.gz: the file is truncated"),
        (same_images, "c: duplicate case: its images equal those of a -> remove one of the two"),
        (missing_channel, "a: missing channel 0001 (PET)"),
        (missing_label, "a: missing label"),
        (collision, "a: name collides"),
        (wrong_number, "dataset.json: numTraining is 4, but there are 3 cases -> set numTraining to 3"),
        (wrong_description, "dataset.json: labels: 'background' must be 0"),
    ],
)
def test_each_bad_input(spoil: Callable[[Path], None], expected: str, root: Path) -> None:
    spoil(root)
    found = lines(root)
    assert found
    assert found[0].startswith(expected)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_bad_voxels_of_every_format(ending: str, root: Path) -> None:
    array = np.zeros((6, 7, 8), np.float64)
    array[0, 0, 0], array[5, 6, 7] = np.nan, -np.inf
    for path in sorted(root.glob("*/*.nii.gz")):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image, str(path).replace(".nii.gz", ending))
        path.unlink()
    save(root / f"imagesTr/b_0000{ending}", array)
    describe(root, file_ending=ending)
    assert [line.split(" -> ")[0] for line in lines(root)] == [
        f"b: b_0000{ending}: 1 voxels are NaN and 1 are infinite"
    ]


def test_free_keys_allow_empty_labels_and_duplicates(root: Path) -> None:
    same_images(root)
    only_background(root)
    describe(root, allow_empty_labels=True, allow_duplicate_cases=True)
    assert lines(root) == []


def test_all_problems_in_one_table(root: Path) -> None:
    wrong_number(root)
    nan_voxel(root)
    undeclared_value(root)
    (root / "labelsTr/b.nii.gz").unlink()
    truncated = root / "imagesTr/c_0001.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    problems = verify_dataset(root, 0)
    assert [problem.case for problem in problems] == ["dataset.json", "a", "a", "b", "c"]
    with pytest.raises(DatasetError) as caught:
        raise_problems(problems, "Dataset001_Test")
    head, *table = str(caught.value).splitlines()
    assert head == "Dataset001_Test has 5 problems:"
    assert len(table) == 6
    assert all(row.count(" | ") == 2 for row in table)


def test_no_problems_raise_nothing() -> None:
    raise_problems([], "Dataset001_Test")
    with pytest.raises(DatasetError, match="has 1 problem:"):
        raise_problems([Problem(case="a", problem="p", cure="c")], "Dataset001_Test")


@pytest.mark.slow
def test_worker_processes_find_the_same(root: Path) -> None:
    nan_voxel(root)
    only_background(root)
    assert lines(root, num_workers=2) == lines(root, num_workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset005_SarcomaPETCT"])
def test_real_data_sets_are_fine(name: str, shared_data: Path) -> None:
    assert lines(shared_data / name) == []


def test_real_label_of_another_grid(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "robustness" / "totalsegmentator"
    for folder, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        (tmp_path / folder).mkdir()
        wanted = "ct_small" if folder == "imagesTr" else "labels_of_another_grid"
        (tmp_path / folder / f"{name}.nii.gz").write_bytes((source / f"{wanted}.nii.gz").read_bytes())
    describe(tmp_path, channel_names={"0": "CT"}, numTraining=1)
    assert [line.split(" x ")[0] for line in lines(tmp_path)] == [
        "a: different grid: label a.nii.gz and first channel a_0000.nii.gz: shape 112"
    ]


def test_clean_cases_are_remembered(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "out" / "verified.json"
    read: list[str] = []

    def check(case: Case, description: DatasetDescription, ranges: verify.Ranges) -> verify._Finding:
        read.append(case.name)
        return check_voxels(case, description, ranges)

    check_voxels = verify._check_voxels
    monkeypatch.setattr(verify, "_check_voxels", check)
    monkeypatch.setattr(verify, "call_as_a_whole", lambda function, *arguments: function(*arguments))

    def found() -> list[str]:
        read.clear()
        return [problem.case for problem in verify_dataset(root, 0, memory=memory)]

    undeclared_value(root)
    assert found() == ["a"]
    assert not memory.exists()
    save(root / "labelsTr/a.nii.gz", np.ones((6, 7, 8), np.uint8))
    assert found() == []
    assert read == ["a", "b", "c"]
    assert found() == read == []
    same_images(root)
    assert found() == ["c"]  # against the digest of a case that is not read again
    assert read == ["c"]
    describe(root, allow_duplicate_cases=True)
    assert found() == []
    assert read == ["c"]
    describe(root, allow_duplicate_cases=True, labels=DESCRIPTION["labels"] | {"ignore": 3})
    found()
    assert read == ["a", "b", "c"]
    memory.write_text("{")
    found()
    assert read == ["a", "b", "c"]


KILLED = """
import os, signal, sys
from pathlib import Path
from seg25d.core import progress
from seg25d.data import verify

progress.SECONDS_BETWEEN_WRITES, progress.SHARE_OF_WRITES = 0.0, float("inf")
verify.call_as_a_whole = lambda function, *arguments: function(*arguments)
check_voxels = verify._check_voxels

def until_c(case, **others):
    if case.name == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return check_voxels(case, **others)

verify._check_voxels = until_c
verify.verify_dataset(Path(sys.argv[1]), 0, Path(sys.argv[2]))
"""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases whose voxels were read; what is known is written after each."""
    check_voxels = verify._check_voxels
    names: list[str] = []

    def check(case: Case, description: DatasetDescription, ranges: verify.Ranges) -> verify._Finding:
        names.append(case.name)
        return check_voxels(case, description, ranges)

    monkeypatch.setattr(verify, "_check_voxels", check)
    monkeypatch.setattr(verify, "call_as_a_whole", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(progress, "SHARE_OF_WRITES", float("inf"))
    return names


@pytest.mark.slow
def test_what_was_read_before_a_kill_is_not_read_again(root: Path, tmp_path: Path, read: list[str]) -> None:
    memory, undisturbed = tmp_path / "out" / "verified.json", tmp_path / "out" / "undisturbed.json"
    words = [sys.executable, "-c", KILLED, str(root), str(memory)]
    done = subprocess.run(words, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert verify_dataset(root, 0, memory) == []
    assert read == ["c"]
    assert verify_dataset(root, 0, undisturbed) == []
    assert read == ["c", "a", "b", "c"]
    assert memory.read_text() == undisturbed.read_text()


def test_a_problem_costs_no_reading_and_is_found_again(root: Path, tmp_path: Path, read: list[str]) -> None:
    memory = tmp_path / "out" / "verified.json"
    undeclared_value(root)
    other = root / "imagesTr/b_0001.nii.gz"
    good = other.read_bytes()
    save(other, np.zeros((6, 7, 8), np.uint8), spacing=1.5)
    for expected in (["a", "c"], ["a"]):
        read.clear()
        assert [problem.case for problem in verify_dataset(root, 0, memory)] == ["a", "b"]
        assert read == expected
        assert list(json.loads(memory.read_text())["cases"]) == ["c"]
    save(root / "labelsTr/a.nii.gz", np.ones((6, 7, 8), np.uint8))
    other.write_bytes(good)
    read.clear()
    assert verify_dataset(root, 0, memory) == []
    assert read == ["a", "b"]
    assert verify_dataset(root, 0, memory) == []
    assert read == ["a", "b"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases whose headers were read."""
    check_headers, names = verify._check_headers, []

    def check(case: Case, description: DatasetDescription) -> verify._Headers:
        names.append(case.name)
        return check_headers(case, description)

    monkeypatch.setattr(verify, "_check_headers", check)
    monkeypatch.setattr(verify, "call_as_a_whole", lambda function, *arguments: function(*arguments))
    return names


def test_files_of_remembered_cases_are_not_opened_until_they_change(
    root: Path, tmp_path: Path, opened: list[str]
) -> None:
    memory = tmp_path / "out" / "verified.json"
    for expected in (["a", "b", "c"], []):
        assert verify_dataset(root, 0, memory) == []
        assert opened == expected
        opened.clear()
    label = root / "labelsTr/b.nii.gz"
    os.utime(label, ns=(0, label.stat().st_mtime_ns + 1))
    assert verify_dataset(root, 0, memory) == []
    assert opened == ["b"]
    opened.clear()
    assert verify_dataset(root, 0, memory) == opened == []
    (root / "imagesTr/c_0001.nii.gz").unlink()
    assert "missing channel 0001" in verify_dataset(root, 0, memory)[0].problem


def test_headers_are_read_again_for_other_channels_and_after_earlier_versions(
    root: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "out" / "verified.json"
    assert verify_dataset(root, 0, memory) == []
    content = json.loads(memory.read_text())
    del content["cases"]["a"]["remarks"]
    content["cases"]["b"]["remarks"]["num_channels"] = 3
    memory.write_text(json.dumps(content))
    opened.clear()
    monkeypatch.setattr(verify, "_check_voxels", lambda *_, **__: pytest.fail("voxels are not read for it"))
    assert verify_dataset(root, 0, memory) == []
    assert opened == ["a", "b"]
    assert verify_dataset(root, 0, memory) == []
    assert opened == ["a", "b"]


def test_it_says_how_many_slices_are_labelled(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    memory = tmp_path / "out" / "verified.json"
    assert verify_dataset(root, 0) == []
    assert "labelled in some slices" not in caplog.text
    label = np.full((6, 7, 8), 2, np.uint8)
    label[:, 3] = 0
    label[2, 3, 3] = 1
    save(root / "labelsTr/a.nii.gz", label)
    for _ in range(2):  # the second time, from what is remembered
        caplog.clear()
        assert verify_dataset(root, 0, memory) == []
        assert "1 of 3 case(s) are labelled in some slices along H (anterior-posterior) only" in caplog.text
        assert "in the median in 1 of 7;" in caplog.text


def test_slices_that_nobody_seems_to_have_labelled_are_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = tmp_path / "out" / "verified.json"
    label = np.zeros((6, 7, 8), np.uint8)
    label[::2, 2:5, 2:5] = 1
    save(root / "labelsTr/b.nii.gz", label)
    assert verify_dataset(root, 0) == []
    assert not caplog.text, "one of three cases may be so"
    save(root / "labelsTr/c.nii.gz", label)
    for _ in range(2):  # the second time, from what is remembered
        caplog.clear()
        assert verify_dataset(root, 0, memory) == []
        assert "2 case(s) have labels in single slices with background between them, such as b along D" in caplog.text
        assert "give these the `ignore` label" in caplog.text


def test_headers_are_checked_although_the_case_is_remembered(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "out" / "verified.json"
    assert verify_dataset(root, 0, memory) == []
    other_spacing(root)
    assert [problem.case for problem in verify_dataset(root, 0, memory)] == ["a"]
    missing_label(root)
    assert "missing label" in verify_dataset(root, 0, memory)[0].problem


def test_the_number_of_workers_follows_the_largest_case(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int | None, int, int]] = []

    def choose(requested: int | None, bytes_per_worker: int, num_items: int) -> int:
        asked.append((requested, bytes_per_worker, num_items))
        return 0

    monkeypatch.setattr(verify, "choose_num_workers", choose)
    assert verify_dataset(root) == []
    assert asked == [(None, 6 * 7 * 8 * 12 + (200 << 20), 3)]


def test_a_channel_may_have_a_range(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "out" / "verified.json"
    colours = np.full((6, 7, 8), 255, np.uint8)
    for value, case in enumerate("abc"):
        save(root / f"imagesTr/{case}_0001.nii.gz", colours - np.uint8(value))
    save(root / "imagesTr/a_0001.nii.gz", colours.astype(np.int16) + 1)
    save(root / "imagesTr/b_0001.nii.gz", colours.astype(np.float32) - 255.5)
    assert verify_dataset(root, 0, memory) == []
    found = verify_dataset(root, 0, memory, ranges={1: (0, 255)})
    assert [(item.case, item.problem) for item in found] == [
        ("a", "a_0001.nii.gz: expected values from 0 to 255, as the channel's name says, got 256 to 256"),
        ("b", "b_0001.nii.gz: expected values from 0 to 255, as the channel's name says, got -0.5 to -0.5"),
    ]
    assert "another name in dataset.json" in found[0].cure


def test_problems_of_the_folds_of_nnunet_come_first(root: Path) -> None:
    folds = '[{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": []}]'
    (root / "splits_final.json").write_text(folds)
    missing_label(root)
    assert [item.case for item in verify_dataset(root, 0)] == ["splits_final.json", "a"]


def test_labels_that_are_nearly_whole_numbers(root: Path) -> None:
    label = np.zeros((6, 7, 8), np.float32)
    label[2:4, 2:4, 2:4] = 0.9996
    save(root / "labelsTr/a.nii.gz", label)
    assert lines(root) == []


def test_a_header_without_spacing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in ("imagesTr/a_0000.mha", "labelsTr/a.mha"):
        array = np.zeros((6, 7, 8), np.uint8)
        array[2:4] = 1
        save(tmp_path / place, array)
        content = (tmp_path / place).read_bytes()
        (tmp_path / place).write_bytes(content.replace(b"ElementSpacing = 1 1 1\n", b""))
    describe(tmp_path, channel_names={"0": "CT"}, numTraining=1, file_ending=".mha")
    assert lines(tmp_path) == []
    said = "the spacing of 1 case(s) is taken for granted, such as that of a: 1 mm is taken along all"
    assert said in caplog.text
    for _ in range(2):  # the second time nothing is read
        caplog.clear()
        verify_dataset(tmp_path, 0, tmp_path / "verified.json")
        assert said in caplog.text


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_pixdim_that_contradicts_the_sform(ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cure is not to copy what SimpleITK reads from the image, which other programs read otherwise."""
    array = np.zeros((6, 7, 8), np.uint8)
    array[2:4] = 1
    for place in ("imagesTr/a_0000", "labelsTr/a"):
        save(tmp_path / f"{place}.nii", array, spacing=2)
    content = bytearray((tmp_path / "imagesTr/a_0000.nii").read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<3f", content, 80, 1, 1, 1)
    for place, data in (
        ("imagesTr/a_0000", bytes(content)),
        ("labelsTr/a", (tmp_path / "labelsTr/a.nii").read_bytes()),
    ):
        (tmp_path / f"{place}.nii").unlink()
        (tmp_path / f"{place}{ending}").write_bytes(gzip.compress(data) if ending == ".nii.gz" else data)
    describe(tmp_path, channel_names={"0": "CT"}, numTraining=1, file_ending=ending)
    (found,) = lines(tmp_path)
    assert (
        f"pixdim and sform of a_0000{ending} disagree, the pixdim counts, as in SimpleITK, and a{ending} lies on"
        in found
    )
    assert "write the right affine into both" in found
    assert "CopyInformation" not in found
    assert "pixdim and sform disagree (spacing 1 x 1 x 1 against 2 x 1 x 1 mm (z, y, x)); the pixdim" in caplog.text


def test_qform_and_sform_that_disagree(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told where image and label agree, a problem with a cure of its own where they do not."""
    content = gzip.decompress((root / "imagesTr/a_0000.nii.gz").read_bytes())
    odd = bytearray(content)
    struct.pack_into("<2h", odd, 252, 1, 2)
    struct.pack_into("<f", odd, 292, -77.0)
    (root / "imagesTr/a_0000.nii.gz").write_bytes(gzip.compress(odd))
    assert lines(root) == []
    assert (
        "1 file(s) have headers that disagree with themselves, such as a_0000.nii.gz: "
        "qform and sform disagree (origin 0 x 0 x 0 against "
        "77 x 0 x 0 mm (x, y, z)); the qform counts, as in SimpleITK"
    ) in caplog.text
    label = sitk.ReadImage(str(root / "labelsTr/a.nii.gz"))
    label.SetOrigin((77, 0, 0))
    sitk.WriteImage(label, str(root / "labelsTr/a.nii.gz"))
    found = lines(root)
    assert len(found) == 1
    assert (
        "qform and sform of a_0000.nii.gz disagree, the qform counts, as in SimpleITK, and a.nii.gz lies on" in found[0]
    )
    assert "resampl" not in found[0]
