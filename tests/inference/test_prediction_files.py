import json
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from seg25d.core.errors import CaseFailures, InputError
from seg25d.core.records import read_record
from seg25d.core.workspace import PreprocessedFolder
from seg25d.data.dataset import Dataset
from seg25d.data.inputs import find_inputs
from seg25d.ensembling.case_predictor import CasePredictor
from seg25d.inference import cases as cases_module
from seg25d.inference import prediction_files
from seg25d.inference.cases import CaseOptions, Meaning, outcomes_here
from seg25d.inference.prediction_files import (
    GrowingRecord,
    PredictionRecord,
    begin_record,
)
from seg25d.inference.predictor import Predictor
from seg25d.inference.probability_files import probabilities_shape, read_probabilities
from seg25d.planning.normalization import ChannelNormalization
from seg25d.preprocessing.preprocess import preprocess_dataset
from seg25d.preprocessing.store import Store

SHAPE = (10, 12, 9)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def write_case(folder, name, ending=".nii.gz", value=1.0):
    """Two channels in an orientation that is not the canonical one; gives the expected values of the file (z, y, x)."""
    folder.mkdir(exist_ok=True)
    channels, expected = np.zeros((2, *SHAPE), np.float32), np.zeros(SHAPE, np.uint8)
    channels[0, 2:5, 3:7, 1:4] = value
    expected[2:5, 3:7, 1:4] = 1
    channels[1, 6:9, 8:11, 4:8] = value
    expected[6:9, 8:11, 4:8] = 7
    for number, channel in enumerate(channels):
        image = sitk.GetImageFromArray(channel)
        image.SetSpacing((1.0, 1.0, 1.0))
        image.SetOrigin((10.0, -20.0, 30.0))
        image.SetDirection(DIRECTION)
        sitk.WriteImage(image, str(folder / f"{name}_{number:04d}{ending}"))
    return expected


@pytest.fixture
def predictor(header, execution, threshold):
    return Predictor([threshold], header, execution)


def predict_cases(predictor, cases, out, options=None):
    """Predict with one configuration in this process."""
    header = predictor.header
    record = PredictionRecord(
        model={"dataset": header.dataset_name, "configuration": header.configuration, "folds": [header.fold]}
    )
    outcomes = partial(outcomes_here, CasePredictor([predictor]))
    meaning = Meaning(header.description, header.threshold)
    cases_module.predict_cases(outcomes, meaning, cases, out, options or CaseOptions(), record)


def inputs(folder):
    return find_inputs(folder, 2, ".nii.gz")


def test_writes_values_in_the_geometry_of_the_image(predictor, tmp_path):
    expected = {name: write_case(tmp_path / "in", name) for name in ("a", "b", "c", "d")}
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    for name, values in expected.items():
        image = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values)
        assert image.GetDirection() == DIRECTION
        assert image.GetOrigin() == (10.0, -20.0, 30.0)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["model"] == {"dataset": "Dataset001_Test", "configuration": "3d", "folds": [0]}
    assert set(record["seconds"]) == {"a", "b", "c", "d"}
    assert "torch" in record["versions"]
    assert record["labels"]["names"] == {"background": 0, "organ": 1, "lesion": 7}
    assert record["threshold"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.nii.gz" for name in "abcd"} | {
        "prediction.json"
    }


def ask_for_windows(header):
    """The header with the window of each file for the first channel, 0 .. 1 where there is none."""
    window = ChannelNormalization(channel="ct", scheme="ct_window_dicom", lower=0, upper=1)
    plan = header.plan.model_copy(update={"normalization": (window, header.plan.normalization[1])})
    return header.model_copy(update={"plan": plan})


def add_window(path, center, width):
    image = sitk.ReadImage(str(path))
    image.SetMetaData("0028|1050", center)
    image.SetMetaData("0028|1051", width)
    sitk.WriteImage(image, str(path))


def test_windows_of_the_headers_count(header, execution, threshold, tmp_path, caplog):
    caplog.set_level("INFO", "seg25d")
    expected = {name: write_case(tmp_path / "in", name, ".mha") for name in ("dark", "bright", "bad", "none")}
    # The block has 1: (1 - lower) / (upper - lower) above 0.5 is class 1.
    add_window(tmp_path / "in" / "dark_0000.mha", "2", "4")
    add_window(tmp_path / "in" / "bright_0000.mha", "0.5\\9", "2\\9")
    add_window(tmp_path / "in" / "bad_0000.mha", "2", "-4")
    # The window of a channel that does not ask for it has no effect.
    add_window(tmp_path / "in" / "none_0001.mha", "9", "4")
    expected["dark"][expected["dark"] == 1] = 0
    predictor = Predictor([threshold], ask_for_windows(header), execution)
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    for name, values in expected.items():
        image = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), values, err_msg=name)
    said = {record.getMessage().split(":")[0]: record.levelname for record in caplog.records if "header" in record.msg}
    assert said == {"bad": "WARNING", "none": "INFO"}


def write_series(folder, volume, window):
    """A DICOM series of a volume (z, y, x), in hundredths."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, values in enumerate(volume):
        image = sitk.GetImageFromArray((100 * values).astype(np.int16))
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0032": f"0\\0\\{number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1050": window[0],
            "0028|1051": window[1],
        }
        for key, text in tags.items():
            image.SetMetaData(key, text)
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(image)


@pytest.mark.parametrize(("center", "organ"), [("80", 1), ("180\\80", 0)])
def test_dicom_folders_bring_their_window(header, execution, threshold, tmp_path, center, organ):
    channels = np.zeros((2, *SHAPE), np.float32)
    channels[0, 2:5, 3:7, 1:4] = 1
    for number, channel in enumerate(channels):
        write_series(tmp_path / "in" / f"case_{number:04d}", channel, (center, "160"))
    predictor = Predictor([threshold], ask_for_windows(header), execution)
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz")))
    np.testing.assert_array_equal(predicted, organ * channels[0])


def test_prediction_sees_what_training_saw(header, execution, threshold, tmp_path):
    expected = write_case(tmp_path / "in", "a", ".nrrd")
    add_window(tmp_path / "in" / "a_0000.nrrd", "2", "5")
    sitk.WriteImage(sitk.GetImageFromArray(expected), str(tmp_path / "label.nrrd"))
    predictor = Predictor([threshold], ask_for_windows(header), execution)
    (case,) = inputs(tmp_path / "in")
    labelled = case.model_copy(update={"label": tmp_path / "label.nrrd"})
    dataset = Dataset(name="Dataset001_X", root=tmp_path, description=header.description, cases=(labelled,))
    plan = predictor.header.plan
    preprocess_dataset(dataset, [plan], PreprocessedFolder(root=tmp_path / "out"), num_workers=0)
    stored = Store(tmp_path / "out" / plan.store).open_image("a")[:]
    np.testing.assert_array_equal(cases_module._read(CasePredictor([predictor]), case).prepared.images[0][0], stored)
    np.testing.assert_allclose(np.unique(stored[0]), [0.1, 0.3], rtol=1e-6)


def test_skips_what_is_done_unless_told_to_overwrite(predictor, tmp_path):
    write_case(tmp_path / "in", "a")
    write_case(tmp_path / "in", "b")
    predict_cases(predictor, inputs(tmp_path / "in")[:1], tmp_path / "out")
    done = tmp_path / "out" / "a.nii.gz"
    done.write_bytes(b"kept")
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    assert done.read_bytes() == b"kept"
    assert set(json.loads((tmp_path / "out" / "prediction.json").read_text())["seconds"]) == {"a", "b"}
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out", CaseOptions(overwrite=True))
    assert done.read_bytes() != b"kept"


def test_predictions_of_another_model_are_not_taken_for_done(predictor, header, execution, threshold, tmp_path):
    write_case(tmp_path / "in", "a")
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    other = Predictor([threshold], header.model_copy(update={"fold": 1}), execution)
    with pytest.raises(InputError, match="predictions of another model; choose another folder or --overwrite"):
        predict_cases(other, inputs(tmp_path / "in"), tmp_path / "out")
    predict_cases(other, inputs(tmp_path / "in"), tmp_path / "out", CaseOptions(overwrite=True))
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["model"]["folds"] == [1]


def test_one_bad_case_does_not_stop_the_others(predictor, tmp_path):
    for name in ("a", "b", "c"):
        write_case(tmp_path / "in", name)
    (tmp_path / "in" / "b_0001.nii.gz").write_bytes(b"")
    with pytest.raises(CaseFailures, match=r"b: .*empty") as caught:
        predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    assert list(caught.value.failures) == ["b"]
    assert (tmp_path / "out" / "a.nii.gz").exists()
    assert (tmp_path / "out" / "c.nii.gz").exists()
    assert not (tmp_path / "out" / "b.nii.gz").exists()


def test_nothing_is_written_when_no_case_is_of_use(predictor, tmp_path):
    write_case(tmp_path / "in", "a", ending=".nrrd", value=np.nan)
    with pytest.raises(InputError, match=r"a: .*NaN"):
        predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_are_never_overwritten(predictor, tmp_path):
    write_case(tmp_path / "in", "a")
    shutil.move(tmp_path / "in" / "a_0000.nii.gz", tmp_path / "in" / "a.nii.gz")
    (case,) = [
        case.model_copy(update={"images": (tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "a_0001.nii.gz")})
        for case in find_inputs(tmp_path / "in", 1, ".nii.gz")[:1]
    ]
    with pytest.raises(InputError, match="overwrite an image"):
        predict_cases(predictor, [case], tmp_path / "in")


def test_a_wrong_number_of_channels_is_refused_first(predictor, tmp_path):
    write_case(tmp_path / "in", "a")
    cases = [case.model_copy(update={"images": case.images[:1]}) for case in inputs(tmp_path / "in")]
    with pytest.raises(InputError, match="takes 2 channel"):
        predict_cases(predictor, cases, tmp_path / "out")


def test_probabilities_lie_in_the_files_axes(predictor, tmp_path):
    expected = write_case(tmp_path / "in", "a")
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out", CaseOptions(save_probabilities=True))
    with np.load(tmp_path / "out" / "a.npz", allow_pickle=False) as archive:
        probabilities = archive["probabilities"]
    assert probabilities.shape == (3, *SHAPE)
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(np.array([0, 1, 7])[probabilities.argmax(0)], expected)
    assert (tmp_path / "out" / "a.pkl").exists()
    assert probabilities_shape(tmp_path / "out" / "a.npz") == (3, *SHAPE)
    np.testing.assert_array_equal(read_probabilities(tmp_path / "out" / "a.npz"), probabilities)


@pytest.mark.parametrize("content", [{"other": np.zeros((2, 1, 1, 1))}, {"probabilities": np.array([object()])}, None])
def test_files_without_probabilities_are_named(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK") if content is None else np.savez(path, **content)
    with pytest.raises(InputError, match=r"a\.npz is not a file with `probabilities`"):
        read_probabilities(path)
    if content is None or "other" in content:
        with pytest.raises(InputError, match=r"a\.npz is not a file with `probabilities`"):
            probabilities_shape(path)


def test_probabilities_have_four_axes_and_real_numbers(tmp_path):
    for array in (np.zeros((1, 2, 3)), np.zeros((2, 1, 1, 1), np.uint8)):
        np.savez(tmp_path / "a.npz", probabilities=array)
        with pytest.raises(InputError, match="shape"):
            read_probabilities(tmp_path / "a.npz")
    with pytest.raises(InputError, match="does not exist; predict with --save-probabilities"):
        read_probabilities(tmp_path / "b.npz")


def test_records_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "prediction.json").write_text(json.dumps({"schema_version": 1, "model": {"configuration": "3d"}}))
    record = read_record(tmp_path / "prediction.json", PredictionRecord)
    assert record.labels is None
    assert record.threshold is None


def test_a_record_is_begun_once_per_model(tmp_path):
    path = tmp_path / "prediction.json"
    first = PredictionRecord(model={"weights": (1, 2)}, seconds={"a": 1.0})
    begin_record(first, path)
    begin_record(first.model_copy(update={"seconds": {}}), path)
    assert read_record(path, PredictionRecord).seconds == {"a": 1.0}
    begin_record(PredictionRecord(model={"weights": (2, 1)}), path)
    assert read_record(path, PredictionRecord).model == {"weights": [2, 1]}
    path.write_text("{")
    begin_record(first, path)
    assert read_record(path, PredictionRecord).seconds == {"a": 1.0}


def test_a_record_of_many_cases_is_written_more_rarely(tmp_path, monkeypatch):
    clock, written = [100.0], []

    def write_slowly(_, record):
        written.append(list(record.seconds))
        clock[0] += 0.01 * len(record.seconds)

    monkeypatch.setattr(prediction_files.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(prediction_files, "write_record", write_slowly)
    growing = GrowingRecord(PredictionRecord(model={}), tmp_path / "prediction.json", is_part=False)
    growing.write()
    assert written == [], "there is nothing new"
    for number in range(400):
        clock[0] += 1
        growing.add(f"{number}", 1.0, {"1": 0.5})
    assert written[:3] == [["0"], ["0", "1"], ["0", "1", "2"]], "as long as that takes no time"
    assert len(written) < 60
    assert clock[0] < 100 + 1.06 * 400
    growing.write()
    growing.write()
    assert len(written[-1]) == 400
    assert written[-2] != written[-1]
    assert growing.record.predicted_dice["399"] == {"1": 0.5}


def test_a_fault_of_ours_in_one_case_is_collected(header, execution, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, volume):
            raise ZeroDivisionError("ours")

    write_case(tmp_path / "in", "a")
    with pytest.raises(CaseFailures, match="ours"):
        predict_cases(Predictor([Broken()], header, execution), inputs(tmp_path / "in"), tmp_path / "out")


def test_what_an_interrupted_overwrite_left_is_predicted_again(predictor, header, execution, threshold, tmp_path):
    """The record is of the new model from its first case on; files of the old one do not count as predicted."""
    for name in ("a", "b"):
        write_case(tmp_path / "in", name)
    out = tmp_path / "out"
    predict_cases(predictor, inputs(tmp_path / "in"), out)
    old = (out / "b.nii.gz").stat().st_mtime_ns
    other = Predictor([threshold], header.model_copy(update={"fold": 1}), execution)
    predict_cases(other, inputs(tmp_path / "in")[:1], out, CaseOptions(overwrite=True))
    assert set(read_record(out / "prediction.json", PredictionRecord).seconds) == {"a"}
    assert (out / "b.nii.gz").stat().st_mtime_ns == old
    predict_cases(other, inputs(tmp_path / "in"), out)
    assert (out / "b.nii.gz").stat().st_mtime_ns > old
    assert set(read_record(out / "prediction.json", PredictionRecord).seconds) == {"a", "b"}


def test_a_case_without_its_properties_is_predicted_again(predictor, tmp_path):
    write_case(tmp_path / "in", "a")
    wanted = CaseOptions(save_probabilities=True)
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out", wanted)
    (tmp_path / "out" / "a.pkl").unlink()
    predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out", wanted)
    assert (tmp_path / "out" / "a.pkl").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_probabilities_are_from_0_to_1(tmp_path, value):
    probabilities = np.full((2, 3, 4, 5), 0.5, np.float32)
    probabilities[1, 2, 3, 4] = value
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    with pytest.raises(InputError, match=r"a\.npz is not a file with `probabilities`.*values from .* wanted 0 to 1"):
        read_probabilities(tmp_path / "a.npz")


def test_a_shape_that_the_file_cannot_hold_is_refused_before_memory_is_taken(tmp_path):
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1000000, 1000000, 1000), }".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(100)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("probabilities.npy", content)
    with pytest.raises(InputError, match=r"shape \(2, 1000000, 1000000, 1000\) of float32 in 100 bytes"):
        read_probabilities(tmp_path / "a.npz")


def test_foreign_segmentations_without_probabilities_are_foreign_too(predictor, tmp_path):
    write_case(tmp_path / "in", "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="it was not predicted here"):
        predict_cases(predictor, inputs(tmp_path / "in"), tmp_path / "out", CaseOptions(save_probabilities=True))
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == b"somebody's"
