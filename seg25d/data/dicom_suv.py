"""Standardised uptake values by body weight: activity per gram, as a share of the dose that is left of the injection.

After the vendor-neutral calculation of the Quantitative Imaging Biomarkers Alliance (QIBA, FDG-PET/CT SUV), for images
whose numbers are Bq/ml and corrected for attenuation and decay:

    SUV = number * weight in g / dose;   dose = injected * 2 ** (-(start of the scan - injection) / half-life)

where numbers are corrected to the start of the scan (Decay Correction START), and the injected dose where they are
corrected to the injection (ADMIN).
"""
# mypy: disallow-untyped-calls=False
# pydicom makes attributes of tags when a file is read.

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pydicom

from seg25d.data.dicom_frames import Frame, read_header
from seg25d.data.problems import FileError

_PHILIPS = "Philips PET Private Group"
_GRAMS = 1000.0
_DAY = timedelta(days=1)


def suv_factor(frames: Sequence[Frame]) -> float:
    """What numbers are multiplied by to become uptake values by body weight.

    Args:
        frames: Slices of one PET series.

    Raises:
        ImageError: If it is no PET, or an attribute that the calculation needs is missing; names it.
    """
    path = frames[0].path
    dataset = read_header(path)
    assert dataset is not None, "it was read before"
    try:
        return _factor(dataset, [read_header(frame.path) or dataset for frame in frames[1:]])
    except ValueError as error:
        raise FileError(path, f"no uptake values: {error}", "leave out --suv, or export the series complete") from None


def _factor(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> float:
    if dataset.get("Modality") != "PT":
        raise ValueError(f"the modality is {dataset.get('Modality')!r}, wanted is 'PT'")
    units = str(_wanted(dataset, "Units"))
    if units == "GML":
        if str(dataset.get("SUVType") or "BW") != "BW":
            raise ValueError(f"the numbers are uptake values by {dataset.SUVType}, not by body weight")
        return 1.0
    corrections = {str(each) for each in _listed(dataset.get("CorrectedImage"))}
    if missing := {"ATTN", "DECAY"} - corrections:
        raise ValueError(f"Corrected Image has no {' and '.join(sorted(missing))}")
    if units == "CNTS":
        return _philips_factor(dataset)
    if units != "BQML":
        raise ValueError(f"Units are {units!r}, wanted are BQML, GML or CNTS")
    weight = _positive(dataset, "PatientWeight")
    return weight * _GRAMS / _dose(dataset, others)


def _dose(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> float:
    """The dose in Bq at the time to which the numbers are corrected."""
    tracer = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or ()), None)
    if tracer is None:
        raise ValueError("Radiopharmaceutical Information Sequence is missing")
    injected, half_life = _positive(tracer, "RadionuclideTotalDose"), _positive(tracer, "RadionuclideHalfLife")
    correction = str(_wanted(dataset, "DecayCorrection"))
    if correction == "ADMIN":
        return injected
    if correction != "START":
        raise ValueError(f"Decay Correction is {correction!r}, wanted is START or ADMIN")
    start = _start_of_scan(dataset, others)
    injection = _moment(tracer.get("RadiopharmaceuticalStartDateTime"))
    if injection is None:
        day = f"{start:%Y%m%d}"
        injection = _moment(f"{day}{_wanted(tracer, 'RadiopharmaceuticalStartTime')}")
        if injection is not None and injection > start:
            injection -= _DAY  # injected before midnight
    if injection is None or not timedelta() <= start - injection <= _DAY:
        raise ValueError(f"the scan, at {start:%Y-%m-%d %H:%M:%S}, does not follow the injection within a day")
    return injected * math.pow(2.0, -(start - injection).total_seconds() / half_life)


def _start_of_scan(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> datetime:
    """The time to which START corrects: that of the series, where it is not after the first acquisition."""
    series = _moment(f"{dataset.get('SeriesDate', '')}{dataset.get('SeriesTime', '')}")
    each = [_moment(f"{one.get('AcquisitionDate', '')}{one.get('AcquisitionTime', '')}") for one in (dataset, *others)]
    acquired = min((moment for moment in each if moment is not None), default=None)
    if acquired is None:
        raise ValueError("Acquisition Date and Time are missing")
    if series is not None and series <= acquired:
        return series
    # A series that was made later: General Electric keeps the time of the scan.
    private = dataset.get((0x0009, 0x100D))
    return (_moment(str(private.value)) if private is not None else None) or acquired


def _philips_factor(dataset: pydicom.Dataset) -> float:
    """The factor that the scanner wrote, where numbers are counts."""
    try:
        factor = float(dataset.private_block(0x7053, _PHILIPS)[0x00].value)
    except (KeyError, TypeError, ValueError):
        raise ValueError("Units are CNTS, and the scanner's factor (7053,1000) is missing") from None
    if not factor > 0:
        raise ValueError(f"the scanner's factor (7053,1000) is {factor}")
    return factor


def _moment(text: Any) -> datetime | None:
    """A date with a time, YYYYMMDDhhmmss with parts of a second; None where it is not complete."""
    digits = str(text or "").split("+")[0].split("-")[0].split(".")
    whole = digits[0]
    if len(whole) not in (12, 14) or not whole.isdigit():
        return None
    try:
        moment = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return moment + timedelta(seconds=float(f"0.{digits[1]}") if len(digits) > 1 and digits[1].isdigit() else 0.0)


def _wanted(dataset: pydicom.Dataset, name: str) -> Any:
    value = dataset.get(name)
    if value in (None, ""):
        raise ValueError(f"{name} is missing")
    return value


def _positive(dataset: pydicom.Dataset, name: str) -> float:
    number = float(_wanted(dataset, name))
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} is {number}")
    return number


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
