"""Numbers of DICOM images, against SimpleITK and against calculations by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from seg25d.core.errors import ImageError
from seg25d.data.dicom_series import find_volumes
from seg25d.data.image_dicom import read_dicom, read_dicom_geometry, read_volume
from tests.data.dicom_files import ramp, save, slice_dataset, write_by_simpleitk, write_slices

OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]


def read_by_simpleitk(folder: Path) -> sitk.Image:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(names if len(names) > 1 else names[0])


def assert_read_as_simpleitk_does(folder: Path) -> None:
    array, geometry = read_dicom(folder)
    image = read_by_simpleitk(folder)
    assert np.allclose(array, sitk.GetArrayFromImage(image), rtol=1e-6)
    assert np.allclose(geometry.spacing_mm[::-1], image.GetSpacing(), rtol=1e-6)
    assert np.allclose(geometry.origin_mm, image.GetOrigin(), atol=1e-6)
    assert np.allclose(geometry.direction, image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], OBLIQUE])
def test_series_are_read_as_simpleitk_reads_them(tmp_path: Path, dtype: Any, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    folder = write_slices(
        tmp_path,
        ramp().astype(dtype),
        lambda index: np.array([-10.25, 3.5, 70]) + 2.5 * index * normal,
        lambda _: {"ImageOrientationPatient": orientation, "RescaleSlope": 2, "RescaleIntercept": -1024},
        lambda index: f"{(index * 5) % 7}.dcm",
    )
    assert_read_as_simpleitk_does(folder)
    assert read_dicom(folder)[0].dtype == np.int16


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", None])
def test_one_file_of_several_frames(tmp_path: Path, compressor: str | None) -> None:
    image = sitk.GetImageFromArray(ramp(4, (16, 15)).astype(np.uint16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-3, 4, 5))
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    if compressor is not None:
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
    writer.Execute(image)
    assert_read_as_simpleitk_does(tmp_path)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_slices_have_their_own_slopes(tmp_path: Path, compressor: str) -> None:
    volume = ramp(3, (16, 15))
    for index, numbers in enumerate(volume):
        tags = {"0008|0060": "MR", "0020|0013": str(index)}
        write_by_simpleitk(tmp_path / f"{index}.dcm", numbers, 3 * index, compressor, tags)
    assert_read_as_simpleitk_does(tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings(tmp_path: Path, syntax: str) -> None:
    for index, numbers in enumerate(ramp()):
        swapped = numbers.astype(">i2") if syntax == ExplicitVRBigEndian else numbers
        dataset = slice_dataset(swapped, (0, 0, 2.0 * index), PixelRepresentation=1)
        dataset.file_meta.TransferSyntaxUID = syntax
        save(dataset, tmp_path / f"{index}.dcm")
    assert np.array_equal(read_dicom(tmp_path)[0], ramp())


def test_run_length_encoding(tmp_path: Path) -> None:
    for index, numbers in enumerate(ramp()):
        dataset = slice_dataset(numbers, (0, 0, 2.0 * index))
        dataset.compress(RLELossless)
        save(dataset, tmp_path / f"{index}.dcm")
    assert np.array_equal(read_dicom(tmp_path)[0], ramp())
    whole = (tmp_path / "2.dcm").read_bytes()
    (tmp_path / "2.dcm").write_bytes(whole[:-30])
    with pytest.raises(ImageError, match=r"2\.dcm: the DICOM file ends before its image"):
        read_dicom(tmp_path)


def test_compressed_files_cannot_announce_any_size(tmp_path: Path) -> None:
    dataset = slice_dataset(ramp()[0], (0, 0, 0))
    dataset.compress(RLELossless)
    dataset.Rows = dataset.Columns = 40000
    save(dataset, tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="announces 3200000000 bytes of image"):
        read_dicom(tmp_path)


def test_slopes_of_slices_are_real_numbers(tmp_path: Path) -> None:
    """The first slope is a whole number, as that of empty slices is."""
    slopes = [1, 0.0013, 0.5, 2]
    folder = write_slices(tmp_path, ramp(4), attributes=lambda index: {"RescaleSlope": slopes[index]})
    array, _ = read_dicom(folder)
    assert array.dtype == np.float32
    assert np.allclose(array, ramp(4) * np.array(slopes)[:, None, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PixelSpacing": ["1e300", "1e300"]}, r"the spacing is 2 x 1e\+300 x 1e\+300 mm \(z, y, x\), expected is"),
        ({"PixelSpacing": ["1e-30", "1e-30"]}, "the spacing is 2 x 1e-30 x 1e-30 mm"),
        ({"RescaleSlope": "1e300"}, r"become too large by Rescale Slope 1e\+300 and Intercept 0; correct its header"),
    ],
)
def test_absurd_sizes_and_slopes_are_refused(tmp_path: Path, attributes: dict[str, Any], words: str) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda _: attributes)
    with pytest.raises(ImageError, match=words):
        read_dicom(folder)


@pytest.mark.parametrize("step", [1e8, 1e300])
def test_slices_that_lie_absurdly_far_apart_are_refused(tmp_path: Path, step: float) -> None:
    folder = write_slices(tmp_path, ramp(3), lambda index: (0, 0, step * index))
    with pytest.raises(ImageError, match="the spacing is"):
        read_dicom_geometry(folder)


def test_millions_of_frames_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    """Each frame has one voxel of one bit, so that a small file can have as many."""
    numbers = np.zeros((1, 1), np.uint8)
    dataset = slice_dataset(numbers, (0, 0, 0), NumberOfFrames=8_000_000, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = bytes(1_000_000)
    save(dataset, tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="the file has 8000000 frames, expected are at most 65536"):
        find_volumes(tmp_path)


def test_bits_that_are_not_stored_do_not_count(tmp_path: Path) -> None:
    """Old scanners put overlays into the bits above the stored ones."""
    wanted = np.array([[0, 1, 2047], [4095, 100, 7]], np.uint16)
    own = {"BitsStored": 12, "HighBit": 11, "SliceThickness": 3.0}
    save(slice_dataset(wanted | np.uint16(0xA000), (0, 0, 0), **own), tmp_path / "a" / "a.dcm")
    assert np.array_equal(read_dicom(tmp_path / "a")[0][0], wanted)
    signed = np.array([[0, 1, -1], [-2048, 2047, 7]], np.int16)
    stored = (signed.view(np.uint16) & np.uint16(0x0FFF)).view(np.int16)
    save(slice_dataset(stored, (0, 0, 0), **own), tmp_path / "b" / "a.dcm")
    assert np.array_equal(read_dicom(tmp_path / "b")[0][0], signed)


def test_numbers_that_need_more_than_16_bits(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda _: {"RescaleSlope": 1000, "RescaleIntercept": -5})
    array, _ = read_dicom(folder)
    assert array.dtype == np.int32
    assert np.array_equal(array, ramp().astype(np.int32) * 1000 - 5)


# 70 kg, 400 MBq, a half-life of 6586.2 s (fluorine 18), injected at 10:00:00, scanned from 11:00:00 on.
TRACER = {
    "RadiopharmaceuticalStartTime": "100000",
    "RadionuclideTotalDose": 400e6,
    "RadionuclideHalfLife": 6586.2,
}
PET = {
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "DECAY"],
    "DecayCorrection": "START",
    "PatientWeight": 70.0,
    "SeriesDate": "20240131",
    "SeriesTime": "110000",
    "AcquisitionDate": "20240131",
    "AcquisitionTime": "110000.00",
}
FACTOR = 70e3 / (400e6 * 0.5 ** (3600 / 6586.2))
"""2.557e-4 per Bq/ml."""


def uptake(folder: Path, tracer: dict[str, Any] | None = None, **attributes: Any) -> float:
    """What a voxel of 4000 Bq/ml becomes."""
    from pydicom import Dataset  # noqa: PLC0415 - only here

    sequence = Dataset()
    for name, value in (TRACER | (tracer or {})).items():
        if value is not None:
            setattr(sequence, name, value)
    own = PET | {"RadiopharmaceuticalInformationSequence": [sequence]} | attributes
    volume = np.full((3, 5, 4), 2000, np.int16)
    write_slices(folder, volume, attributes=lambda index: {**own, "RescaleSlope": 2.0 if index else 1.0})
    (found,) = find_volumes(folder)
    array, _ = read_volume(found, suv=True)
    assert array.dtype == np.float32
    assert array[0, 0, 0] == pytest.approx(array[1, 0, 0] / 2)
    return float(array[1, 0, 0])


def test_uptake_values(tmp_path: Path) -> None:
    assert pytest.approx(2.5561e-4, rel=1e-4) == FACTOR
    assert uptake(tmp_path / "a") == pytest.approx(4000 * FACTOR)
    moved = {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20240131100000.00+0100"}
    assert uptake(tmp_path / "b", moved) == pytest.approx(4000 * FACTOR)
    late = {
        "SeriesTime": "003000",
        "AcquisitionTime": "003000",
        "SeriesDate": "20240201",
        "AcquisitionDate": "20240201",
    }
    midnight = {"RadiopharmaceuticalStartTime": "233000"}
    assert uptake(tmp_path / "c", midnight, **late) == pytest.approx(4000 * FACTOR)
    assert uptake(tmp_path / "d", DecayCorrection="ADMIN") == pytest.approx(4000 * 70e3 / 400e6)
    # Made later: the first acquisition counts.
    assert uptake(tmp_path / "e", SeriesTime="150000") == pytest.approx(4000 * FACTOR)
    assert uptake(tmp_path / "f", Units="GML") == pytest.approx(4000)


@pytest.mark.parametrize(
    ("tracer", "attributes", "words"),
    [
        ({}, {"PatientWeight": None}, "PatientWeight is missing"),
        ({}, {"PatientWeight": 0}, "PatientWeight is 0"),
        ({"RadionuclideTotalDose": None}, {}, "RadionuclideTotalDose is missing"),
        ({"RadionuclideHalfLife": None}, {}, "RadionuclideHalfLife is missing"),
        ({"RadiopharmaceuticalStartTime": None}, {}, "RadiopharmaceuticalStartTime is missing"),
        ({"RadiopharmaceuticalStartDateTime": "20240130100000"}, {}, "does not follow the injection"),
        ({}, {"CorrectedImage": ["ATTN"]}, "Corrected Image has no DECAY"),
        ({}, {"DecayCorrection": "NONE"}, "Decay Correction is 'NONE'"),
        ({}, {"Units": "PROPCPS"}, "Units are 'PROPCPS'"),
        ({}, {"Units": "CNTS"}, r"factor \(7053,1000\) is missing"),
        ({}, {"Units": "GML", "SUVType": "LBM"}, "by LBM"),
        ({}, {"Modality": "CT"}, "the modality is 'CT'"),
        ({"RadionuclideHalfLife": 1e-9}, {}, "nothing is left of the dose, as RadionuclideHalfLife is 1e-09 s"),
        ({"RadionuclideTotalDose": 1e-305}, {}, "the factor that its attributes give is inf"),
        ({}, {"AcquisitionTime": None}, "Acquisition Date and Time are missing"),
    ],
)
def test_uptake_values_need_complete_headers(
    tmp_path: Path, tracer: dict[str, Any], attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        uptake(tmp_path, tracer, **attributes)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", None])
def test_numbers_are_those_that_are_stored_whatever_is_meant_to_be_dark(tmp_path: Path, compressor: str | None) -> None:
    for index, numbers in enumerate(ramp(3, (16, 15)).astype(np.uint16)):
        write_by_simpleitk(tmp_path / f"{index}.dcm", numbers, 3 * index, compressor)
        dataset = dcmread(tmp_path / f"{index}.dcm")
        dataset.PhotometricInterpretation, dataset.PixelSpacing = "MONOCHROME1", [1, 1]
        dataset.save_as(tmp_path / f"{index}.dcm")
    (found,) = find_volumes(tmp_path)
    assert np.array_equal(read_volume(found)[0], ramp(3, (16, 15)))
    assert "MONOCHROME1" in found.changes[0]


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_slices_without_what_turns_numbers_into_values_are_named(tmp_path: Path, name: str) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda _: {"RescaleSlope": 2, "RescaleIntercept": -1024})
    files = sorted(folder.glob("*.dcm"))
    dataset = dcmread(files[2])
    del dataset[name]
    dataset.save_as(files[2])
    with pytest.raises(ImageError, match=rf"{files[2].name} of 6 say no Rescale"):
        find_volumes(folder)


def test_large_deflated_slices_are_whole(tmp_path: Path) -> None:
    for index in range(2):
        dataset = slice_dataset(np.zeros((300, 300), np.int16), (0, 0, 2.0 * index), index + 1)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        save(dataset, tmp_path / f"{index}.dcm")
    assert not read_dicom(tmp_path)[0].any()


def test_private_groups_do_not_count(tmp_path: Path) -> None:
    dataset = slice_dataset(ramp(2), (0, 0, 0), NumberOfFrames=2, PixelSpacing=None, ImagePositionPatient=None)
    groups = []
    for index in range(2):
        measures, position, private = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, position.ImagePositionPatient = [0.8, 0.7], [0, 0, 2.0 * index]
        private.PixelSpacing, private.RescaleSlope, private.RescaleIntercept = [1, 1], 3, 100
        group = Dataset()
        group.PixelMeasuresSequence, group.PlanePositionSequence = [measures], [position]
        group.add_new(0x20050010, "LO", "a vendor")
        group.add_new(0x2005100F, "SQ", [private])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    save(dataset, tmp_path / "a.dcm")
    array, geometry = read_dicom(tmp_path)
    assert np.array_equal(array, ramp(2))
    assert geometry.spacing_mm == (2, 0.8, 0.7)


def test_encodings_that_nobody_decodes_are_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(2))
    for path in folder.iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"))
    with pytest.raises(ImageError, match=r"encoded as 1\.2\.840\.113619\.5\.2, which cannot be read"):
        read_dicom(folder)
