import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.core.errors import InputError
from seg25d.core.records import write_record
from seg25d.data.labels import Labels
from seg25d.ensembling.members import find_members
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.prediction_files import PredictionRecord

SHAPE = (3, 4, 5)
ORGAN = Labels(names={"background": 0, "organ": 1})


def write(path, shape=SHAPE, spacing=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.zeros(shape, np.uint8))
    image.SetSpacing((spacing, 1.0, 1.0))
    sitk.WriteImage(image, str(path))


def write_npz(path, num_channels=2, shape=SHAPE):
    np.savez(path, probabilities=np.zeros((num_channels, *shape), np.float32))


@pytest.fixture
def folders(tmp_path):
    """Two folders with the cases a and b and their probabilities."""
    for folder in (tmp_path / "first", tmp_path / "second"):
        for name in "ab":
            write(folder / f"{name}.nii.gz")
            write_npz(folder / f"{name}.npz")
        write_record(folder / "prediction.json", PredictionRecord(model={"name": folder.name}, labels=ORGAN))
    return [tmp_path / "first", tmp_path / "second"]


def find(folders, **options):
    return find_members(folders, folders[0].parent / "out", EnsembleOptions(**options))


def describe(path, labels=None):
    content = {"channel_names": {"0": "CT"}, "labels": labels or ORGAN.names, "file_ending": ".nii.gz"}
    path.write_text(json.dumps(content | {"numTraining": 1}))


def test_members_that_fit(folders):
    cases, meaning = find(folders)
    assert [case.name for case in cases] == ["a", "b"]
    assert [path.parent for path in cases[0].segmentations] == folders
    assert cases[0].geometry.shape == SHAPE
    assert meaning.labels == ORGAN
    assert meaning.models == ({"name": "first"}, {"name": "second"})


def test_endings_may_differ(folders):
    (folders[1] / "a.nii.gz").unlink()
    write(folders[1] / "a.nrrd")
    assert find(folders).cases[0].segmentations[1].name == "a.nrrd"


def test_all_problems_come_at_once(folders):
    write(folders[0] / "c.nii.gz")
    write(folders[1] / "b.nii.gz", spacing=2.0)
    (folders[0] / "a.npz").unlink()
    write_npz(folders[1] / "a.npz", num_channels=3)
    (folders[1] / "b.npz").write_bytes(b"no archive")
    with pytest.raises(InputError) as caught:
        find(folders)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the folders cannot be fused:"
    wanted = [
        "second lacks 1 case(s): c; predict them there",
        "first/a.npz does not exist; predict with --save-probabilities",
        "second/a.npz: expected probabilities of shape (2, 3, 4, 5) (K, z, y, x), it has (3, 3, 4, 5)",
        "b: the grid of ",
        "second/b.npz is not a file with `probabilities`",
    ]
    assert len(lines) == 1 + len(wanted)
    assert all(any(part in line for line in lines) for part in wanted)


def test_labels_alone_need_no_probabilities(folders):
    for folder in folders:
        for path in [*folder.glob("*.npz"), folder / "prediction.json"]:
            path.unlink()
    cases, meaning = find(folders, method="majority")
    assert len(cases) == 2
    assert meaning.labels is None
    assert meaning.models == (None, None)


def test_without_labels_the_mean_asks_for_them(folders, tmp_path):
    write_record(folders[1] / "prediction.json", PredictionRecord(model={"name": "old"}))
    with pytest.raises(InputError, match=r"second does not say .* --dataset-json"):
        find(folders)
    describe(tmp_path / "dataset.json")
    assert find(folders, dataset_json=tmp_path / "dataset.json").meaning.labels == ORGAN
    (folders[1] / "prediction.json").write_text("{")
    with pytest.raises(InputError, match="second does not say"):
        find(folders)
    describe(folders[1] / "dataset.json")
    assert find(folders).meaning.labels == ORGAN


@pytest.mark.parametrize("method", ["mean", "majority"])
def test_labels_that_differ_are_refused(folders, method):
    other = Labels(names={"background": 0, "lesion": 1})
    write_record(folders[1] / "prediction.json", PredictionRecord(model={}, labels=other))
    with pytest.raises(InputError, match=r"second has other labels than .*first: .*lesion.* against .*organ"):
        find(folders, method=method)
    capitals = Labels(names={"Background": 0, "Organ": 1})
    write_record(folders[1] / "prediction.json", PredictionRecord(model={}, labels=capitals))
    assert len(find(folders, method=method).cases) == 2


def test_a_wrong_dataset_json_is_named(folders, tmp_path):
    describe(tmp_path / "dataset.json", {"organ": 1})
    with pytest.raises(InputError, match=r"dataset.json is not valid"):
        find(folders, dataset_json=tmp_path / "dataset.json")


def test_folders_that_are_none(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"gone is not a folder\n.*empty holds no segmentations"):
        find([*folders, tmp_path / "gone", tmp_path / "empty"])
    with pytest.raises(InputError, match="at least two"):
        find(folders[:1])
    with pytest.raises(InputError, match="is named twice"):
        find([*folders, folders[0] / ".." / "first"])
    with pytest.raises(InputError, match="would be overwritten"):
        find_members(folders, folders[1], EnsembleOptions())
    with pytest.raises(InputError, match="labels is not a folder"):
        find(folders, fit_weights=tmp_path / "labels")


def test_names_that_collide_are_refused(folders):
    write(folders[0] / "a.nrrd")
    with pytest.raises(InputError, match=r"a\.nii\.gz and a\.nrrd in .*first have the same case name"):
        find(folders, method="majority")


def test_files_that_are_no_images_are_named(folders):
    (folders[0] / "a.nii.gz").write_bytes(b"")
    (folders[1] / "b.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)first.a\.nii\.gz: the file is empty.*second.b\.nii\.gz: the file"):
        find(folders, method="majority")


def test_references_are_found_and_checked(folders, tmp_path):
    write(tmp_path / "truth" / "b.nrrd")
    write(tmp_path / "truth" / "further.nrrd")
    cases = find(folders, fit_weights=tmp_path / "truth").cases
    assert [case.reference and case.reference.name for case in cases] == [None, "b.nrrd"]
    write(tmp_path / "truth" / "b.nrrd", spacing=2.0)
    with pytest.raises(InputError, match=r"b: the grid of .*truth.b\.nrrd"):
        find(folders, fit_weights=tmp_path / "truth")
    (tmp_path / "truth" / "b.nrrd").unlink()
    with pytest.raises(InputError, match="no reference of any predicted case"):
        find(folders, fit_weights=tmp_path / "truth")


def test_images_are_found_by_channel(folders, tmp_path):
    images = tmp_path / "images"
    for name in ("a_0000", "a_0001", "b"):
        write(images / f"{name}.mha")
    cases = find(folders, method="nlstaple", images=images).cases
    assert [case.image.name for case in cases] == ["a_0000.mha", "b.mha"]
    with pytest.raises(InputError, match=r"b: .*images has no image with channel 1"):
        find(folders, method="nlstaple", images=images, channel=1)
    write(images / "b_0001.mha", shape=(3, 4, 6))
    with pytest.raises(InputError, match=r"b: the grid of .*b_0001\.mha"):
        find(folders, method="nlstaple", images=images, channel=1)


def test_a_folder_of_dicom_files_is_an_image(folders, tmp_path):
    for name, folder in (("a", "a"), ("b", "b_0000")):
        place = tmp_path / "images" / folder
        place.mkdir(parents=True)
        for number in range(SHAPE[0]):
            image = sitk.GetImageFromArray(np.zeros((1, *SHAPE[1:]), np.int16))
            tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": f"1.2.3.{ord(name)}"}
            for key, text in (tags | {"0020|0032": f"0\\0\\{number}", "0020|0037": "1\\0\\0\\0\\1\\0"}).items():
                image.SetMetaData(key, text)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(place / f"{number}.dcm"))
            writer.Execute(image)
    cases = find(folders, method="nlstaple", images=tmp_path / "images").cases
    assert [case.image.name for case in cases] == ["a", "b_0000"]
