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
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pydicom

from seg25d.data.dicom_frames import Frame, read_header
from seg25d.data.dicom_values import listed
from seg25d.data.problems import FileError

_PHILIPS = "Philips PET Private Group"
_GRAMS = 1000.0
_OFFSET = re.compile(r"[+-]\d{4}$")
_DAY = timedelta(days=1)


def _text_of(name: str, dataset: pydicom.Dataset) -> str:
    return str(dataset.get(name, "missing"))


def _tracer(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """What was injected; an empty data set where nothing is said."""
    return next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or ()), pydicom.Dataset())


def _text_of_tracer(name: str, dataset: pydicom.Dataset) -> str:
    return _text_of(name, _tracer(dataset))


_FACTORS: dict[str, Callable[[pydicom.Dataset], str]] = {
    **{name: partial(_text_of, name) for name in ("Units", "DecayCorrection", "CorrectedImage", "PatientWeight")},
    **{
        name: partial(_text_of_tracer, name)
        for name in (
            "RadionuclideTotalDose",
            "RadionuclideHalfLife",
            "RadiopharmaceuticalStartTime",
            "RadiopharmaceuticalStartDateTime",
        )
    },
}
"""Attributes that the factor is made of."""


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
        others = [(each, read_header(each) or dataset) for each in {frame.path: None for frame in frames[1:]}]
        _check_same(path, dataset, others)
        factor = _factor(dataset, [other for _, other in others])
        if not 0 < factor < math.inf:
            raise ValueError(f"the factor that its attributes give is {factor}")
        return factor
    except ValueError as error:
        raise FileError(path, f"no uptake values: {error}", "leave out --suv, or export the series complete") from None


def _check_same(path: Path, dataset: pydicom.Dataset, others: Sequence[tuple[Path, pydicom.Dataset]]) -> None:
    """Check that all files say the same of what the factor is made of."""
    for name, get in _FACTORS.items():
        for other_path, other in others:
            if get(other) != get(dataset):
                raise ValueError(f"{name} is {get(dataset)} in {path.name} and {get(other)} in {other_path.name}")


def _factor(dataset: pydicom.Dataset, others: Sequence[pydicom.Dataset]) -> float:
    if dataset.get("Modality") != "PT":
        raise ValueError(f"the modality is {dataset.get('Modality')!r}, wanted is 'PT'")
    units = str(_wanted(dataset, "Units"))
    if units == "GML":
        if str(dataset.get("SUVType") or "BW") != "BW":
            raise ValueError(f"the numbers are uptake values by {dataset.SUVType}, not by body weight")
        return 1.0
    corrections = {str(each) for each in listed(dataset.get("CorrectedImage"))}
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
    tracer = _tracer(dataset)
    if not tracer:
        raise ValueError("Radiopharmaceutical Information Sequence is missing")
    injected, half_life = _positive(tracer, "RadionuclideTotalDose"), _positive(tracer, "RadionuclideHalfLife")
    correction = str(_wanted(dataset, "DecayCorrection"))
    if correction == "ADMIN":
        return injected
    if correction != "START":
        raise ValueError(f"Decay Correction is {correction!r}, wanted is START or ADMIN")
    start = _start_of_scan(dataset, others)
    injection = _injection(tracer, start, _offset(dataset))
    if not timedelta() <= start - injection <= _DAY:
        raise ValueError(f"the scan, at {start:%Y-%m-%d %H:%M:%S}, does not follow the injection within a day")
    left = injected * math.pow(2.0, -(start - injection).total_seconds() / half_life)
    if left == 0:
        raise ValueError(f"nothing is left of the dose, as RadionuclideHalfLife is {half_life} s")
    return left


def _injection(tracer: pydicom.Dataset, start: datetime, offset: str) -> datetime:
    """The time of the injection on the clock of the scan, whose offset from UTC is `offset`, if it says one."""
    text = str(tracer.get("RadiopharmaceuticalStartDateTime") or "")
    injection = _moment(text)
    if injection is not None:
        own = _OFFSET.search(text)
        if own is not None and offset:
            injection += _minutes(offset) - _minutes(own[0])
        elif own is not None and abs(start - injection) > _DAY / 2:
            raise ValueError(f"RadiopharmaceuticalStartDateTime {text} has an offset from UTC, the scan has none")
        return injection
    time = str(_wanted(tracer, "RadiopharmaceuticalStartTime"))
    injection = _moment(f"{start:%Y%m%d}{time}")
    if injection is None:
        raise ValueError(f"RadiopharmaceuticalStartTime is {time!r}, expected hours, minutes and seconds as hhmmss")
    return injection - _DAY if injection > start else injection  # injected before midnight


def _offset(dataset: pydicom.Dataset) -> str:
    """Offset of the scanner's clock from UTC, such as `+0100`; "" where it is not said."""
    found = _OFFSET.search(str(dataset.get("TimezoneOffsetFromUTC") or ""))
    return found[0] if found else ""


def _minutes(offset: str) -> timedelta:
    size = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
    return -size if offset[0] == "-" else size


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
