"""Data sets of pictures: their files, channels, labels and spacing, and the walk from the raw data to scores."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg25d.cli.main import main
from seg25d.core.errors import DatasetError, InputError
from seg25d.data.cases import image_files
from seg25d.data.inputs import find_inputs
from seg25d.data.verify import verify_dataset
from seg25d.evaluation.area_plot import AreaPlotOptions
from seg25d.evaluation.evaluate import evaluate

RGB = {"0": "red", "1": "green", "2": "blue"}


def make(root: Path, ending: str = ".png", channels: dict[str, str] | None = None, label_ending: str = ".png") -> Path:
    """Five cases of 24 x 32 pixels with a bright box; three channels are colours."""
    names = channels or RGB
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (root / folder).mkdir(parents=True)
    for number in range(7):
        rng = np.random.default_rng(number)
        labels = np.zeros((24, 32), np.uint8)
        labels[6 + number : 16, 8:20] = 1
        image = (rng.integers(0, 60, (24, 32, 3)) + 150 * labels[..., np.newaxis]).astype(np.uint8)
        part = "Tr" if number < 5 else "Ts"
        Image.fromarray(image if len(names) == 3 else image[..., 0]).save(root / f"images{part}/c{number}_0000{ending}")
        Image.fromarray(labels).save(root / f"labels{part}/c{number}{label_ending}")
    description = {
        "channel_names": names,
        "labels": {"background": 0, "box": 1},
        "numTraining": 5,
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def told(root: Path) -> str:
    return "\n".join(f"{each.case}: {each.problem}; {each.cure}" for each in verify_dataset(root, 0))


@pytest.mark.parametrize(
    ("ending", "label_ending"),
    [(".png", ".png"), (".jpg", ".png"), (".jpeg", ".png"), (".bmp", ".png"), (".bmp", ".bmp"), (".tif", ".tif")],
)
def test_layouts_of_nnunet(ending: str, label_ending: str, tmp_path: Path) -> None:
    assert told(make(tmp_path, ending, RGB, label_ending)) == ""


def test_channels_are_counted_in_the_files(tmp_path: Path) -> None:
    root = make(tmp_path, channels={"0": "grey"})
    Image.fromarray(np.full((24, 32, 3), 7, np.uint8)).save(root / "imagesTr/c1_0000.png")
    assert told(root) == (
        "c1: c1_0000.png: 3 channel(s), expected are the 1 of channel_names in dataset.json; save it as grey, or "
        "declare 3 channel_names (a picture has 1 if it is grey, 3 in colours, 4 with alpha)"
    )
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(root / "imagesTr/c1_0000.png")
    Image.fromarray(np.full((24, 32), 7, np.uint8)).save(root / "imagesTr/c2_0001.png")
    assert "c2: c2_0001.png: dataset.json declares only 1 channel(s)" in told(root)


def test_several_files_are_put_one_after_the_other(tmp_path: Path) -> None:
    root = make(tmp_path, channels=RGB)
    description = json.loads((root / "dataset.json").read_text())
    description["channel_names"]["3"] = "infrared"
    (root / "dataset.json").write_text(json.dumps(description))
    for number in range(5):
        Image.fromarray(np.full((24, 32), number, np.uint8)).save(root / f"imagesTr/c{number}_0001.png")
    assert told(root) == ""
    (root / "imagesTr/c3_0001.png").rename(root / "imagesTr/c3_0002.png")
    assert "c3: missing channel 0001 (green)" in told(root)


def test_labels_in_jpeg_or_in_colours(tmp_path: Path) -> None:
    root = make(tmp_path, ".jpg")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / "labelsTr/c0.jpg")
    (root / "labelsTr/c0.png").unlink()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / "labelsTr/c1.png")
    text = told(root)
    assert "c0: labelsTr/c0.jpg is a JPEG file, which changes the values of labels; export the labels again as " in text
    assert text.count("c0") == 2, "one problem"
    assert "c1: c1.png: the file has colours (RGB)" in text


@pytest.mark.parametrize(("ending", "expected"), [(".jpg", "the labels' ending for .jpg"), (".tif", "as dataset.json")])
def test_labels_of_another_ending(ending: str, expected: str, tmp_path: Path) -> None:
    root = make(tmp_path, ending, {"0": "grey"}, ending if ending == ".tif" else ".png")
    label = next((root / "labelsTr").glob("c0.*"))
    label.unlink()
    Image.fromarray(np.ones((24, 32), np.uint8)).save(root / "labelsTr/c0.bmp")
    wanted = label.suffix
    text = told(root)
    assert f"c0: labelsTr/c0.bmp does not end in {wanted}, {expected}" in text
    assert f"convert it to {wanted} or correct file_ending" in text


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_stray_medical_image_hides_no_pictures(folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path)
    for name in ("old_0000.nii", "c0.nii.gz"):
        (root / folder / name).write_bytes(b"x")
    assert told(root) == ""
    assert f"{folder}: 2 medical image(s) are left out, such as c0.nii.gz, as dataset.json declares .png" in caplog.text


def test_pictures_are_no_medical_images_of_a_data_set(tmp_path: Path) -> None:
    root = make(tmp_path)
    description = json.loads((root / "dataset.json").read_text()) | {"file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    assert "imagesTr/c0_0000.png does not end in .nii.gz, as dataset.json declares" in told(root)


def test_spacing_of_stacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, ".tif", {"0": "grey"}, ".tif")
    for folder, name in (("imagesTr", "c0_0000"), ("labelsTr", "c0")):
        first = Image.open(root / folder / f"{name}.tif").copy()
        first.save(root / folder / f"{name}.tif", save_all=True, append_images=[first])
    with caplog.at_level(logging.WARNING):
        assert told(root) == ""
    assert (
        "of 1 case(s) is taken for granted, such as that of c0: 1 mm is taken along all axes, as there is no c0.json"
        in caplog.text
    )
    (root / "imagesTr/c0.json").write_text('{"spacing": [3, 1, 1]}')
    caplog.clear()
    text = told(root)
    assert "different grid: label c0.tif" in text
    assert "put the same spacing into c0.json beside c0.tif and beside the image" in text
    (root / "labelsTr/c0.json").write_text('{"spacing": [3, 1, 1]}')
    caplog.clear()
    assert told(root) == ""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_inputs_of_predictions(tmp_path: Path) -> None:
    for name in ("scan_2019.png", "a_0000.png", "b.png", "c_0000.png", "c_0001.png"):
        (tmp_path / name).write_bytes(b"x")
    cases = {case.name: [path.name for path in case.images] for case in find_inputs(tmp_path, 3, ".png")}
    assert cases == {
        "a": ["a_0000.png"],
        "b": ["b.png"],
        "c": ["c_0000.png", "c_0001.png"],
        "scan_2019": ["scan_2019.png"],
    }
    (case,) = find_inputs(tmp_path / "b.png", 3, ".png")
    assert (case.name, len(case.images)) == ("b", 1)
    (tmp_path / "c_0003.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"(?s)c: missing channel: c_0002\.png.*there is c_0003\.png"):
        find_inputs(tmp_path, 3, ".png")
    (tmp_path / "d.nii.gz").write_bytes(b"x")
    assert [path.name for path in image_files(tmp_path)] == ["d.nii.gz"], "the pictures show something else"


def test_area_plots_do_not_overwrite_segmentations(tmp_path: Path) -> None:
    root = make(tmp_path)
    before = (root / "labelsTs/c5.png").read_bytes()
    with pytest.raises(InputError, match=r"would overwrite the segmentations \(\.png\)"):
        evaluate(root / "labelsTs", root / "labelsTs", areas=AreaPlotOptions(root / "labelsTs", None), num_processes=0)
    assert (root / "labelsTs/c5.png").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "channels"), [(".png", RGB), (".jpg", {"0": "grey"})])
def test_the_walk(ending: str, channels: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "raw/Dataset041_Pictures", ending, channels)
    common = ["--workspace", str(tmp_path), "-np", "0"]
    assert main(["plan_and_preprocess", "-d", "41", "-c", "mip", *common]) == 2
    assert "mip needs a third dimension, which images of one slice do not have; plan axial" in capsys.readouterr().err
    assert main(["plan_and_preprocess", "-d", "41", *common]) == 0
    assert "not planned: coronal, sagittal, si, stack, mip, mv, 3d need" in capsys.readouterr().err
    assert main(["plan_and_preprocess", "-d", "41", *common]) == 0, "plans are kept"
    assert main(["train", "41", "2d", "0", "--epochs", "1", "--iterations", "2", "--device", "cpu", *common]) == 0
    assert main(["train", "41", "mip", "0", "--device", "cpu", *common]) == 2
    out = tmp_path / "out"
    words = ["predict", "-i", str(root / "imagesTs"), "-o", str(out), "-d", "41", "--device", "cpu", *common]
    assert main(words) == 0
    assert sorted(path.name for path in out.glob("*.png")) == ["c5.png", "c6.png"]
    assert set(np.unique(np.asarray(Image.open(out / "c5.png")))) <= {0, 1}
    assert main(["evaluate", str(root / "labelsTs"), str(out), *common]) == 0
    assert main(["report", "41", *common]) == 0
    (tmp_path / "wrong").mkdir()
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "wrong/a.png")
    capsys.readouterr()
    words[2:5:2] = [str(tmp_path / "wrong"), str(tmp_path / "none")]
    assert main(words) == 2
    told_last = capsys.readouterr().err
    assert (
        "got shape (4, 1, 8, 8); give one file per channel (a picture has 1 if it is grey, 3 in colours)" in told_last
    )
