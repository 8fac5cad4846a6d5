"""Headers of DICOM files: the place of each frame, and what its stored numbers stand for.

pydicom reads headers, numbers as they lie in the file and RLE; the compressed rest is decoded by GDCM, which comes with
SimpleITK (seg25d/data/image_dicom.py). Why not SimpleITK alone: documentation/reference/dicom.md.
"""
# mypy: disallow-untyped-calls=False
# pydicom makes attributes of tags when a file is read.

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage, RLELossless

from seg25d.data.cases import has_dicom_mark
from seg25d.data.dicom_codestreams import check_deflated
from seg25d.data.problems import FileError

Vector = tuple[float, ...]
CURE_OF_DAMAGE = "copy or export it again"
PHASE_TAGS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "FrameReferenceTime",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "ConvolutionKernel",
    "StackID",
    "AcquisitionDateTime",
    "FrameAcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
)
"""Attributes that tell images of one place apart, by their keywords in DICOM PS3.6, the surest first."""
_DEFER_BYTES = 4096
_UNDEFINED_LENGTH = 0xFFFFFFFF
_UNMARKED_ENDINGS = (".dcm", ".ima")
"""Endings of files that are tried even without the DICOM mark, as old programs wrote them."""
_RUN_LENGTH_RATIO = 64
"""Most bytes that a byte becomes: two bytes of PackBits stand for 128 (DICOM PS3.5, annex G)."""
_OTHER_RATIO = 2000
"""The same for JPEG of all kinds and DEFLATE (1032 to 1); a slice of zeros, 512 x 512, has 1 in about 500."""
_SMALL_IMAGE_BYTES = 1 << 20
_FRAME_BYTES = 8
"""A compressed frame has an item of its own at least: a tag and a length (DICOM PS3.5, annex A.4)."""
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Frame:
    """One slice: a file, or a frame of a file with several."""

    path: Path
    index: int
    """Place in its file, from 0."""
    series: str
    """Series Instance UID; "" where there is none."""
    instance: str
    """SOP Instance UID; "" where there is none."""
    number: int | None
    """Instance Number."""
    shape: tuple[int, int]
    """Rows and columns."""
    spacing_mm: Vector | None
    """Distances of rows and of columns."""
    thickness_mm: float | None
    """Distance to the next slice, or else thickness of the slice, as the header says."""
    orientation: Vector | None
    """Direction cosines of a row (x, y, z in LPS), then of a column."""
    position_mm: Vector | None
    """Centre of the first voxel, (x, y, z) in LPS."""
    slope: float
    intercept: float
    is_scout: bool
    """Whether it is a localizer."""
    phase: Mapping[str, str]
    """The attributes of `PHASE_TAGS` that it has, as text."""

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.path.name if self.index == 0 else f"{self.path.name} frame {self.index + 1}"


def read_frames(path: Path) -> list[Frame]:
    """Read the frames of a file; none where it is no DICOM file or holds no image.

    Raises:
        ImageError: If it is a DICOM file that is damaged or cut off, or has colours or no usable size.
    """
    dataset = read_header(path)
    if dataset is None:
        return []
    try:
        with quiet_pydicom():
            if not _should_hold_image(dataset):
                return []
            _check_pixels(path, dataset)
            return _frames(path, dataset)
    except FileError:
        raise
    except Exception as error:  # pydicom converts values when they are asked for, with errors of all kinds
        raise damaged(path, error) from None


def read_header(path: Path) -> pydicom.Dataset | None:
    """Read all of a file but its voxels; None where it is no DICOM file.

    Raises:
        ImageError: If it is one, and is damaged.
    """
    marked = has_dicom_mark(path)
    if not marked and path.suffix.lower() not in _UNMARKED_ENDINGS:
        return None
    try:
        with quiet_pydicom():
            check_deflated(path)
            dataset = pydicom.dcmread(path, defer_size=_DEFER_BYTES, force=not marked)
    except FileError:
        raise
    except (OSError, InvalidDicomError, Exception) as error:  # whatever a damaged file leads to
        raise damaged(path, error) from None
    return dataset


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Leave out what pydicom says of files: we look for what matters, and say it."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def damaged(path: Path, error: Exception) -> FileError:
    """The error for a file that could not be read."""
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return FileError(path, f"the DICOM file is cut off or damaged ({detail})", CURE_OF_DAMAGE)


def _should_hold_image(dataset: pydicom.Dataset) -> bool:
    """Whether a file is an image, even where its voxels are cut off; reports, plans and structures are not."""
    kind = UID(str(dataset.get("SOPClassUID", "")))
    if kind == MediaStorageDirectoryStorage:
        return False
    has_size = "Rows" in dataset or any(name in dataset for name in _PIXELS)
    return has_size or "Image Storage" in kind.name or not kind


def _check_pixels(path: Path, dataset: pydicom.Dataset) -> None:
    """Check that all voxels are there which the header announces, before memory is taken for them."""
    name = next((name for name in _PIXELS if name in dataset), None)
    if name is None or "Rows" not in dataset or "Columns" not in dataset:
        raise FileError(path, "the DICOM file ends before its image", CURE_OF_DAMAGE)
    samples = int(dataset.get("SamplesPerPixel", 1))
    if samples != 1 or "PALETTE" in str(dataset.get("PhotometricInterpretation", "")):
        raise FileError(path, "the file has colours, wanted is one number per voxel", "leave it out, or export it grey")
    raw = cast(RawDataElement, dataset.get_item(name, keep_deferred=True))
    bits = {"PixelData": int(dataset.get("BitsAllocated", 0)), "FloatPixelData": 32, "DoubleFloatPixelData": 64}[name]
    if bits not in (1, 8, 16, 32, 64):
        raise FileError(path, f"voxels of {bits} bits are not known", "export it again with 8, 16 or 32 bits")
    wanted = math.ceil(int(dataset.Rows) * int(dataset.Columns) * _num_frames(dataset) * bits / 8)
    if wanted <= 0:
        raise FileError(path, "the file has no voxels", CURE_OF_DAMAGE)
    _check_compression(path, dataset, wanted)
    if raw.length == _UNDEFINED_LENGTH:
        return
    found = raw.length if _is_deflated(dataset) else min(raw.length, path.stat().st_size - raw.value_tell)
    if found < min(raw.length, wanted) or (not is_compressed(dataset) and found < wanted):
        raise FileError(path, f"the file is cut off: {found} of {wanted} bytes of its image are there", CURE_OF_DAMAGE)


def _check_compression(path: Path, dataset: pydicom.Dataset, wanted: int) -> None:
    """Check that a compressed file can hold its image, before memory is taken for it."""
    if not is_compressed(dataset):
        return
    is_run_length = dataset.file_meta.TransferSyntaxUID == RLELossless
    most = path.stat().st_size * (_RUN_LENGTH_RATIO if is_run_length else _OTHER_RATIO) + _SMALL_IMAGE_BYTES
    if wanted > most or (not _is_deflated(dataset) and _num_frames(dataset) * _FRAME_BYTES > path.stat().st_size):
        problem = f"the file announces {wanted} bytes of image, which its {path.stat().st_size} bytes cannot hold"
        raise FileError(path, problem, CURE_OF_DAMAGE)


def read_window(path: Path) -> tuple[str, str]:
    """Window Center and Window Width of a file, word for word; several values are separated by backslashes.

    Raises:
        ImageError: If the file is damaged.
    """
    dataset = read_header(path)
    assert dataset is not None, "it was read before"
    center, width = (
        "\\".join(str(value) for value in _listed(dataset.get(name))) for name in ("WindowCenter", "WindowWidth")
    )
    return center, width


def is_compressed(dataset: pydicom.Dataset) -> bool:
    """Whether the voxels of a file are encoded in some way."""
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", ""))) if hasattr(dataset, "file_meta") else UID("")
    return bool(syntax) and not syntax.is_private and syntax.is_transfer_syntax and syntax.is_compressed


def _is_deflated(dataset: pydicom.Dataset) -> bool:
    """Whether the whole file is compressed, so that places and lengths are not those of its bytes."""
    return is_compressed(dataset) and dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian


def _num_frames(dataset: pydicom.Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _frames(path: Path, dataset: pydicom.Dataset) -> list[Frame]:
    shared = _flattened(dataset.get("SharedFunctionalGroupsSequence") or ())
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    count = _num_frames(dataset)
    if groups and len(groups) != count:
        raise FileError(path, f"the file has {count} frames and describes {len(groups)}", CURE_OF_DAMAGE)
    own = {element.keyword: element.value for element in dataset if element.VR != "SQ" and element.keyword in _WANTED}
    detectors = _flattened(dataset.get("DetectorInformationSequence") or ())
    common = {**detectors, **own, **shared}
    frames = [
        _frame(path, index, {**common, **_flattened([groups[index]])} if groups else common) for index in range(count)
    ]
    return frames if groups or count == 1 else _stacked(frames, common)


def _flattened(items: Sequence[pydicom.Dataset]) -> dict[str, Any]:
    """Attributes of functional groups by their keywords, whatever group they are in."""
    found: dict[str, Any] = {}
    for item in items[:1]:
        for element in item:
            if element.VR == "SQ":
                found |= _flattened(element.value)
            elif element.keyword in _WANTED:
                found[element.keyword] = element.value
    return found


def _frame(path: Path, index: int, values: Mapping[str, Any]) -> Frame:
    number = values.get("InstanceNumber")
    kinds = [str(each).upper() for name in ("ImageType", "FrameType") for each in _listed(values.get(name))]
    if "MOSAIC" in kinds:
        cure = "convert them with a program that knows them, such as dcm2niix"
        raise FileError(path, "the file is a mosaic of Siemens: several slices side by side in one image", cure)
    thickness = values.get("SpacingBetweenSlices") or values.get("SliceThickness")
    slope = values.get("RescaleSlope") or values.get("DoseGridScaling")
    return Frame(
        path=path,
        index=index,
        series=str(values.get("SeriesInstanceUID") or ""),
        instance=str(values.get("SOPInstanceUID") or ""),
        number=None if number in (None, "") else int(number),
        shape=(int(values["Rows"]), int(values["Columns"])),
        spacing_mm=_vector(path, "Pixel Spacing", values.get("PixelSpacing"), 2),
        thickness_mm=None if thickness in (None, "") else abs(_number(path, "Slice Thickness", thickness)),
        orientation=_unit_vectors(path, _vector(path, "Image Orientation", values.get("ImageOrientationPatient"), 6)),
        position_mm=_vector(path, "Image Position", values.get("ImagePositionPatient"), 3),
        slope=1.0 if slope in (None, "") else _number(path, "Rescale Slope", slope),
        intercept=_number(path, "Rescale Intercept", values.get("RescaleIntercept") or 0),
        is_scout=any("LOCALIZER" in kind or "SCOUT" in kind for kind in kinds),
        phase={name: str(values[name]) for name in PHASE_TAGS if values.get(name) not in (None, "")},
    )


_WANTED = frozenset(
    {
        "InstanceNumber", "SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns", "PixelSpacing", "SliceThickness",
        "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
        "GridFrameOffsetVector", "DoseGridScaling", *PHASE_TAGS,
    }
)  # fmt: skip


def _stacked(frames: list[Frame], values: Mapping[str, Any]) -> list[Frame]:
    """Frames of one position, each with its own: doses say their offsets, others the distance of their slices."""
    first = frames[0]
    offsets = [float(offset) for offset in _listed(values.get("GridFrameOffsetVector"))]
    between = values.get("SpacingBetweenSlices")
    if len(offsets) != len(frames):
        offsets = [] if between in (None, "") else [float(between) * frame.index for frame in frames]
    if not offsets or first.position_mm is None or first.orientation is None:
        return [_replaced(frame, position_mm=None) for frame in frames]
    if abs(offsets[0] - first.position_mm[2]) < 1e-3 and offsets[0] != 0:
        offsets = [offset - offsets[0] for offset in offsets]  # places along z, as DICOM PS3.3 C.8.8.3.2 allows
    normal = cross(first.orientation[:3], first.orientation[3:])
    places = [
        tuple(start + offset * along for start, along in zip(first.position_mm, normal, strict=True))
        for offset in offsets
    ]
    return [_replaced(frame, position_mm=place) for frame, place in zip(frames, places, strict=True)]


def _replaced(frame: Frame, **changes: Any) -> Frame:
    return Frame(**{**frame.__dict__, **changes})


def cross(first: Sequence[float], second: Sequence[float]) -> Vector:
    """The vector product of two vectors of three."""
    (a, b, c), (d, e, f) = first, second
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _number(path: Path, name: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise FileError(path, f"its {name} is {number}, wanted is a finite number", "correct its header")
    return number


def _vector(path: Path, name: str, value: Any, length: int) -> Vector | None:
    numbers = _listed(value)
    if not numbers:
        return None
    if len(numbers) != length:
        raise FileError(path, f"its {name} has {len(numbers)} numbers, wanted are {length}", "correct its header")
    return tuple(_number(path, name, number) for number in numbers)


def _unit_vectors(path: Path, cosines: Vector | None) -> Vector | None:
    """Directions of unit length at right angles; headers have rounded ones."""
    if cosines is None:
        return None
    row, column = cosines[:3], cosines[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    product = sum(a * b for a, b in zip(row, column, strict=True))
    if any(abs(length - 1) > _UNIT_TOLERANCE for length in lengths) or abs(product) > _UNIT_TOLERANCE:
        raise FileError(
            path, f"its Image Orientation {list(cosines)} is no pair of right-angled directions", "correct it"
        )
    row = tuple(each / lengths[0] for each in row)
    product = sum(a * b for a, b in zip(row, column, strict=True))
    column = tuple(b - product * a for a, b in zip(row, column, strict=True))
    return (*row, *(each / math.hypot(*column) for each in column))


_UNIT_TOLERANCE = 1e-2
"""Headers have cosines of few digits; those that are further off are damaged."""
