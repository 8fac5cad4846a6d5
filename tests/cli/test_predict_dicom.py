"""`seg25d predict` of DICOM series with an exported model: both files, and codes that were added after training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from pydicom import dcmread

from seg25d.cli.main import COMMANDS
from tests.data.dicom_files import write_slices

pytest.importorskip("highdicom", reason="pip install 'seg25d[dicom]'")
LIVER = ["10200004", "SCT", "Liver"]


def run(root: Path, verb: str, *words: object) -> int:
    return COMMANDS[verb]([*map(str, words), "--workspace", str(root), "--quiet"])


@pytest.mark.slow
def test_an_archive_knows_the_codes(trained_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(trained_once, root)
    (path,) = root.glob("results/*/si/dataset.json")
    said = json.loads(path.read_text())
    name = next(name for name, value in said["labels"].items() if value == 1)
    path.write_text(json.dumps(said | {"segment_codes": {name: LIVER}}))
    assert not run(root, "export_model", "900", "-c", "si", "-o", tmp_path / "a.zip")
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 1000, (8, 32, 32)).astype(np.int16)
    for number in (0, 1):
        folder = tmp_path / "in" / f"case_{number:04d}"
        attributes = {"SeriesInstanceUID": f"1.2.3.{number}"}
        write_slices(folder, volume + number, lambda index: (0, 0, -3.0 * index), lambda _: attributes)  # noqa: B023
    words = ("-i", tmp_path / "in", "-o", tmp_path / "out", "-m", tmp_path / "a.zip", "--device", "cpu")
    assert not run(tmp_path / "elsewhere", "predict", *words)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case.dcm", "case.nii.gz", "prediction.json"]
    found = dcmread(tmp_path / "out" / "case.dcm")
    assert found.SegmentSequence[0].SegmentLabel == name
    assert found.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == LIVER[0]
    predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz")))
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.0"
    written: dict[int, int] = {}
    pixels = found.pixel_array.reshape(-1, 32, 32)
    for group, voxels in zip(found.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        groups = group if "SegmentIdentificationSequence" in group else found.SharedFunctionalGroupsSequence[0]
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = round((group.PlanePositionSequence[0].ImagePositionPatient[2] + 21) / 3)
        np.testing.assert_array_equal(voxels, predicted[place] == number)
        written[number] = written.get(number, 0) + int(voxels.sum())
    assert sum(written.values()) == int((predicted > 0).sum())

    path.write_text(json.dumps(said | {"segment_codes": {name: ["10200005", "SCT", "Liver"]}}))
    assert run(root, "predict", "-i", tmp_path / "in", "-o", tmp_path / "out2", "-d", "900", "-c", "si") == 2
    assert "no concept of SNOMED CT" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()
