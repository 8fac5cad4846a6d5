"""DICOM segmentations of series of many kinds, voxel for voxel by three readers."""

import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray
from pydicom import dcmread

from seg25d import __version__
from seg25d.core.errors import ImageError, InputError
from seg25d.data import dicom_segmentation
from seg25d.data.dicom_segmentation import SegmentationContents, check_kind, segments_of, write_segmentation
from seg25d.data.image_dicom import read_dicom
from seg25d.data.labels import Labels
from seg25d.data.segment_codes import segment_codes
from tests.data.dicom_files import SPACING, slice_dataset
from tests.data.dicom_readers import READERS, by_viewer, read_by_dcmjs
from tests.data.dicom_sources import ROUNDED, SERIES_OF, Source, labels_of, scrambled

pytest.importorskip("highdicom", reason="pip install 'seg25d[dicom]'")

LIVER, NEOPLASM = ["10200004", "SCT", "Liver"], ["108369006", "SCT", "Neoplasm"]
CLASSES = Labels(names={"background": 0, "Leber, größte": 1, "tumour": 2, "nothing": 3})
CODES, _ = segment_codes({"Leber, größte": LIVER, "tumour": {"type": NEOPLASM, "region": LIVER}}, CLASSES.names)
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def write(path: Path, folder: Path, labels: Labels = CLASSES, kind: Any = "binary", **contents: Any) -> NDArray[Any]:
    """Segment a series by the numbers of its slices."""
    array, geometry = read_dicom(folder)
    indices = np.stack([labels_of(numbers) for numbers in array])
    values = labels.decode(indices)
    said = SegmentationContents(kind=kind, labels=labels, model="Dataset004_Hippocampus axial", **contents)
    write_segmentation(path, geometry.to_canonical(values), geometry, folder, said)
    return values


def expected(sources: list[Source]) -> NDArray[np.uint8]:
    return np.stack([labels_of(source.numbers) for source in sources])


class Written(NamedTuple):
    path: Path
    sources: list[Source]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Written]:
    """Segmentations of series by their names and kinds, each written once."""

    @cache
    def make(series: str, kind: Any) -> Written:
        folder = tmp_path_factory.mktemp("series")
        sources = SERIES_OF[series](folder / "case")
        before = {path.name: path.read_bytes() for path in (folder / "case").iterdir()}
        write(folder / "out" / "case.dcm", folder / "case", kind=kind, codes=CODES)
        assert before == {path.name: path.read_bytes() for path in (folder / "case").iterdir()}
        assert [path.name for path in (folder / "out").iterdir()] == ["case.dcm"]
        return Written(folder / "out" / "case.dcm", sources)

    return make


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("series", SERIES_OF)
def test_every_reader_finds_each_voxel_in_its_frame(
    written: Callable[[str, Any], Written], series: str, kind: str, reader: str
) -> None:
    path, sources = written(series, kind)
    read = READERS[reader](path, sources)
    wanted = expected(sources)
    assert list(read.masks) == [1, 2, 3]
    for number, mask in read.masks.items():
        np.testing.assert_array_equal(mask, wanted == number)
    assert read.masks[1].any()
    assert read.labels == {1: "Leber, größte", 2: "tumour", 3: "nothing"}
    assert read.types == {1: tuple(LIVER), 2: tuple(NEOPLASM), 3: ("85756007", "SCT", "Tissue")}
    if series not in ("JPEG", "JPEG 2000", "no patient", "odd attributes"):
        assert read.patient == "Muster^Jörg"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_every_reader_finds_each_voxel_of_a_real_series(
    shared_data: Path, tmp_path: Path, kind: Any, reader: str
) -> None:
    folder = shared_data / "robustness" / "dicom" / "hippocampus_crop"
    values = write(tmp_path / "case.dcm", folder, kind=kind)
    headers = sorted(map(dcmread, folder.iterdir()), key=lambda header: float(header.ImagePositionPatient[2]))
    sources = [
        Source(str(header.SOPInstanceUID), None, tuple(header.ImagePositionPatient), header.pixel_array)
        for header in headers
    ]
    read = READERS[reader](tmp_path / "case.dcm", sources)
    np.testing.assert_array_equal(values, expected(sources))
    for number in (1, 2):
        np.testing.assert_array_equal(read.masks[number], values == number)
        assert read.masks[number].any()


@pytest.mark.parametrize("series", SERIES_OF)
def test_web_viewers_lay_it_over_the_series(written: Callable[[str, Any], Written], series: str) -> None:
    path, sources = written(series, "binary")
    read = by_viewer(path, sources, *header_of(path.parents[1] / "case"))
    for number in (1, 2):
        np.testing.assert_array_equal(read.masks[number], expected(sources) == number)
    assert not read.masks[3].any()


def header_of(folder: Path) -> tuple[Any, str]:
    """Orientation and series of a folder."""
    header = dcmread(min(folder.iterdir()), force=True)
    groups = header.get("SharedFunctionalGroupsSequence")
    plane = groups[0].PlaneOrientationSequence[0] if groups else header
    return plane.ImageOrientationPatient, str(header.SeriesInstanceUID)


def test_web_viewers_know_overlapping_regions(tmp_path: Path) -> None:
    sources = SERIES_OF["oblique"](tmp_path / "case")
    write(tmp_path / "a.dcm", tmp_path / "case", REGIONS)
    read = by_viewer(tmp_path / "a.dcm", sources, *header_of(tmp_path / "case"))
    np.testing.assert_array_equal(read.masks[1], expected(sources) > 0)
    np.testing.assert_array_equal(read.masks[2], expected(sources) == 2)


@pytest.mark.parametrize("series", SERIES_OF)
def test_what_the_file_says_is_what_the_series_says(written: Callable[[str, Any], Written], series: str) -> None:
    path, sources = written(series, "binary")
    found, (first, *_) = dcmread(path), sorted((path.parents[1] / "case").iterdir())
    source = dcmread(first, force=True)
    for name in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        wanted = source.get(name, "")
        if series == "odd attributes" and name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            wanted = ""
        assert str(found[name].value or "") == str(wanted)
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    if "FrameOfReferenceUID" in source and not series.startswith("a frame"):
        assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.FrameOfReferenceUID
    (referred,) = found.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID
    instances = [str(item.ReferencedSOPInstanceUID) for item in referred.ReferencedInstanceSequence]
    assert sorted(instances) == sorted({source.instance for source in sources})
    kinds = {str(item.ReferencedSOPClassUID) for item in referred.ReferencedInstanceSequence}
    assert kinds == {str(source.SOPClassUID)}
    assert (found.Rows, found.Columns) == (source.Rows, source.Columns)
    assert found.Modality == "SEG"
    assert found.SeriesDescription == "seg25d Dataset004_Hippocampus axial"
    assert found.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert found.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == __version__


def test_orientation_and_spacing_are_those_of_the_header(written: Callable[[str, Any], Written]) -> None:
    found = dcmread(written("rounded cosines", "binary").path)
    (shared,) = found.SharedFunctionalGroupsSequence
    assert list(map(float, shared.PlaneOrientationSequence[0].ImageOrientationPatient)) == ROUNDED
    (measures,) = shared.PixelMeasuresSequence
    assert list(map(float, measures.PixelSpacing)) == list(SPACING)
    assert float(measures.SliceThickness) == 2.0
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5, abs=0.01)


def test_the_volume_of_highdicom_lies_where_simpleitk_puts_the_series(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="pip install 'seg25d[dicom]'")
    SERIES_OF["oblique"](tmp_path / "case")
    values = write(tmp_path / "a.dcm", tmp_path / "case")
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "case")))
    volume = highdicom.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    for place in np.argwhere(volume.array > 0)[::5]:
        point = volume.affine @ [*place, 1]
        x, y, z = image.TransformPhysicalPointToIndex(point[:3].tolist())
        assert values[z, y, x] == volume.array[tuple(place)]
    assert (volume.array > 0).sum() == (values > 0).sum()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_single_segment(tmp_path: Path, kind: str, reader: str) -> None:
    sources = SERIES_OF["regular"](tmp_path / "case")
    array, geometry = read_dicom(tmp_path / "case")
    values = np.stack([labels_of(numbers) == 1 for numbers in array]).astype(np.uint8)
    said = SegmentationContents(kind=kind, labels=Labels(names={"background": 0, "one": 1}), model="x")
    write_segmentation(tmp_path / "a.dcm", geometry.to_canonical(values), geometry, tmp_path / "case", said)
    read = READERS[reader](tmp_path / "a.dcm", sources)
    assert list(read.masks) == [1]
    np.testing.assert_array_equal(read.masks[1], expected(sources) == 1)
    groups = dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence
    assert kind == "labelmap" or all("SegmentIdentificationSequence" in group for group in groups)


@pytest.mark.parametrize("reader", READERS)
def test_overlapping_regions_are_a_segment_each(tmp_path: Path, reader: str) -> None:
    sources = SERIES_OF["regular"](tmp_path / "case")
    write(tmp_path / "a.dcm", tmp_path / "case", REGIONS)
    read = READERS[reader](tmp_path / "a.dcm", sources)
    assert read.labels == {1: "whole", 2: "core"}
    np.testing.assert_array_equal(read.masks[1], expected(sources) > 0)
    np.testing.assert_array_equal(read.masks[2], expected(sources) == 2)
    assert dcmread(tmp_path / "a.dcm").SegmentsOverlap == "YES"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("kind", "late", "numbers"), [("binary", 70, (1, 2)), ("labelmap", 70, (3, 70)), ("labelmap", 700, (1, 2))]
)
def test_numbers_with_gaps(tmp_path: Path, kind: str, late: int, numbers: tuple[int, ...], reader: str) -> None:
    labels = Labels(names={"late": late, "background": 0, "early": 3, "ignore": 1000})
    sources = SERIES_OF["regular"](tmp_path / "case")
    write(tmp_path / "a.dcm", tmp_path / "case", labels, kind)
    read = READERS[reader](tmp_path / "a.dcm", sources)
    assert read.labels == dict(zip(numbers, ("early", "late"), strict=True))
    for index, number in enumerate(numbers, 1):
        np.testing.assert_array_equal(read.masks[number], expected(sources) == index)
    described = {
        each.SegmentNumber: each.get("SegmentDescription") for each in dcmread(tmp_path / "a.dcm").SegmentSequence
    }
    assert described[numbers[1]] == f"value {late} of the label file"


def test_regions_apart_can_be_a_label_map(tmp_path: Path) -> None:
    labels = Labels(names={"background": 0, "both": (2, 5), "other": 9}, regions_class_order=(2, 9))
    check_kind("labelmap", labels)
    assert [segment.number for segment in segments_of(labels, "labelmap")] == [1, 2]
    with pytest.raises(InputError, match=r"the regions whole, core overlap, .*; use --dicom-seg binary"):
        check_kind("labelmap", REGIONS)


@pytest.mark.parametrize("reader", ["pydicom", "dcmjs"])
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_nothing_found_is_a_segmentation_too(tmp_path: Path, labels: Labels, kind: Any, reader: str) -> None:
    if labels is REGIONS and kind == "labelmap":
        return
    sources = SERIES_OF["regular"](tmp_path / "case")
    array, geometry = read_dicom(tmp_path / "case")
    said = SegmentationContents(kind=kind, labels=labels, model="x")
    nothing = geometry.to_canonical(np.zeros(array.shape, np.uint8))
    write_segmentation(tmp_path / "a.dcm", nothing, geometry, tmp_path / "case", said)
    read = READERS[reader](tmp_path / "a.dcm", sources)
    assert list(read.labels.values()) == [name for name in labels.names if name != "background"]
    assert not any(mask.any() for mask in read.masks.values())


def test_series_without_uids_are_not_referred_to(tmp_path: Path) -> None:
    attributes = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"))
    for index, numbers in enumerate(scrambled()):
        dataset = slice_dataset(numbers, (0, 0, 2.0 * index), index + 1, **attributes)
        del dataset.SOPInstanceUID
        dataset.save_as(make_parent(tmp_path / "case" / f"{index}.dcm"), enforce_file_format=True)
    values = write(tmp_path / "a.dcm", tmp_path / "case", kind="labelmap")
    found = dcmread(tmp_path / "a.dcm")
    assert "ReferencedSeriesSequence" not in found
    assert found.StudyInstanceUID
    places = [
        group.PlanePositionSequence[0].ImagePositionPatient[2] for group in found.PerFrameFunctionalGroupsSequence
    ]
    for place, voxels in zip(places, found.pixel_array, strict=True):
        np.testing.assert_array_equal(voxels, values[round(place / 2)])
    assert all(not group.DerivationImageSequence for group in found.PerFrameFunctionalGroupsSequence)


def make_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("name", ["Tumour 腫瘍", "x" * 90, "a\\b"])
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    SERIES_OF["regular"](tmp_path / "case")
    write(tmp_path / "a.dcm", tmp_path / "case", Labels(names={"background": 0, name: 1, "other": 2}))
    assert dcmread(tmp_path / "a.dcm").SegmentSequence[0].SegmentLabel == name.replace("\\", "/")[:64]


def test_codes_say_category_modifier_and_region(tmp_path: Path) -> None:
    left, organ = ["7771000", "SCT", "Left"], ["91723000", "SCT", "Anatomical Structure"]
    said = {
        "tumour": {"type": NEOPLASM, "modifier": left, "region": LIVER},
        "nothing": {"type": LIVER, "category": organ},
    }
    codes, problems = segment_codes(said, CLASSES.names)
    assert not problems
    SERIES_OF["regular"](tmp_path / "case")
    write(tmp_path / "a.dcm", tmp_path / "case", codes=codes)
    _, tumour, nothing = dcmread(tmp_path / "a.dcm").SegmentSequence
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    (kind,) = tumour.SegmentedPropertyTypeCodeSequence
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == left[0]
    assert tumour.AnatomicRegionSequence[0].CodeValue == LIVER[0]
    assert nothing.SegmentedPropertyCategoryCodeSequence[0].CodeValue == organ[0]


def test_a_series_that_changed_meanwhile_is_named(tmp_path: Path) -> None:
    SERIES_OF["regular"](tmp_path / "case")
    array, geometry = read_dicom(tmp_path / "case")
    (tmp_path / "case" / "5.dcm").unlink()
    said = SegmentationContents(kind="binary", labels=CLASSES, model="x")
    with pytest.raises(ImageError, match="another one than when it was read: shape 5 x 7 x 6 against 4 x 7 x 6"):
        write_segmentation(tmp_path / "a.dcm", geometry.to_canonical(array), geometry, tmp_path / "case", said)
    assert not (tmp_path / "a.dcm").exists()


def test_segmentations_beside_slices_are_left_out(tmp_path: Path) -> None:
    SERIES_OF["regular"](tmp_path / "case")
    before, _ = read_dicom(tmp_path / "case")
    write(tmp_path / "case" / "seg.dcm", tmp_path / "case")
    np.testing.assert_array_equal(read_dicom(tmp_path / "case")[0], before)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_segmentation, "is_installed", lambda: False)
    with pytest.raises(
        InputError, match=r"need highdicom, which is not installed; run `pip install 'seg25d\[dicom\]'`"
    ):
        check_kind("binary", CLASSES)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_dcmjs_knows_kind_and_overlap(written: Callable[[str, Any], Written], kind: str) -> None:
    found = read_by_dcmjs(written("enhanced", kind).path)
    assert found["kind"] == kind.upper()
    assert found["sop_class"] == {"binary": "1.2.840.10008.5.1.4.1.1.66.4"}.get(kind, "1.2.840.10008.5.1.4.1.1.66.7")
    assert found["overlap"] == "NO"
    assert found["segments"][-3]["category"] == ["91723000", "SCT", "Anatomical Structure"]


def test_masks_of_overlapping_regions_that_memory_has_no_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    array, contents = np.ones((2, 3, 4), np.uint8), SegmentationContents(kind="binary", labels=REGIONS, model="x")
    for free, fits in ((24 * 12.5, True), (24 * 12.5 - 1, False)):
        monkeypatch.setattr("seg25d.core.memory.available_memory_bytes", lambda free=free: free)
        if fits:
            assert dicom_segmentation._pixels(array, contents).shape == (2, 3, 4, 2)
        else:
            with pytest.raises(InputError, match=r"2 regions that overlap: 2 x 3 x 4 .*; .* --dicom-seg none"):
                dicom_segmentation._pixels(array, contents)
    classes = contents.model_copy(update={"labels": CLASSES})
    assert dicom_segmentation._pixels(array, classes).shape == (2, 3, 4)


def test_masks_of_overlapping_regions_are_there_once() -> None:
    names = {"background": 0, **{f"region {number}": tuple(range(number, 21)) for number in range(1, 21)}}
    labels = Labels(names=names, regions_class_order=tuple(range(1, 21)))
    array = np.tile(np.arange(20, dtype=np.uint8), (16, 64, 4))
    tracemalloc.start()
    try:
        masks = dicom_segmentation._pixels(array, SegmentationContents(kind="binary", labels=labels, model="x"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert masks.nbytes == 20 * array.size
    assert peak < 1.5 * masks.nbytes
    for number in range(1, 21):
        np.testing.assert_array_equal(masks[..., number - 1], array >= number)
