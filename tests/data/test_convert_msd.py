"""From the Decathlon's layout to nnU-Net's."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.workspace import Workspace
from seg25d.data import convert_msd as module
from seg25d.data.convert_msd import convert_msd
from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_image
from seg25d.data.verify import verify_dataset

SHAPE = (3, 4, 5)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
DESCRIPTION = {
    "name": "Brain",
    "licence": "CC-BY-SA 4.0",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema"},
    "numTraining": 2,
    "numTest": 1,
    "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "ab"],
    "test": ["./imagesTs/c.nii.gz"],
}


def write(path: Path, array: np.ndarray) -> None:
    """A file with an orientation that is not the canonical one; the first of four axes is that of the channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volumes = []
    for volume in array if array.ndim == 4 else [array]:
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing((0.7, 0.8, 2.1))
        image.SetOrigin((10.3, -20.7, 30.1))
        image.SetDirection(DIRECTION)
        volumes.append(image)
    sitk.WriteImage(sitk.JoinSeries(volumes) if array.ndim == 4 else volumes[0], str(path))


def intensities(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(2, *SHAPE)).astype(np.float32)


def make_task(root: Path, **changes: Any) -> Path:
    """A task with two channels: training cases a and b, test case c."""
    description = {key: item for key, item in (DESCRIPTION | changes).items() if item is not None}
    label = np.zeros(SHAPE, np.uint8)
    label[1, 1:3, 2:4] = 1
    for number, name in enumerate(("imagesTr/a", "imagesTr/b", "imagesTs/c")):
        channels = len(description["modality"])
        write(root / f"{name}.nii.gz", intensities(number)[:channels] if channels > 1 else intensities(number)[0])
    for case in "ab":
        write(root / "labelsTr" / f"{case}.nii.gz", label)
    (root / "imagesTr" / "._a.nii.gz").write_bytes(b"junk of an operating system")
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path / "workspace", {})


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path / "Task01_Brain")


def convert(workspace: Workspace, task: Path, number: int | None = None) -> Path:
    return convert_msd(workspace, task, number, num_processes=0)


def test_channels_become_files_with_values_and_geometry_kept(workspace: Workspace, task: Path) -> None:
    target = convert(workspace, task)
    assert target == workspace.raw_dataset("Dataset001_Brain")
    names = {path.relative_to(target).as_posix() for path in target.rglob("*.nii.gz")}
    images = {f"imagesTr/{case}_000{channel}.nii.gz" for case in "ab" for channel in range(2)}
    images |= {f"imagesTs/c_000{channel}.nii.gz" for channel in range(2)}
    assert names == images | {"labelsTr/a.nii.gz", "labelsTr/b.nii.gz"}
    for number, name in enumerate(("imagesTr/a", "imagesTr/b", "imagesTs/c")):
        for channel in range(2):
            image = sitk.ReadImage(str(target / f"{name}_{channel:04d}.nii.gz"))
            assert np.array_equal(sitk.GetArrayFromImage(image), intensities(number)[channel])
            assert np.allclose(image.GetSpacing(), (0.7, 0.8, 2.1))
            assert np.allclose(image.GetOrigin(), (10.3, -20.7, 30.1))
            assert np.allclose(image.GetDirection(), DIRECTION)
    label, reference = (folder / "labelsTr" / "a.nii.gz" for folder in (target, task))
    assert label.stat().st_ino == reference.stat().st_ino


def test_the_result_is_a_sound_data_set(workspace: Workspace, task: Path) -> None:
    target = convert(workspace, task)
    description = json.loads((target / "dataset.json").read_text())
    assert description == {
        "name": "Brain",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D",
        "channel_names": {"0": "FLAIR", "1": "T1w"},
        "labels": {"background": 0, "edema": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert verify_dataset(target, num_workers=0) == []
    case = read_dataset(target).cases[0]
    assert read_image(case.images)[0].shape[0] == 2


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_headers_stay_but_for_the_number_of_axes(workspace: Workspace, tmp_path: Path, ending: str) -> None:
    lists = {
        "training": [{"image": f"imagesTr/a{ending}", "label": f"labelsTr/a{ending}"}],
        "test": None,
        "modality": {"0": "MRI", "1": "MRI"},
    }
    task = make_task(tmp_path / "Task02_Extended", **lists)
    source = task / "imagesTr" / f"a{ending}"
    header = bytearray(gzip.decompress((task / "imagesTr" / "a.nii.gz").read_bytes()))
    # Sixteen bytes of an extension, and a description that SimpleITK would replace.
    header[148:155] = b"scanner"
    voxels = bytes(header[352:])
    content = bytes(header[:108]) + struct.pack("<f", 368) + bytes(header[112:352]) + bytes(range(16)) + voxels
    source.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    write(task / "labelsTr" / f"a{ending}", np.ones(SHAPE, np.uint8))
    target = convert(workspace, task)
    half = len(voxels) // 2
    for channel, part in enumerate((voxels[:half], voxels[half:])):
        made = (target / "imagesTr" / f"a_{channel:04d}{ending}").read_bytes()
        made = gzip.decompress(made) if ending == ".nii.gz" else made
        assert struct.unpack_from("<8h", made, 40) == (3, *SHAPE[::-1], 1, 1, 1, 1)
        assert (made[:40], made[56:368], made[368:]) == (content[:40], content[56:368], part)


def test_one_channel_is_linked_or_copied(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(tmp_path / "Task09_Spleen", modality={"0": "CT"})
    target = convert(workspace, task)
    assert (target / "imagesTr" / "a_0000.nii.gz").stat().st_ino == (task / "imagesTr" / "a.nii.gz").stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError(18, "another disk")

    monkeypatch.setattr(module.os, "link", refuse)
    copied = convert(workspace, task, number=10)
    assert copied.name == "Dataset010_Spleen"
    assert (copied / "imagesTr" / "a_0000.nii.gz").read_bytes() == (task / "imagesTr" / "a.nii.gz").read_bytes()


def test_all_problems_come_at_once_and_nothing_is_written(workspace: Workspace, tmp_path: Path) -> None:
    task = make_task(tmp_path / "Task01_Brain", labels={"1": "edema"}, numTraining=7)
    (task / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)has 2 problems.*labelsTr/b\.nii\.gz does not exist.*'background': 0"):
        convert(workspace, task)
    make_task(task)
    write(task / "imagesTr" / "a.nii.gz", intensities(0)[0])
    whole = (task / "imagesTs" / "c.nii.gz").read_bytes()
    (task / "imagesTs" / "c.nii.gz").write_bytes(whole[:-100])
    (task / "labelsTr" / "b.nii.gz").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        convert(workspace, task)
    message = str(caught.value)
    assert "imagesTr/a.nii.gz: the file is 5 x 4 x 3, expected is a volume with 2 channel(s)" in message
    assert "imagesTs/c.nii.gz: the file is truncated" in message
    assert "labelsTr/b.nii.gz: the file cannot be read: it is not a NIfTI file" in message
    assert not workspace.raw.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": []}, "lists no case"),
        ({"training": ["imagesTr/a.nii.gz"]}, "`training` must be a list of objects with image and label"),
        ({"training": DESCRIPTION["training"] * 2}, "imagesTr would have this case twice"),
        ({"test": 3}, "`test` must be a list"),
        ({"modality": {}}, "modality must be an object"),
        ({"labels": {"0": "background", "1": "background"}}, "labels"),
        ({"test": ["labels.json"]}, r"all files must end in \.nii\.gz, or all in \.nii"),
    ],
)
def test_wrong_lists_are_named(workspace: Workspace, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    task = make_task(tmp_path / "Task01_Brain")
    (task / "dataset.json").write_text(json.dumps(DESCRIPTION | changes))
    with pytest.raises(DatasetError, match=message):
        convert(workspace, task)


def test_the_number_comes_from_the_name_or_the_user(workspace: Workspace, tmp_path: Path) -> None:
    task = make_task(tmp_path / "brain")
    with pytest.raises(InputError, match="with -d"):
        convert(workspace, task)
    with pytest.raises(InputError, match="from 0 to 999"):
        convert(workspace, task, 1000)
    assert convert(workspace, task, 12).name == "Dataset012_brain"
    with pytest.raises(InputError, match="12 is taken by Dataset012_brain"):
        convert(workspace, make_task(tmp_path / "Task12_Other"))
    with pytest.raises(InputError, match=r"has no dataset\.json"):
        convert(workspace, tmp_path / "absent")


def test_a_data_set_that_is_there_is_left_alone(workspace: Workspace, task: Path) -> None:
    target = workspace.raw_dataset("Dataset001_Brain")
    (target / "imagesTr").mkdir(parents=True)
    with pytest.raises(InputError, match="was not converted from it"):
        convert(workspace, task)
    (target / "imagesTr").rmdir()
    convert(workspace, task)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    convert(workspace, task)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    write(task / "imagesTr" / "a.nii.gz", intensities(5))
    with pytest.raises(InputError, match="a conversion of other files"):
        convert(workspace, task)


def test_a_conversion_that_was_cut_off_goes_on(
    workspace: Workspace, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, seen = module.split_channels, []

    def cut(source: Path, targets: Any) -> None:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(source)
        split(source, targets)

    monkeypatch.setattr(module, "split_channels", cut)
    with pytest.raises(KeyboardInterrupt):
        convert(workspace, task)
    target = workspace.raw_dataset("Dataset001_Brain")
    assert not (target / "dataset.json").exists()
    (target / "imagesTr" / ".tmp-999999999-a_0000.nii.gz").write_bytes(b"half")
    done = (target / "imagesTr" / "a_0000.nii.gz").stat().st_mtime_ns
    monkeypatch.setattr(module, "split_channels", split)
    convert(workspace, task)
    assert (target / "imagesTr" / "a_0000.nii.gz").stat().st_mtime_ns == done
    assert verify_dataset(target, num_workers=0) == []
    assert not list(target.rglob(".tmp-*"))


def test_files_that_are_not_listed_are_told(workspace: Workspace, task: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(task / "imagesTr" / "z.nii.gz", intensities(9))
    target = convert(workspace, task)
    assert "does not list 1 file(s), which are left out: imagesTr/z.nii.gz" in caplog.text
    assert not list(target.glob("imagesTr/z*"))


def test_a_file_that_is_missing_is_converted_again(workspace: Workspace, task: Path) -> None:
    target = convert(workspace, task)
    (target / "imagesTr" / "a_0001.nii.gz").unlink()
    convert(workspace, task)
    assert verify_dataset(target, num_workers=0) == []
