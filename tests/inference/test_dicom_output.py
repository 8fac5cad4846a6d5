"""Predictions of DICOM series: `CASE.dcm` beside the segmentation, when it is written and what is said of it."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch
from pydicom import dcmread
from torch import nn

from seg25d.core.device import Execution
from seg25d.core.errors import InputError
from seg25d.data import dicom_segmentation
from seg25d.data.inputs import find_inputs
from seg25d.data.labels import Labels
from seg25d.ensembling.case_predictor import CasePredictor
from seg25d.inference import cases as cases_module
from seg25d.inference.cases import CaseOptions, Meaning, outcomes_here
from seg25d.inference.postprocessing import PostProcessing
from seg25d.inference.prediction_files import PredictionRecord
from seg25d.inference.predictor import Predictor
from seg25d.planning.model_file import ModelHeader
from tests.data.dicom_files import write_slices
from tests.data.dicom_readers import READERS
from tests.data.dicom_sources import Source

pytest.importorskip("highdicom", reason="pip install 'seg25d[dicom]'")
VOLUME = np.zeros((9, 8, 7), np.int16)
VOLUME[2:5, 1:6, 2:4] = 10
VOLUME[3, 2:4, 2:4] = 30
VOLUME[7, 7, 6] = 30


class Levels(nn.Module):
    """Class 1 from 5 on, class 2 from 20 on, by number of outputs."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        first = volume[:, 0]
        return torch.stack([torch.zeros_like(first), first - 5, 3 * (first - 15)], 1)


def change(header: ModelHeader, **description: Any) -> ModelHeader:
    plan = header.plan.model_copy(update={"normalization": header.plan.normalization[:1]})
    changed = header.description.model_copy(update={"channel_names": ("ct",)} | description)
    return header.model_copy(update={"plan": plan, "description": changed})


def predict(header: ModelHeader, execution: Execution, source: Path, out: Path, **options: Any) -> list[str]:
    """Predict all series of a folder; gives the files that are there then."""
    predictor = Predictor([Levels()], header, execution)
    steps = PostProcessing(largest_foreground=True)
    model = {
        "dataset": header.dataset_name,
        "configuration": "axial",
        "folds": ("0", "1"),
        "files": {"0": {"bytes": 1}},
    }
    cases_module.predict_cases(
        partial(outcomes_here, CasePredictor([predictor], None, steps)),
        Meaning(header.description, header.threshold),
        find_inputs(source, 1, ".nii.gz"),
        out,
        CaseOptions(**options),
        PredictionRecord(model=model | {"postprocessing": steps.model_dump()}),
    )
    return sorted(path.name for path in out.iterdir())


@pytest.fixture
def one(header: ModelHeader) -> ModelHeader:
    codes = {"organ": ["10200004", "SCT", "Liver"]}
    return change(header, metadata={"segment_codes": codes})


@pytest.mark.parametrize("reader", READERS)
def test_the_segmentation_is_that_of_the_image_file(
    one: ModelHeader, execution: Execution, tmp_path: Path, reader: str
) -> None:
    write_slices(tmp_path / "in" / "a", VOLUME, lambda index: (3, 4, -1.0 * index), lambda _: {"PixelSpacing": [1, 1]})
    assert predict(one, execution, tmp_path / "in", tmp_path / "out") == ["a.dcm", "a.nii.gz", "prediction.json"]
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a.nii.gz")))[::-1]
    wanted = np.where(VOLUME >= 20, 7, VOLUME >= 5)
    wanted[7] = 0  # post-processing keeps the largest component
    np.testing.assert_array_equal(values, wanted)
    files = [dcmread(tmp_path / "in" / "a" / f"{index + 1}.dcm") for index in range(len(VOLUME))]
    sources = [
        Source(str(each.SOPInstanceUID), None, tuple(map(float, each.ImagePositionPatient)), numbers)
        for each, numbers in zip(files, VOLUME, strict=True)
    ]
    read = READERS[reader](tmp_path / "out" / "a.dcm", sources)
    assert read.labels == {1: "organ", 2: "lesion"}
    assert read.types[1] == ("10200004", "SCT", "Liver")
    np.testing.assert_array_equal(read.masks[1], wanted == 1)
    np.testing.assert_array_equal(read.masks[2], wanted == 7)


def test_the_file_says_which_model_made_it(one: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    write_slices(tmp_path / "in", VOLUME)
    predict(one, execution, tmp_path / "in", tmp_path / "out", dicom_seg="labelmap")
    found = dcmread(tmp_path / "out" / "in.dcm")
    assert found.SegmentationType == "LABELMAP"
    assert [each.SegmentNumber for each in found.SegmentSequence] == [0, 1, 7]
    assert found.SeriesDescription == "seg25d Dataset001_Test axial"
    (algorithm,) = found.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence
    said = algorithm.AlgorithmParameters
    assert 'folds=["0", "1"]' in said
    assert "largest_foreground" in said
    assert "bytes" not in said


def test_a_case_is_done_when_both_files_are_there(one: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    for name in "ab":
        write_slices(tmp_path / "in" / name, VOLUME)
    out = tmp_path / "out"
    assert predict(one, execution, tmp_path / "in", out, dicom_seg="none") == [
        "a.nii.gz",
        "b.nii.gz",
        "prediction.json",
    ]
    predict(one, execution, tmp_path / "in", out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {"a.dcm", "b.dcm"} < set(stamps)
    (out / "b.dcm").unlink()
    predict(one, execution, tmp_path / "in", out)
    again = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {name for name in stamps if again[name] == stamps[name]} == {"a.nii.gz", "a.dcm"}


def test_a_segmentation_of_an_earlier_prediction_is_named(
    one: ModelHeader, execution: Execution, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_slices(tmp_path / "in" / "a", VOLUME)
    predict(one, execution, tmp_path / "in", tmp_path / "out")
    assert "earlier" not in caplog.text
    predict(one, execution, tmp_path / "in", tmp_path / "out", dicom_seg="none", overwrite=True)
    assert "a.dcm is of an earlier prediction" in caplog.text


def test_foreign_segmentations_stay(one: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    write_slices(tmp_path / "in" / "a", VOLUME)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.dcm").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds a and no prediction\.json"):
        predict(one, execution, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "a.dcm").read_bytes() == b"mine"


def test_predictions_below_the_input_are_no_series(one: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    write_slices(tmp_path / "in" / "a", VOLUME)
    for _ in range(2):
        found = predict(one, execution, tmp_path / "in", tmp_path / "in" / "out")
        assert found == ["a.dcm", "a.nii.gz", "prediction.json"]


def test_segmentations_never_lie_among_slices(one: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    write_slices(tmp_path / "in", VOLUME)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="choose another output folder, or --dicom-seg none"):
        predict(one, execution, tmp_path / "in", tmp_path / "in")
    assert sorted(tmp_path.rglob("*")) == before
    assert "in.nii.gz" in predict(one, execution, tmp_path / "in", tmp_path / "in", dicom_seg="none")


def test_without_the_package_a_line_says_how_to_get_it(
    one: ModelHeader,
    execution: Execution,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(dicom_segmentation, "is_installed", lambda: False)
    write_slices(tmp_path / "in" / "a", VOLUME)
    with pytest.raises(InputError, match="need highdicom, which is not installed"):
        predict(one, execution, tmp_path / "in", tmp_path / "out", dicom_seg="binary")
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.INFO, "seg25d"):
        assert predict(one, execution, tmp_path / "in", tmp_path / "out") == ["a.nii.gz", "prediction.json"]
    assert "they need `pip install 'seg25d[dicom]'`" in caplog.text


def test_overlapping_regions(header: ModelHeader, execution: Execution, tmp_path: Path) -> None:
    labels = Labels(names={"background": 0, "whole": (1, 2), "outer": 1, "core": 2}, regions_class_order=(1, 1, 2))
    regions = change(header, labels=labels)
    write_slices(tmp_path / "in" / "a", VOLUME)
    with pytest.raises(InputError, match=r"the regions whole, outer, core overlap"):
        predict(regions, execution, tmp_path / "in", tmp_path / "out", dicom_seg="labelmap")
    predict(regions, execution, tmp_path / "in", tmp_path / "out")
    found = dcmread(tmp_path / "out" / "a.dcm")
    assert [each.SegmentLabel for each in found.SegmentSequence] == ["whole", "outer", "core"]


def test_other_images_have_none(
    one: ModelHeader, execution: Execution, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(tmp_path / "in" / "a_0000.nii.gz"))
    assert predict(one, execution, tmp_path / "in", tmp_path / "out") == ["a.nii.gz", "prediction.json"]
    assert "dicom-seg" not in caplog.text
    predict(one, execution, tmp_path / "in", tmp_path / "out2", dicom_seg="labelmap")
    assert "--dicom-seg labelmap has no effect, as no case is a DICOM series" in caplog.text
