"""What the page refuses of DICOM series is what Python refuses, in its words; order and windows are Python's."""

import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from seg25d.data.dicom_series import find_volumes
from seg25d.data.image_window import read_window_tags
from seg25d.data.problems import FileError
from seg25d.preprocessing.header_windows import parse_window
from tests.data.dicom_files import ramp, save, slice_dataset, write_by_simpleitk, write_frames, write_slices
from tests.data.dicom_sources import SERIES_OF
from tests.web.conftest import Checks

OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]


def ask(checks: Checks, folder: Path) -> None:
    """Let the page look for series in a folder within that of the checks."""
    checks.add("dicom", files=[str(path.relative_to(checks.folder)) for path in sorted(folder.iterdir())])


def ask_for_volumes(checks: Checks, folder: Path, **arguments: Any) -> None:
    """Let the page take all files below a folder, with a stand-in for its converter."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    checks.add("volumes", files=[str(path.relative_to(checks.folder)) for path in paths], **arguments)


def said_by_python(folder: Path) -> str:
    """Problem and cure as the page puts them."""
    with pytest.raises(FileError) as caught:
        find_volumes(folder)
    error = caught.value
    at_file = "" if error.path == folder else f"{error.path.name}: "
    return f"{at_file}{error.problem}. {error.cure[0].upper()}{error.cure[1:]}."


def message_of(answer: Any) -> str:
    """What the page says of its one series, or of all files."""
    if isinstance(answer, dict):
        return str(answer["error"])
    (series,) = answer
    return str(series["message"])


def with_missing(*missing: int, **attributes: Any) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        write_slices(folder, ramp(8), attributes=lambda _: attributes)
        for index in missing:
            (folder / f"{index + 1}.dcm").unlink()

    return write


def at(places: Sequence[float]) -> Callable[[Path], Any]:
    return lambda folder: write_slices(folder, ramp(len(places)), lambda index: (0, 0, places[index]))


def along_oblique(folder: Path, missing: int) -> None:
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    write_slices(
        folder, ramp(8), lambda index: 10 - 3.0 * index * normal, lambda _: {"ImageOrientationPatient": OBLIQUE}
    )
    (folder / f"{missing}.dcm").unlink()


def tilted(*lean: float) -> Callable[[Path], Any]:
    return lambda folder: write_slices(
        folder, ramp(8), lambda index: (lean[0] * 2 * index, lean[1] * 2 * index, 2.0 * index)
    )


def without(**attributes: Any) -> Callable[[Path], Any]:
    return lambda folder: write_slices(folder, ramp(), attributes=lambda _: attributes)


def one_with(**attributes: Any) -> Callable[[Path], Any]:
    return lambda folder: write_slices(folder, ramp(), attributes=lambda index: attributes if index == 2 else {})


def write_differing(name: str, usual: Any, other: Any) -> Callable[[Path], Any]:
    return lambda folder: write_slices(folder, ramp(), attributes=lambda index: {name: other if index == 2 else usual})


def with_another(**attributes: Any) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        write_slices(folder, ramp())
        numbers = np.zeros((9, 9), np.int16) if "ImageType" in attributes else ramp()[0]
        save(slice_dataset(numbers, (0, 0, 0), 99, **attributes), folder / "scout.dcm")

    return write


def with_copy(folder: Path) -> None:
    write_slices(folder, ramp())
    (folder / "3 copy.dcm").write_bytes((folder / "3.dcm").read_bytes())


REFUSED: dict[str, Callable[[Path], Any]] = {
    "a slice is missing": with_missing(3),
    "two in a row are missing": with_missing(2, 3),
    "two are missing": with_missing(1, 4),
    "a slice of an oblique series is missing": lambda folder: along_oblique(folder, 4),
    "unequal distances": at([0, 2, 4, 6, 8, 13, 18]),
    "a drift": at([2.0 * index + 0.1 * max(0, index - 4) for index in range(10)]),
    "multiples of the smallest distance": at([0, 2, 6]),
    "tilt along columns": tilted(0, 0.5),
    "tilt along both": tilted(-0.3, 0.4),
    "a little tilt over many slices": tilted(0.013, 0),
    "a slice aside": lambda folder: write_slices(folder, ramp(), lambda i: (3.0 * (i == 3), 0, 2.0 * i)),
    "a copy": with_copy,
    "a localizer among slices": with_another(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "nothing but localizers": without(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "another size": with_another(ImageType=["DERIVED", "PRIMARY"]),
    "another orientation": with_another(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    "another pixel spacing": with_another(PixelSpacing=[0.9, 0.7]),
    "unequal frames": lambda folder: write_frames(
        folder / "a.dcm", ramp(8), [(0, 0, 2.0 * index + 5 * (index > 5)) for index in range(8)]
    ),
    "tilted frames": lambda folder: write_frames(
        folder / "a.dcm", ramp(8), [(0, 0.6 * index, 2.0 * index) for index in range(8)]
    ),
    "no positions": without(ImagePositionPatient=None),
    "no orientation": without(ImageOrientationPatient=None),
    "no pixel spacing": without(PixelSpacing=None),
    "a pixel spacing of nothing": one_with(PixelSpacing=[0.0, 1.0]),
    "no rows": one_with(Rows=0),
    "another patient": write_differing("PatientID", "A", "B"),
    "another modality": write_differing("Modality", "CT", "MR"),
    "other numbers": write_differing("RescaleType", "HU", "US"),
    "other greys": write_differing("PhotometricInterpretation", "MONOCHROME2", "MONOCHROME1"),
    "a slope that is missing": write_differing("RescaleSlope", 2, None),
    "an intercept that is missing": write_differing("RescaleIntercept", -1024, None),
    "one slice of unknown thickness": lambda folder: write_slices(
        folder, ramp(1), attributes=lambda _: {"SliceThickness": None}
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_python_refuses_is_refused_in_its_words(kind, checks, tmp_path):
    REFUSED[kind](tmp_path / "series")
    ask(checks, tmp_path / "series")
    assert message_of(checks.run()[0]) == said_by_python(tmp_path / "series")


NO_NUMBERS = {
    "PixelSpacing": ["1", "nan"],
    "ImagePositionPatient": ["0", "0", "inf"],
    "ImageOrientationPatient": [1, 0, 0, 1, 0, 0],
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_impossible_headers_are_refused(name, checks, tmp_path):
    one_with(**{name: NO_NUMBERS[name]})(tmp_path / "series")
    ask(checks, tmp_path / "series")
    assert message_of(checks.run()[0]).startswith("3.dcm: its ")
    said_by_python(tmp_path / "series")


LEFT_TO_PYTHON = {
    "deflated": "the file is deflated, which the page does not read. Use `seg25d predict`, which does.",
    "dose": "the file has several slices, and the page does not know where they lie. Make a NIfTI file of it",
    "secondary capture": "the file has several slices, and the page does not know where they lie",
}


@pytest.mark.parametrize("kind", SERIES_OF)
def test_what_python_reads_is_taken_in_its_order(kind, checks, tmp_path):
    SERIES_OF[kind](tmp_path / "series")
    ask(checks, tmp_path / "series")
    (answer,) = checks.run()
    (volume,) = find_volumes(tmp_path / "series")
    if kind in LEFT_TO_PYTHON:
        assert LEFT_TO_PYTHON[kind] in message_of(answer)
    else:
        assert answer[0]["slices"] == [frame.name for frame in volume.frames]
        assert answer[0]["places"] == len(volume.frames)
        assert answer[0]["step"] == (pytest.approx(volume.step_mm, rel=1e-12) if len(volume.frames) > 1 else None)


def test_mosaics_are_left_to_the_converter(checks, tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    write_slices(tmp_path / "series", ramp(2), lambda _: (0, 0, 0), lambda _: {"ImageType": kind})
    ask(checks, tmp_path / "series")
    assert checks.run()[0][0]["slices"] == []


def test_slices_off_their_places_are_refused_where_python_refuses_them(checks, tmp_path, rng):
    """On both sides of its tolerances, of gaps as of tilt."""
    folders = [tmp_path / str(number) for number in range(60)]
    for folder in folders:
        step, lean, amplitude = rng.uniform(0.4, 5), rng.uniform(0, 0.02), rng.choice([0.005, 0.02, 0.05, 0.2])
        off = rng.uniform(-amplitude, amplitude, (8, 3))
        write_slices(folder, ramp(8), lambda index, s=step, a=lean, o=off: (a * s * index, 0, s * index) + o[index])
        ask(checks, folder)
    refused = []
    for folder, answer in zip(folders, checks.run(), strict=True):
        (series,) = answer
        refused.append("message" in series)
        if refused[-1]:
            assert series["message"] == said_by_python(folder)
        else:
            (volume,) = find_volumes(folder)
            assert series["slices"] == [frame.name for frame in volume.frames]
    assert 10 < sum(refused) < 50


def test_files_cut_off_are_named(checks, tmp_path):
    folder = write_slices(tmp_path / "series", ramp())
    whole = (folder / "4.dcm").read_bytes()
    for length in (len(whole) - 3, len(whole) - 40, len(whole) // 2, 200, 140, 133):
        cut = tmp_path / str(length)
        write_slices(cut, ramp())
        (cut / "4.dcm").write_bytes(whole[:length])
        ask(checks, cut)
        assert "4.dcm" in said_by_python(cut)
    for answer in checks.run():
        assert message_of(answer).startswith("4.dcm: the ")
        assert "cut off" in message_of(answer) or "ends before its image" in message_of(answer)


def test_bytes_that_are_missing_are_counted_as_in_python(checks, tmp_path):
    folder = write_slices(tmp_path / "series", ramp())
    (folder / "4.dcm").write_bytes((folder / "4.dcm").read_bytes()[:-3])
    ask(checks, folder)
    assert message_of(checks.run()[0]) == said_by_python(folder)


def test_a_file_called_like_the_images_that_is_none_is_named(checks, tmp_path):
    folders = [tmp_path / name for name in ("whole", "empty", "without its beginning")]
    for folder in folders:
        write_slices(folder, ramp(), names=lambda index: f"IM{index:04d}")
        (folder / "VERSION").write_text("1")
    (folders[1] / "IM0005").write_bytes(b"")
    damaged = folders[2] / "IM0003"
    damaged.write_bytes(bytes(132) + damaged.read_bytes()[132:])
    for folder in folders:
        ask(checks, folder)
    whole, *spoilt = checks.run()
    assert len(whole[0]["slices"]) == 6
    for folder, answer in zip(folders[1:], spoilt, strict=True):
        assert message_of(answer) == said_by_python(folder)


@pytest.mark.parametrize("ending", [".dcm", ".IMA"])
def test_endings_are_enough_for_files_without_a_mark(ending, checks, tmp_path):
    """Whole ones are read, damaged ones refused as the slices that they are."""
    folder = write_slices(tmp_path / "series", ramp(), names=lambda index: f"{index}{ending}")
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if ending == ".dcm" else ExplicitVRLittleEndian
        content = save(dataset, path).read_bytes()
        length_of_meta = int.from_bytes(content[140:144], "little")
        path.write_bytes(content[144 + length_of_meta :])
    ask(checks, folder)
    spoilt = write_slices(tmp_path / "spoilt", ramp(), names=lambda index: f"{index}{ending}")
    (spoilt / f"3{ending}").write_bytes(bytes(132) + (spoilt / f"3{ending}").read_bytes()[132:])
    ask(checks, spoilt)
    found, refused = checks.run()
    (volume,) = find_volumes(folder)
    assert found[0]["slices"] == [frame.name for frame in volume.frames]
    assert message_of(refused) == f"3{ending}: the DICOM file is cut off or damaged. Copy or export it again."
    said_by_python(spoilt)


def test_nested_sequences_of_undefined_length_are_stepped_over(checks, tmp_path):
    inner, outer = Dataset(), Dataset()
    inner.SeriesInstanceUID, inner.ImagePositionPatient = "9.9.9", [7, 7, 7]
    outer.ReferencedSeriesSequence = [inner]
    for implicit in (False, True):
        folder = tmp_path / str(implicit)
        for index, numbers in enumerate(ramp()):
            dataset = slice_dataset(numbers, (0, 0, 2.0 * index), index + 1)
            if implicit:
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.ReferencedStudySequence = [outer]
            for sequence in (dataset, outer):
                for element in sequence:
                    element.is_undefined_length = element.VR == "SQ"
            dataset["ReferencedStudySequence"].value[0].is_undefined_length_sequence_item = True
            save(dataset, folder / f"{index}.dcm")
        assert b"\xff\xff\xff\xff" in (folder / "0.dcm").read_bytes()
        ask(checks, folder)
    for answer in checks.run():
        (series,) = answer
        assert series["slices"] == [f"{index}.dcm" for index in range(6)]


def test_series_are_told_apart_and_what_holds_no_image_is_left_out(checks, tmp_path):
    folder = tmp_path / "study"
    named = {"SeriesNumber": 3, "SeriesDescription": "Thorax / 2 mm"}
    write_slices(folder, ramp(), attributes=lambda _: named)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.9", "SeriesNumber": 1}
    save(slice_dataset(ramp()[0], (0, 0, 0), 99, **scout), folder / "scout.dcm")
    save(slice_dataset(ramp()[0], (0, 0, 0), 9, SeriesInstanceUID="1.8", **named), folder / "twin.dcm")
    report = slice_dataset(ramp()[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    save(report, folder / "report.dcm")
    segmentation = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "SeriesInstanceUID": "1.7"}
    save(slice_dataset(ramp()[0], (0, 0, 0), **segmentation), folder / "segmentation.dcm")
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "Columns": 4, "SeriesInstanceUID": "1.6"}
    save(slice_dataset(np.zeros((5, 12), np.uint8), (0, 0, 0), **colours), folder / "z.dcm")
    ask(checks, folder)
    whole, its_scout, twin, picture = checks.run()[0]
    assert whole["name"] == "3_Thorax_2_mm"
    assert whole["slices"] == [f"{index}.dcm" for index in range(1, 7)]
    assert its_scout["name"] == "1"
    assert "localizers (scouts)" in its_scout["message"]
    assert twin["name"] == "3_Thorax_2_mm_2"
    assert picture["message"].startswith("z.dcm: the file has colours, wanted is one number per voxel. Leave it out")


def test_phases_are_left_to_the_converter_unless_one_lacks_a_slice(checks, tmp_path):
    for folder in (tmp_path / "whole", tmp_path / "less"):
        for phase in (1, 2):
            for index in range(6):
                numbers = slice_dataset(ramp()[index], (0, 0, 2.0 * index), TemporalPositionIdentifier=phase)
                save(numbers, folder / f"{phase}{index}.dcm")
    (tmp_path / "less" / "23.dcm").unlink()
    ask(checks, tmp_path / "whole")
    ask(checks, tmp_path / "less")
    whole, less = checks.run()
    assert len(whole[0]["slices"]) == 12
    assert "several slices lie at the same place, and fewer at others: 10.dcm, 20.dcm" in message_of(less)
    assert "--split-phases" in message_of(less)


BETWEEN = {
    "EchoTime": (10, 12),
    "TemporalPositionIdentifier": (1, 2),
    "DiffusionBValue": (0.0, 800.0),
    "ConvolutionKernel": ("B1", "B2"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_phases_that_lie_between_each_other_are_no_volume(name, checks, tmp_path):
    write_slices(tmp_path / "mixed", ramp(8), attributes=lambda index: {name: BETWEEN[name][index % 2]})
    write_slices(tmp_path / "one behind the other", ramp(8), attributes=lambda i: {name: BETWEEN[name][i // 4]})
    ask(checks, tmp_path / "mixed")
    ask(checks, tmp_path / "one behind the other")
    mixed, parts = checks.run()
    start = f"the series has 2 phases, told apart by {name}: "
    assert said_by_python(tmp_path / "mixed").startswith(start)
    assert message_of(mixed).startswith(start)
    assert "--split-phases" in message_of(mixed)
    (volume,) = find_volumes(tmp_path / "one behind the other")
    assert parts[0]["slices"] == [frame.name for frame in volume.frames]


def write_odd(folder: Path, odd: dict[str, tuple[bytes, int]]) -> None:
    """Implicit slices, whose texts may have any length: what attributes have as values, and as lengths."""
    for index, numbers in enumerate(ramp()):
        dataset = slice_dataset(numbers, (0, 0, 2.0 * index), index, **dict.fromkeys(odd, "12"))
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        path = save(dataset, folder / f"{index}.dcm")
        content = path.read_bytes()
        for name, (value, length) in odd.items():
            start = struct.pack("<HH", Tag(name).group, Tag(name).element)
            usual = start + struct.pack("<I", 2) + b"12"
            assert content.count(usual) == 1
            content = content.replace(usual, start + struct.pack("<I", length) + value)
        path.write_bytes(content)


LONG = b"x" * (1 << 20)
ODD_TEXTS = {
    "longer than texts may be": {"SeriesDescription": LONG, "StudyTime": LONG, "WindowCenter": LONG},
    "blanks": {"PatientID": b"x" + b" " * 0xFFFC + b"x", "Modality": b"x" + b"\0" * 0xFFFC + b"x"},
    "digits": {"WindowCenter": b"1" * 0xFFFD + b"x", "WindowWidth": b"20"},
    "a long name": {"SeriesDescription": b"series" + b"_" * 0xFFF6 + b"x"},
}


@pytest.mark.parametrize("kind", ODD_TEXTS)
def test_texts_of_any_length_cost_neither_memory_nor_time(kind, checks, tmp_path):
    write_odd(tmp_path / "series", {name: (text, len(text)) for name, text in ODD_TEXTS[kind].items()})
    ask_for_volumes(checks, tmp_path / "series")
    started = time.monotonic()
    (found,) = checks.run()
    assert (found["volumes"], found["leftOut"]) == (["series.nii"], [])
    assert found["tally"]["longest"] <= 1 << 16
    assert time.monotonic() - started < 3


def test_a_study_date_of_undefined_length_is_left_as_it_is(checks, tmp_path):
    """As that of a sequence, which ends at once."""
    end_of_sequence = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    write_odd(tmp_path / "series", {"StudyDate": (end_of_sequence, 0xFFFFFFFF)})
    ask_for_volumes(checks, tmp_path / "series")
    (found,) = checks.run()
    assert (found["volumes"], found["leftOut"]) == (["series.nii"], [])


def test_a_series_that_fails_in_an_unknown_way_is_left_out_alone(checks, tmp_path):
    """The converter writes less than a header for it."""
    for number, name in enumerate(("odd", "usual")):
        known = {"SeriesInstanceUID": f"1.{number}", "SeriesDescription": name}
        names = "odd{}.dcm" if name == "odd" else "{}.dcm"
        write_slices(tmp_path / "study" / name, ramp(), attributes=lambda _, a=known: a, names=names.format)
    ask_for_volumes(checks, tmp_path / "study")
    (found,) = checks.run()
    assert found["volumes"] == ["usual.nii"]
    (left_out,) = found["leftOut"]
    assert left_out.startswith("Left out: odd (6 files): the page cannot read it (Offset is outside the bounds")
    assert "Use `seg25d predict`, or make a NIfTI file" in left_out
    assert found["logged"] == ["RangeError: Offset is outside the bounds of the DataView"]


def test_files_are_read_a_few_at_a_time_and_once_and_a_cancel_ends_that(checks, tmp_path):
    write_slices(tmp_path / "series", ramp(40))
    write_slices(tmp_path / "unnamed", ramp(40), names=lambda index: f"IM{index:04d}")
    for number in range(100):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / f"{number:03d}").write_bytes(bytes(200))
    ask(checks, tmp_path / "series")
    ask_for_volumes(checks, tmp_path / "series")
    ask_for_volumes(checks, tmp_path / "unnamed")
    ask_for_volumes(checks, tmp_path / "series", end_at=5)
    ask_for_volumes(checks, tmp_path / "other", end_at=20)
    ordered, series, unnamed, ended, search_ended = checks.run()
    assert ordered[0]["slices"] == [f"{index + 1}.dcm" for index in range(40)]
    assert series["tally"]["reads"] == 40
    assert series["tally"]["together"] == 16
    assert unnamed["tally"]["reads"] == 80
    assert unnamed["volumes"] == ["series.nii"]
    assert ended["tally"]["reads"] == 16
    assert search_ended["tally"]["reads"] == 32


WINDOWS = [
    ("40", "400"), ("-600\\40 ", "1500\\400 "), ("40.5", "1e2"), ("+40", ".5"), ("40", "0"), ("40", "-3"), ("40", ""),
    ("", ""), ("", "80"), ("inf", "80"), ("40", "nan"), ("abc", "80"), ("0x10", "80"), ("4 0", "80"), ("\\40", "80"),
]  # fmt: skip


def test_windows_of_headers(checks, tmp_path):
    """That of the first slice along the normal, whatever the names; none where Python takes none."""
    for number, (center, width) in enumerate(WINDOWS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for index, numbers in enumerate(ramp(3)):
            own = (center, width) if index == 0 else ("1", "2")
            tags = {tag: text for tag, text in zip(("0028|1050", "0028|1051"), own, strict=True) if text}
            tags["0008|0060"] = "CT"
            write_by_simpleitk(folder / f"{9 - index}.dcm", numbers, 2.0 * index, None, tags)
        ask(checks, folder)
    for number, answer in enumerate(checks.run()):
        try:
            wanted = list(parse_window(*read_window_tags(tmp_path / str(number))))
        except ValueError:
            wanted = None
        assert answer[0]["window"] == wanted, WINDOWS[number]


def test_folders_that_are_too_large_are_refused_before_they_are_converted(checks):
    series = {"files": 400, "bytes": 2**28, "voxelBytes": 2**28}
    for number, budget in ((1, 5 * 2**28), (1, 5 * 2**28 - 1), (3, 7 * 2**28), (3, 7 * 2**28 - 1)):
        checks.add("converting", series=[series] * number, budget=budget)
    one, too_large, three, too_many = checks.run()
    assert (one, three) == (None, None)
    assert "too large for this machine: 400 DICOM files have 0.3 GB, which takes about 1.3 GB" in too_large["error"]
    assert "1200 DICOM files in 3 series (one of them may do) have 0.8 GB" in too_many["error"]
    assert "`seg25d predict` takes the same model" in too_large["error"]


def test_a_file_with_all_channels_on_its_fourth_axis_gets_its_cure(checks, tmp_path):
    part = SimpleITK.GetImageFromArray(ramp())
    SimpleITK.WriteImage(SimpleITK.JoinSeries([part] * 3), str(tmp_path / "case.nii.gz"))
    SimpleITK.WriteImage(part, str(tmp_path / "part.nii.gz"))
    for files, number in ((["case.nii.gz"], 3), (["case.nii.gz"], 4), (["part.nii.gz"], 3), (["part.nii.gz"] * 3, 3)):
        checks.add("check_number", files=files, channels=["FLAIR", "T1w", "T2w", "PD"][:number])
    whole, other, part_alone, parts = checks.run()
    assert "case.nii.gz: the file is 4D, and its fourth axis has as many volumes as the model" in whole["error"]
    assert "`seg25d convert --from msd`" in whole["error"]
    assert "needs 4 images, one for each channel (FLAIR, T1w, T2w, PD); got 1. Choose all of them" in other["error"]
    assert "needs 3 images" in part_alone["error"]
    assert parts is None
