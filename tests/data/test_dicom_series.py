"""What is said of DICOM series that are no regular volume, and what becomes of them where that is accepted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg25d.core.errors import ImageError
from seg25d.data.dicom_options import DicomOptions
from seg25d.data.dicom_series import find_volumes
from seg25d.data.image_dicom import read_dicom, read_dicom_geometry, read_volume
from tests.data.dicom_files import AXIAL, SPACING, ramp, save, slice_dataset, write_slices


def message(folder: Path, **options: bool) -> str:
    with pytest.raises(ImageError) as caught:
        find_volumes(folder, DicomOptions(**options))
    return str(caught.value)


def test_a_regular_series_is_read_whatever_the_names_of_its_files(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), names=lambda index: f"{9 - index}")
    array, geometry = read_dicom(folder)
    assert np.array_equal(array, ramp())
    assert array.dtype == np.int16
    assert geometry.spacing_mm == (2.0, *SPACING)
    assert geometry.origin_mm == (0, 0, 0)
    assert geometry == read_dicom_geometry(folder)


@pytest.mark.parametrize("amplitude", [0.01])
def test_jitter_passes(tmp_path: Path, amplitude: float) -> None:
    rng = np.random.default_rng(0)
    jitter = rng.uniform(-amplitude, amplitude, (30, 3))
    folder = write_slices(tmp_path, ramp(30), lambda index: (0, 0, 1.0 * index) + jitter[index])
    array, geometry = read_dicom(folder)
    assert np.array_equal(array, ramp(30))
    assert geometry.spacing_mm[0] == pytest.approx(1, abs=1e-3)


def test_positions_rounded_to_tenths_pass(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(20), lambda index: (0, 0, round(4.96 * index, 1)))
    assert read_dicom_geometry(folder).spacing_mm[0] == pytest.approx(4.96, abs=5e-3)


def test_finest_resolution_is_no_duplicate(tmp_path: Path) -> None:
    folder = write_slices(
        tmp_path, ramp(), lambda index: (0, 0, 0.01 * index), lambda _: {"PixelSpacing": [0.01, 0.01]}
    )
    assert read_dicom_geometry(folder).spacing_mm[0] == pytest.approx(0.01)


@pytest.mark.parametrize("missing", [(3,), (2, 3), (1, 4)])
def test_gaps_are_named_and_filled_where_that_is_accepted(tmp_path: Path, missing: tuple[int, ...]) -> None:
    volume = (10 * np.arange(8)[:, None, None] + np.zeros((8, 5, 4))).astype(np.int16)
    folder = write_slices(tmp_path, volume)
    for index in missing:
        (folder / f"{index + 1}.dcm").unlink()
    said = message(folder)
    noun = "1 slice is" if len(missing) == 1 else f"{len(missing)} slices are"
    assert f"{noun} missing between {missing[0]}.dcm and" in said
    assert "2 mm apart" in said
    assert "--accept-gaps" in said
    (found,) = find_volumes(folder, DicomOptions(accept_gaps=True))
    array, geometry = read_volume(found)
    assert np.allclose(array, volume)
    assert geometry.shape == volume.shape
    assert geometry.spacing_mm[0] == pytest.approx(2)
    assert "slices interpolated to 8" in found.changes[0]


def test_unequal_spacing_is_named_and_interpolated_where_that_is_accepted(tmp_path: Path) -> None:
    places = [0.0, 2, 4, 6, 8, 13, 18]
    volume = (10 * np.array(places)[:, None, None] + np.zeros((7, 5, 4))).astype(np.int16)
    folder = write_slices(tmp_path, volume, lambda index: (0, 0, places[index]))
    said = message(folder)
    assert "the slices are 2 to 5 mm apart, such as 5 mm between 5.dcm and 6.dcm" in said
    (found,) = find_volumes(folder, DicomOptions(accept_gaps=True))
    array, geometry = read_volume(found)
    assert np.allclose(array[:, 0, 0], 10 * geometry.spacing_mm[0] * np.arange(len(array)))
    assert geometry.spacing_mm[0] * (len(array) - 1) == pytest.approx(18)


def test_a_drift_of_the_spacing_is_noticed(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(10), lambda index: (0, 0, 2.0 * index + 0.1 * max(0, index - 4)))
    assert "2 to 2.1 mm apart" in message(folder)


def test_a_gap_too_large_to_fill_is_refused(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(6), lambda index: (0, 0, 2.0 * index + 300 * (index > 2)))
    assert "slices would be made of 6; add what is missing" in message(folder, accept_gaps=True)


def test_copies_are_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp())
    (folder / "3 copy.dcm").write_bytes((folder / "3.dcm").read_bytes())
    assert "3.dcm is a copy of 3 copy.dcm" in message(folder)
    (folder / "3 copy.dcm").unlink()
    save(slice_dataset(ramp()[2], (0, 0, 4.0), 3, SOPInstanceUID="1.9"), folder / "other.dcm")
    said = message(folder, split_phases=True, accept_gaps=True, resample_tilt=True)
    assert "several slices lie at the same place" in said
    assert "3.dcm, other.dcm" in said


PHASES = [
    {"TemporalPositionIdentifier": [1, 2]},
    {"TriggerTime": [0.0, 350.5]},
    {"EchoNumbers": [1, 2]},
    {"AcquisitionNumber": [2, 10]},
    {"DiffusionBValue": [0.0, 800.0]},
    {"ImageType": [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]},
    {"AcquisitionTime": ["101112", "101150.5"]},
    {},
]


@pytest.mark.parametrize("tags", PHASES, ids=lambda tags: next(iter(tags), "InstanceNumber"))
def test_phases_are_named_and_split(tmp_path: Path, tags: dict[str, list[Any]]) -> None:
    volumes = [ramp(), ramp() + 1000]
    for phase, volume in enumerate(volumes):
        for index, numbers in enumerate(volume):
            own = {name: values[phase] for name, values in tags.items()}
            dataset = slice_dataset(numbers, (0, 0, 2.0 * index + 0.005 * phase), 1 + index + 6 * phase, **own)
            save(dataset, tmp_path / f"{phase}{index}.dcm")
    said = message(tmp_path)
    assert f"the series has 2 phases, told apart by {next(iter(tags), 'InstanceNumber')}" in said
    assert "(00.dcm, 01.dcm, " in said
    assert "(10.dcm, 11.dcm, " in said
    assert "--split-phases" in said
    found = find_volumes(tmp_path, DicomOptions(split_phases=True))
    assert [each.phase for each in found] == ["phase1", "phase2"]
    for volume, each in zip(volumes, found, strict=True):
        assert np.array_equal(read_volume(each)[0], volume)
        assert f"the phase with {next(iter(tags), 'InstanceNumber')} " in each.changes[0]


def test_phases_that_only_two_attributes_tell_apart(tmp_path: Path) -> None:
    for echo in (1, 2):
        for time in (1, 2, 3):
            for index in range(4):
                own = {"EchoNumbers": echo, "TemporalPositionIdentifier": time, "InstanceNumber": None}
                numbers = np.full((5, 4), 100 * echo + 10 * time + index, np.int16)
                save(slice_dataset(numbers, (0, 0, 2.0 * index), **own), tmp_path / f"{echo}{time}{index}.dcm")
    found = find_volumes(tmp_path, DicomOptions(split_phases=True))
    starts = [int(read_volume(each)[0][0, 0, 0]) for each in found]
    assert starts == [110, 210, 120, 220, 130, 230]
    assert "TemporalPositionIdentifier and EchoNumbers" in message(tmp_path)


def test_times_that_a_few_slices_share_are_no_phases(tmp_path: Path) -> None:
    for phase in (0, 1):
        for index in range(6):
            own = {"AcquisitionTime": f"10{10 * phase + index % 3:02d}00", "InstanceNumber": 6 * phase + index}
            save(slice_dataset(ramp()[index], (0, 0, 2.0 * index), **own), tmp_path / f"{phase}{index}.dcm")
    assert len(find_volumes(tmp_path, DicomOptions(split_phases=True))) == 2


def test_mosaics_are_refused(tmp_path: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    folder = write_slices(tmp_path, ramp(1), attributes=lambda _: {"ImageType": kind})
    assert "1.dcm: the file is a mosaic" in message(folder)


def test_a_phase_of_which_a_slice_is_missing_is_named(tmp_path: Path) -> None:
    for phase in (1, 2):
        for index in range(6):
            if (phase, index) != (2, 3):
                dataset = slice_dataset(ramp()[index], (0, 0, 2.0 * index), TemporalPositionIdentifier=phase)
                save(dataset, tmp_path / f"{phase}{index}.dcm")
    assert "1 slice is missing between 22.dcm and 24.dcm" in message(tmp_path, split_phases=True)


def test_adjacent_acquisitions_are_one_volume(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda index: {"AcquisitionNumber": 1 + index // 3})
    assert len(find_volumes(folder, DicomOptions(split_phases=True))) == 1


def test_scouts_among_slices_are_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp())
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout = slice_dataset(np.zeros((9, 9), np.int16), (0, 0, 0), 99, ImageType=kind)
    save(scout, folder / "scout.dcm")
    assert "scout.dcm of 7 are localizers (scouts)" in message(folder)
    scout.ImageType = ["DERIVED", "PRIMARY"]
    save(scout, folder / "scout.dcm")
    assert "several sizes: scout.dcm of 7, 9 x 9 against 5 x 4" in message(folder)
    scout = slice_dataset(ramp()[0], (0, 0, 0), 99, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    save(scout, folder / "scout.dcm")
    assert "several orientations: scout.dcm of 7" in message(folder)
    save(slice_dataset(ramp()[0], (0, 0, -2.0), 99, PixelSpacing=[0.9, 0.7]), folder / "scout.dcm")
    assert "several pixel spacings: scout.dcm of 7, 0.9 x 0.7 against 0.8 x 0.7" in message(folder)


def test_several_series_are_listed(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp())
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(slice_dataset(ramp()[0], (0, 0, 0), 99, ImageType=kind, SeriesInstanceUID="1.9"), folder / "scout.dcm")
    said = message(folder)
    assert "holds 2 DICOM series: 1.2.3.4 (6 files, such as 1.dcm), 1.9 (1 file, localizers, such as scout.dcm)" in said


def test_files_cut_off_are_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp())
    whole = (folder / "4.dcm").read_bytes()
    for length in (len(whole) - 3, len(whole) - 40, len(whole) // 2, 200, 140, 133):
        (folder / "4.dcm").write_bytes(whole[:length])
        said = message(folder)
        assert "4.dcm" in said
        assert "cut off" in said or "ends before its image" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ImagePositionPatient", "say no position"),
        ("ImageOrientationPatient", "say no orientation"),
        ("PixelSpacing", "say no pixel spacing"),
    ],
)
def test_series_without_places_are_refused(tmp_path: Path, name: str, words: str) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda _: {name: None})
    said = message(folder)
    assert words in said
    assert "1.dcm, 2.dcm, 3.dcm, 4.dcm, 5.dcm and 1 more of 6" in said


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_slices(tmp_path / "a", ramp(1), attributes=lambda _: {"SliceThickness": 5.0})
    assert read_dicom_geometry(folder).spacing_mm[0] == 5
    read_dicom(folder)
    assert "taken to be 5 mm thick" in caplog.text
    folder = write_slices(tmp_path / "b", ramp(1), attributes=lambda _: {"SliceThickness": None})
    assert "does not say how thick it is" in message(folder)


@pytest.mark.parametrize("lean", [(0.0, 0.5), (0.4, -0.3)])
def test_tilt_is_named_and_straightened_where_that_is_accepted(tmp_path: Path, lean: tuple[float, float]) -> None:
    """A field that is linear in space is the same after a linear interpolation, inside of all slices."""
    x, y = np.meshgrid(SPACING[1] * np.arange(20), SPACING[0] * np.arange(24))
    origins = [(lean[1] * 2 * index, lean[0] * 2 * index, 2.0 * index) for index in range(8)]
    volume = np.array([1000 + 30 * (x + a) + 20 * (y + b) + 10 * c for a, b, c in origins])
    folder = write_slices(tmp_path, np.round(volume).astype(np.int16), lambda index: origins[index])
    said = message(folder)
    assert "the gantry was tilted: from 1.dcm to 8.dcm" in said
    assert "--resample-tilt" in said
    (found,) = find_volumes(folder, DicomOptions(resample_tilt=True))
    array, geometry = read_volume(found)
    assert "shifted within their planes" in found.changes[0]
    assert geometry.spacing_mm == (2.0, *SPACING)
    z, y, x = np.meshgrid(*(np.arange(size) for size in array.shape), indexing="ij")
    start = geometry.origin_mm
    wanted = 1000 + 30 * (start[0] + SPACING[1] * x) + 20 * (start[1] + SPACING[0] * y) + 10 * (2.0 * z)
    inside = array > array.min() + 1e-3
    # The rim of a slice is mixed with what is around it.
    close = np.abs(array - wanted) < 2
    assert close[inside].mean() > 0.85
    assert close[:, 10:-10, 11:-11].all()


def test_a_slice_aside_is_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), lambda index: (3.0 * (index == 3), 0, 2.0 * index))
    said = message(folder, resample_tilt=True, accept_gaps=True)
    assert "4.dcm lies 3 mm aside" in said


def test_a_folder_of_other_things_holds_no_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    report = slice_dataset(ramp()[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    save(report, tmp_path / "report.dcm")
    assert "holds no DICOM images" in message(tmp_path)
    folder = write_slices(tmp_path, ramp())
    assert len(find_volumes(folder)[0].frames) == 6


def test_colours_are_refused(tmp_path: Path) -> None:
    numbers = np.zeros((5, 12), np.uint8)
    own = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "Columns": 4, "PlanarConfiguration": 0}
    save(slice_dataset(numbers, (0, 0, 0), **own), tmp_path / "a.dcm")
    assert "has colours" in message(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PixelSpacing", [0.0, 1.0]),
        ("PixelSpacing", ["1", "nan"]),
        ("ImagePositionPatient", ["0", "0", "inf"]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("Rows", 0),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    folder = write_slices(tmp_path, ramp(), attributes=lambda index: {name: value} if index == 2 else {})
    assert message(folder)


def test_frames_along_oblique_normals_keep_their_order(tmp_path: Path) -> None:
    angle = 0.3
    row, column = (np.cos(angle), np.sin(angle), 0.0), (0.0, 0.0, -1.0)
    normal = np.cross(row, column)
    folder = write_slices(
        tmp_path,
        ramp(),
        lambda index: 10 - 3.0 * index * normal,
        lambda _: {"ImageOrientationPatient": [*row, *column]},
    )
    array, geometry = read_dicom(folder)
    assert np.array_equal(array, ramp()[::-1])
    assert geometry.spacing_mm[0] == pytest.approx(3)
    assert np.allclose(np.array(geometry.direction).reshape(3, 3)[:, 2], normal, atol=1e-6)
    assert (*row, *column) != AXIAL


@pytest.mark.parametrize(
    "attribute", ["EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "ConvolutionKernel"]
)
@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_phases_that_lie_between_each_other_are_no_volume(tmp_path: Path, attribute: str, shift: float) -> None:
    volumes = [ramp(), ramp() + 1000]
    for phase, volume in enumerate(volumes):
        for index, numbers in enumerate(volume):
            value = f"B{phase}" if attribute == "ConvolutionKernel" else 10 + phase
            dataset = slice_dataset(numbers, (0, 0, 2.0 * index + shift * phase), 1 + index + 6 * phase)
            setattr(dataset, attribute, value)
            save(dataset, tmp_path / f"{phase}{index}.dcm")
    assert f"the series has 2 phases, told apart by {attribute}" in message(tmp_path, accept_gaps=True)
    found = find_volumes(tmp_path, DicomOptions(split_phases=True))
    assert [np.array_equal(read_volume(each)[0], volume) for each, volume in zip(found, volumes, strict=True)] == [
        True,
        True,
    ]
    assert [each.step_mm for each in found] == [2, 2]


def test_odd_slices_before_even_ones_are_one_volume(tmp_path: Path) -> None:
    folder = write_slices(
        tmp_path, ramp(), attributes=lambda index: {"AcquisitionNumber": index % 2, "TriggerTime": 80.0 * (index % 3)}
    )
    (found,) = find_volumes(folder)
    assert not found.changes


def test_slices_that_differ_are_told_or_refused(tmp_path: Path) -> None:
    kernels = write_slices(tmp_path / "a", ramp(), attributes=lambda index: {"ConvolutionKernel": f"B{index // 3}"})
    (found,) = find_volumes(kernels)
    assert found.changes == ("taken as one volume, although its slices differ in ConvolutionKernel",)
    for name, values in {
        "PatientID": ("A", "B"),
        "Modality": ("CT", "MR"),
        "RescaleType": ("HU", "US"),
        "PhotometricInterpretation": ("MONOCHROME2", "MONOCHROME1"),
    }.items():
        folder = write_slices(tmp_path / name, ramp(), attributes=lambda i, n=name, v=values: {n: v[i == 2]})
        said = message(folder)
        assert f"the slices differ in {name}: 3.dcm of 6, {values[1]} against {values[0]}" in said


def test_images_of_one_place_in_time_are_phases_of_one_slice(tmp_path: Path) -> None:
    folder = write_slices(
        tmp_path, ramp(3), lambda _: (0, 0, 0), lambda index: {"TriggerTime": 30.0 * index, "InstanceNumber": 1}
    )
    assert "the series has 3 phases, told apart by TriggerTime: 0.0 (1.dcm)" in message(folder)
    found = find_volumes(folder, DicomOptions(split_phases=True))
    assert [read_volume(each)[0].shape for each in found] == [(1, 5, 4)] * 3


def test_the_smallest_distance_is_that_of_slices_where_others_are_multiples(tmp_path: Path) -> None:
    places = [0.0, 2, 6]
    folder = write_slices(tmp_path, ramp(3), lambda index: (0, 0, places[index]))
    assert "1 slice is missing between 2.dcm and 3.dcm; the others are 2 mm apart" in message(folder)
    (found,) = find_volumes(folder, DicomOptions(accept_gaps=True))
    assert read_volume(found)[1].shape[0] == 4


def test_a_file_called_like_the_images_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), names=lambda index: f"IM{index:04d}")
    (folder / "VERSION").write_text("1")
    assert len(find_volumes(folder)[0].frames) == 6
    (folder / "IM0006").write_bytes(b"")
    assert "IM0006: the file is called like the DICOM images beside it" in message(folder)


def test_a_distance_that_the_header_contradicts_is_told(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, ramp(), lambda i: (0, 0, 4.0 * i), lambda _: {"SpacingBetweenSlices": 2})
    (found,) = find_volumes(folder)
    assert "4 mm apart by their positions; Spacing Between Slices says 2 mm" in found.changes[0]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"FrameIncrementPointer": 0x00181063, "FrameTime": 30}, "follow each other by FrameTime"),
        ({"FrameIncrementPointer": 0x00540010, "EnergyWindowVector": [1, 1, 2, 2]}, "by EnergyWindowVector"),
        ({"FrameIncrementPointer": 0x3004000C, "GridFrameOffsetVector": [0, 2, 4]}, "4 frames and 3 numbers"),
        (
            {
                "FrameIncrementPointer": [0x00540070, 0x00540080],
                "TimeSlotVector": [1, 1, 2, 2],
                "SliceVector": [1, 2] * 2,
            },
            "2 phases, told apart by TimeSlotVector",
        ),
    ],
)
def test_frames_that_are_no_slices(tmp_path: Path, attributes: dict[str, Any], said: str) -> None:
    own = {"NumberOfFrames": 4, "SpacingBetweenSlices": 2.0, **attributes}
    save(slice_dataset(ramp(4), (0, 0, 0), **own), tmp_path / "a.dcm")
    assert said in message(tmp_path)
