"""Three readers of DICOM segmentations that know nothing of each other: highdicom, pydicom alone, and dcmjs."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from tests.data.dicom_sources import Source

ROOT = Path(__file__).parents[2]
DCMJS = ROOT / "build" / "dcmjs" / "node_modules"
INSTALL = "npm install --prefix build/dcmjs dcmjs@0.51.1"


class Read(NamedTuple):
    """What a reader finds in a segmentation."""

    masks: dict[int, NDArray[np.bool_]]
    """For each segment, by its number, its voxels (frames of the series, rows, columns)."""
    labels: dict[int, str]
    types: dict[int, tuple[str, ...]]
    study: str
    patient: str


def by_highdicom(path: Path, sources: Sequence[Source]) -> Read:
    highdicom = pytest.importorskip("highdicom", reason="pip install 'seg25d[dicom]'")
    segmentation = highdicom.seg.segread(path)
    numbers = [number for number in segmentation.segment_numbers if number > 0]
    options: dict[str, Any] = {"segment_numbers": numbers, "assert_missing_frames_are_empty": True}
    arrays = []
    for source in sources:
        if source.frame is None:
            array = segmentation.get_pixels_by_source_instance([source.instance], **options)
        else:
            array = segmentation.get_pixels_by_source_frame(source.instance, [source.frame], **options)
        arrays.append(array[0])
    stacked = np.stack(arrays) > 0
    described = [segmentation.get_segment_description(number) for number in numbers]
    return Read(
        {number: stacked[..., place] for place, number in enumerate(numbers)},
        {each.segment_number: each.segment_label for each in described},
        {each.segment_number: tuple(_triple(each.segmented_property_type)) for each in described},
        str(segmentation.StudyInstanceUID),
        str(segmentation.PatientName),
    )


def _triple(code: Any) -> list[str]:
    return [code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning]


def by_pydicom(path: Path, sources: Sequence[Source]) -> Read:
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = []
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for own, voxels in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        (item,) = own.DerivationImageSequence[0].SourceImageSequence
        identification = own.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
        frames.append(
            {
                "segment": identification[0].ReferencedSegmentNumber if identification else None,
                "position": own.PlanePositionSequence[0].ImagePositionPatient,
                "instance": item.ReferencedSOPInstanceUID,
                "frame": item.get("ReferencedFrameNumber"),
                "voxels": voxels,
            }
        )
    segments = [
        {
            "number": each.SegmentNumber,
            "label": each.SegmentLabel,
            "type": _triple(each.SegmentedPropertyTypeCodeSequence[0]),
        }
        for each in dataset.SegmentSequence
    ]
    return _collect(frames, segments, sources, str(dataset.StudyInstanceUID), str(dataset.PatientName))


def by_dcmjs(path: Path, sources: Sequence[Source]) -> Read:
    found = read_by_dcmjs(path)
    for frame in found["frames"]:
        frame["voxels"] = np.array(frame["voxels"]).reshape(found["shape"])
    return _collect(found["frames"], found["segments"], sources, found["study"], found["patient"])


def read_by_dcmjs(path: Path) -> dict[str, Any]:
    return _by_node("dicom_reader.mjs", path)


def by_viewer(path: Path, sources: Sequence[Source], orientation: Sequence[float], series: str) -> Read:
    """A binary segmentation as dcmjs brings it to the label maps of web viewers."""
    shape = sources[0].numbers.shape
    common = {"orientation": list(map(float, orientation)), "shape": shape, "series": series}
    frames = [{"instance": source.instance, "frame": source.frame} | common for source in sources]
    described = path.with_suffix(".json")
    described.write_text(json.dumps(frames))
    found = _by_node("dicom_viewer.mjs", path, described)
    maps = np.array(found["maps"]).reshape(-1, len(sources), *shape)
    labels = {int(number): label for number, label in found["described"]}
    return Read({number: (maps == number).any(axis=0) for number in labels}, labels, {}, found["series"], "")


def _by_node(script: str, *arguments: Path) -> dict[str, Any]:
    node = shutil.which("node")
    if node is None or not (DCMJS / "dcmjs").is_dir():
        pytest.skip(f"needs node, and dcmjs: {INSTALL}")
    command = [node, str(Path(__file__).with_name(script)), str(DCMJS.parent), *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def _collect(
    frames: Sequence[dict[str, Any]], segments: Sequence[dict[str, Any]], sources: Sequence[Source], *named: str
) -> Read:
    """Bring each frame to the frame of the series that it refers to, whose place it must have."""
    numbers = [each["number"] for each in segments if each["number"] > 0]
    masks = {number: np.zeros((len(sources), *sources[0].numbers.shape), np.bool_) for number in numbers}
    places = {(source.instance, source.frame): place for place, source in enumerate(sources)}
    for frame in frames:
        key = (frame["instance"], None if frame["frame"] is None else int(frame["frame"]))
        place = places[key]
        assert np.allclose(frame["position"], sources[place].position, rtol=0, atol=1e-9)
        for number in numbers if frame["segment"] is None else [frame["segment"]]:
            masks[number][place] |= frame["voxels"] == (number if frame["segment"] is None else 1)
    return Read(
        masks,
        {each["number"]: each["label"] for each in segments if each["number"] > 0},
        {each["number"]: tuple(each["type"]) for each in segments if each["number"] > 0},
        *named,
    )


READERS = {"highdicom": by_highdicom, "pydicom": by_pydicom, "dcmjs": by_dcmjs}
