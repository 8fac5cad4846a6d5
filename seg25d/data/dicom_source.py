"""What a DICOM segmentation takes over from the series that was segmented: patient, study, places and references."""
# mypy: disallow-untyped-calls=False
# pydicom makes attributes of tags when a file is read.

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import UID, CTImageStorage, generate_uid
from pydicom.valuerep import DA, TM, format_number_as_ds

from seg25d.data.dicom_frames import Frame, read_header
from seg25d.data.dicom_series import DicomVolume

_TEXTS = (
    *("PatientID", "IssuerOfPatientID", "PatientAge", "PatientComments", "AccessionNumber", "StudyID"),
    *("StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod", "PositionReferenceIndicator"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID"),
)
_NAMES = ("PatientName", "ReferringPhysicianName")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_NUMBERS = ("PatientSize", "PatientWeight")
_SEXES = ("M", "F", "O")
_NEEDED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName"),
    *("AccessionNumber", "StudyID", "PositionReferenceIndicator"),
)
"""Attributes that a segmentation must have, though without a value (type 2 in PS3.3, A.51)."""
_SERIES_AFTER = 1000
"""Segmentations come after the series of a study in lists: this is added to the number of the series."""
_LARGEST_SERIES = 2**31 - 1


class Reference(NamedTuple):
    """An image that a frame of a segmentation belongs to."""

    kind: str
    """SOP Class UID."""
    instance: str
    """SOP Instance UID."""
    frame_number: int | None
    """Number in its file, from 1; None where the file has no other."""


class SegmentedSeries(NamedTuple):
    """The series that was segmented."""

    images: list[pydicom.Dataset]
    """For each slice, from first to last along the normal, a CT slice without numbers, of the same patient and study
    and at the same place. Its SOP Instance UID is no real one, and stands for the reference."""
    references: dict[str, Reference]
    """What the UIDs of the slices stand for."""
    series: str
    """Series Instance UID; "" where there is none."""
    number: int
    """A number for the series of the segmentation."""


def segmented_series(volume: DicomVolume) -> SegmentedSeries:
    """Read what a segmentation takes over; files are not changed.

    Attributes that are missing or damaged are empty; UIDs of study and frame of reference that are missing are made
    from that of the series, so that all segmentations of the series have the same.

    Raises:
        ImageError: If a file is damaged.
    """
    common, number = _common(volume)
    images, references = [], {}
    for index, frame in enumerate(volume.frames):
        image = pydicom.Dataset()
        image.update(common)
        image.SOPInstanceUID = f"2.25.{index + 1}"
        image.ImagePositionPatient = decimal_strings(frame.position_mm or ())
        images.append(image)
        if frame.instance and frame.series:
            frame_number = frame.index + 1 if frame.num_in_file > 1 else None
            references[image.SOPInstanceUID] = Reference(frame.kind, frame.instance, frame_number)
    return SegmentedSeries(images, references, volume.frames[0].series, number)


def decimal_strings(numbers: Sequence[float]) -> list[str]:
    """Numbers as DICOM writes them, in at most 16 characters."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _common(volume: DicomVolume) -> tuple[pydicom.Dataset, int]:
    """What all slices share, and the number of the new series."""
    first = volume.frames[0]
    assert first.cosines is not None, "volumes have one"
    assert first.spacing_mm is not None, "volumes have one"
    header = read_header(first.path)
    assert header is not None, "it was read before"
    common = _patient_and_study(header)
    common.SOPClassUID = CTImageStorage
    common.Modality = "CT"
    common.SeriesInstanceUID = first.series
    common.StudyInstanceUID = _uid(first, "StudyInstanceUID")
    common.FrameOfReferenceUID = _uid(first, "FrameOfReferenceUID")
    common.Rows, common.Columns = first.shape
    common.ImageOrientationPatient = decimal_strings(first.cosines)
    common.PixelSpacing = decimal_strings(first.spacing_mm)
    (step,) = decimal_strings([volume.step_mm])
    common.SpacingBetweenSlices = step
    thickness = _number(header, "SliceThickness")
    common.SliceThickness = step if thickness is None or thickness <= 0 else decimal_strings([thickness])[0]
    if _text(header, "LossyImageCompression") == "01":
        common.LossyImageCompression = "01"  # what is made of such images says so, too (PS3.3, C.7.6.1.1.5)
    number = _number(header, "SeriesNumber") or 0
    return common, int(number) + _SERIES_AFTER if 0 <= number < _LARGEST_SERIES - _SERIES_AFTER else _SERIES_AFTER


def _patient_and_study(header: pydicom.Dataset) -> pydicom.Dataset:
    """A data set of the attributes of patient and study that have a sound value, and of empty ones that are needed."""
    found: dict[str, Any] = dict.fromkeys(_NEEDED, "")
    for name in (*_TEXTS, *_NAMES):
        if text := _text(header, name):
            found[name] = text
    for name, kind in _DATES.items():
        try:
            found[name] = str(kind(_text(header, name)) or "")
        except ValueError:
            continue
    for name in _NUMBERS:
        if (number := _number(header, name)) is not None:
            (found[name],) = decimal_strings([number])
    if (sex := _text(header, "PatientSex").upper()) in _SEXES:
        found["PatientSex"] = sex
    result = pydicom.Dataset()
    for name, value in found.items():
        setattr(result, name, value)
    return result


def _text(header: pydicom.Dataset, name: str) -> str:
    """An attribute as text; "" where it is missing, empty or has several values."""
    try:
        value = header.get(name)
        return "" if value is None or isinstance(value, MultiValue) else str(value).strip()
    except Exception:  # pydicom converts values when they are asked for, with errors of all kinds
        return ""


def _number(header: pydicom.Dataset, name: str) -> float | None:
    try:
        number = float(_text(header, name))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _uid(frame: Frame, name: str) -> str:
    """A UID of a frame; where there is none, one that is made of that of its series."""
    return frame.origin.get(name) or str(UID(generate_uid(entropy_srcs=[name, frame.series or frame.path.name])))
