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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRSpectroscopyStorage,
    RawDataStorage,
    RLELossless,
)

from seg25d.data.cases import DICOM_ENDINGS, has_dicom_mark
from seg25d.data.dicom_codestreams import check_deflated
from seg25d.data.dicom_values import Vector, cross, distance, listed, number, texts, unit_vectors, vector
from seg25d.data.problems import FileError

CURE_OF_DAMAGE = "copy or export it again"
_VECTORS = {
    0x00540010: "EnergyWindowVector",
    0x00540020: "DetectorVector",
    0x00540030: "PhaseVector",
    0x00540060: "RRIntervalVector",
    0x00540070: "TimeSlotVector",
    0x00540100: "TimeSliceVector",
}
"""What Frame Increment Pointer may name beside slices, in nuclear medicine: a number per frame (PS3.3 C.8.4.8)."""
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
    *_VECTORS.values(),
)
"""Attributes that tell images of one place apart, by their keywords in DICOM PS3.6, the surest first."""
ORIGIN_TAGS = ("PatientID", "Modality", "RescaleType", "PhotometricInterpretation")
"""Attributes that all slices of a volume share, if they have them."""
UID_TAGS = ("StudyInstanceUID", "FrameOfReferenceUID")
"""The same, which programs that write one file after the other make anew for each."""
_SLICE_VECTOR, _OFFSETS = 0x00540080, 0x3004000C
_DEFER_BYTES = 4096
_UNDEFINED_LENGTH = 0xFFFFFFFF
_RUN_LENGTH_RATIO = 64
"""Most bytes that a byte becomes: two bytes of PackBits stand for 128 (DICOM PS3.5, annex G)."""
_OTHER_RATIO = 2000
"""The same for JPEG of all kinds and DEFLATE (1032 to 1); a slice of zeros, 512 x 512, has 1 in about 500."""
_SMALL_IMAGE_BYTES = 1 << 20
_NO_IMAGES = (MRSpectroscopyStorage, RawDataStorage)
"""What has rows and columns, and no image."""
_FRAME_BYTES = 8
"""A compressed frame has an item of its own at least: a tag and a length (DICOM PS3.5, annex A.4)."""
MAX_FRAMES = 1 << 16
"""Frames of a file; enhanced files of time series have some ten thousand. A frame may have one bit."""
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
    kind: str
    """SOP Class UID; "" where there is none."""
    num_in_file: int
    """Frames of its file."""
    number: int | None
    """Instance Number."""
    shape: tuple[int, int]
    """Rows and columns."""
    spacing_mm: Vector | None
    """Distances of rows and of columns."""
    thickness_mm: float | None
    """Distance to the next slice, or else thickness of the slice, as the header says."""
    between_mm: float | None
    """Distance to the next slice, as the header says."""
    orientation: Vector | None
    """Direction cosines of a row (x, y, z in LPS), then of a column."""
    cosines: Vector | None
    """The same as the header has them, rounded."""
    position_mm: Vector | None
    """Centre of the first voxel, (x, y, z) in LPS."""
    slope: float
    intercept: float
    rescale: frozenset[str]
    """Which of slope and intercept it says."""
    is_scout: bool
    """Whether it is a localizer."""
    phase: Mapping[str, str]
    """The attributes of `PHASE_TAGS` that it has, as text."""
    origin: Mapping[str, str]
    """The attributes of `ORIGIN_TAGS` and `UID_TAGS` that it has, as text."""

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
    if not marked and path.suffix.lower() not in DICOM_ENDINGS:
        return None
    try:
        with quiet_pydicom():
            check_deflated(path)
            dataset = pydicom.dcmread(path, defer_size=_DEFER_BYTES, force=not marked)
    except FileError:
        raise
    except Exception as error:  # whatever a damaged file leads to
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1].rpartition("ERROR: ")[2][:120] if lines else type(error).__name__
    return FileError(path, f"the DICOM file is cut off or damaged ({detail})", CURE_OF_DAMAGE)


def _should_hold_image(dataset: pydicom.Dataset) -> bool:
    """Whether a file is an image, even where its voxels are cut off; reports, plans and structures are not."""
    kind = UID(str(dataset.get("SOPClassUID", "")))
    if kind == MediaStorageDirectoryStorage or kind in _NO_IMAGES:
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
    if (count := _num_frames(dataset)) > MAX_FRAMES:
        raise FileError(path, f"the file has {count} frames, expected are at most {MAX_FRAMES}", CURE_OF_DAMAGE)
    wanted = math.ceil(int(dataset.Rows) * int(dataset.Columns) * _num_frames(dataset) * bits / 8)
    if wanted <= 0:
        raise FileError(path, "the file has no voxels", CURE_OF_DAMAGE)
    _check_compression(path, dataset, wanted)
    if raw.length == _UNDEFINED_LENGTH:
        return
    # Of a deflated file all was inflated, and places are not those in the file.
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
        "\\".join(str(value) for value in listed(dataset.get(name))) for name in ("WindowCenter", "WindowWidth")
    )
    return center, width


def is_compressed(dataset: pydicom.Dataset) -> bool:
    """Whether the voxels of a file are encoded in some way."""
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", ""))) if hasattr(dataset, "file_meta") else UID("")
    return bool(syntax) and not syntax.is_private and syntax.is_transfer_syntax and syntax.is_compressed


def _is_deflated(dataset: pydicom.Dataset) -> bool:
    """Whether the whole file is compressed, so that places and lengths are not those of its bytes."""
    return bool(dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _num_frames(dataset: pydicom.Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def _frames(path: Path, dataset: pydicom.Dataset) -> list[Frame]:
    shared = _flattened(dataset.get("SharedFunctionalGroupsSequence") or ())
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    count = _num_frames(dataset)
    if groups and len(groups) != count:
        raise FileError(path, f"the file has {count} frames and describes {len(groups)}", CURE_OF_DAMAGE)
    own = {name: dataset[name].value for name in _WANTED if name in dataset}
    detectors = _flattened(dataset.get("DetectorInformationSequence") or ())
    common = {**detectors, **own, **shared}
    frames = [
        _frame(path, index, {**common, **_flattened([groups[index]])} if groups else common) for index in range(count)
    ]
    return frames if groups or count == 1 else _stacked(path, frames, common)


def _flattened(items: Sequence[pydicom.Dataset]) -> dict[str, Any]:
    """Attributes of functional groups by their keywords, whatever standard group they are in."""
    found: dict[str, Any] = {}
    for item in items[:1]:
        for element in item:
            if element.tag.is_private:
                continue  # vendors keep copies of attributes there, of other images too
            if element.VR == "SQ":
                found |= _flattened(element.value)
            elif element.keyword in _WANTED:
                found[element.keyword] = element.value
    return found


def _frame(path: Path, index: int, values: Mapping[str, Any]) -> Frame:
    instance_number = values.get("InstanceNumber")
    kinds = [str(each).upper() for name in ("ImageType", "FrameType") for each in listed(values.get(name))]
    if "MOSAIC" in kinds:
        cure = "convert them with a program that knows them, such as dcm2niix"
        raise FileError(path, "the file is a mosaic of Siemens: several slices side by side in one image", cure)
    between, thickness = values.get("SpacingBetweenSlices"), values.get("SliceThickness")
    slope = values.get("RescaleSlope") or values.get("DoseGridScaling")
    given = {"Rescale Slope": slope, "Rescale Intercept": values.get("RescaleIntercept")}
    cosines = vector(path, "Image Orientation", values.get("ImageOrientationPatient"), 6)
    return Frame(
        path=path,
        index=index,
        series=str(values.get("SeriesInstanceUID") or ""),
        instance=str(values.get("SOPInstanceUID") or ""),
        kind=str(values.get("SOPClassUID") or ""),
        num_in_file=max(1, int(values.get("NumberOfFrames") or 1)),
        number=None if instance_number in (None, "") else int(instance_number),
        shape=(int(values["Rows"]), int(values["Columns"])),
        spacing_mm=vector(path, "Pixel Spacing", values.get("PixelSpacing"), 2),
        thickness_mm=distance(path, "Slice Thickness", between or thickness),
        between_mm=distance(path, "Spacing Between Slices", between),
        orientation=unit_vectors(path, cosines),
        cosines=cosines,
        position_mm=vector(path, "Image Position", values.get("ImagePositionPatient"), 3),
        slope=1.0 if slope in (None, "") else number(path, "Rescale Slope", slope),
        intercept=number(path, "Rescale Intercept", values.get("RescaleIntercept") or 0),
        rescale=frozenset(name for name, value in given.items() if value not in (None, "")),
        is_scout=any("LOCALIZER" in kind or "SCOUT" in kind for kind in kinds),
        phase=texts(values, PHASE_TAGS),
        origin=texts(values, (*ORIGIN_TAGS, *UID_TAGS)),
    )


_WANTED = frozenset(
    {
        "InstanceNumber", "SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns", "PixelSpacing", "SliceThickness",
        "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
        "GridFrameOffsetVector", "DoseGridScaling", "FrameIncrementPointer", "SliceVector", "SOPClassUID",
        "NumberOfFrames", *PHASE_TAGS, *ORIGIN_TAGS, *UID_TAGS,
    }
)  # fmt: skip


def _stacked(path: Path, frames: list[Frame], values: Mapping[str, Any]) -> list[Frame]:
    """Frames of one position, each with its own: doses say their offsets, others the distance of their slices.

    What Frame Increment Pointer names beside slices tells phases apart.
    """
    first = frames[0]
    pointers = [int(pointer) for pointer in listed(values.get("FrameIncrementPointer"))]
    slices = {_SLICE_VECTOR, _OFFSETS}
    known = slices | set(_VECTORS) if slices & set(pointers) else slices
    if foreign := [pointer for pointer in pointers if pointer not in known]:
        name = pydicom.datadict.keyword_for_tag(foreign[0]) or f"({foreign[0] >> 16:04X},{foreign[0] & 0xFFFF:04X})"
        problem = f"its frames follow each other by {name}: they are no slices of a volume"
        raise FileError(path, problem, "give the series that was made of them, or leave it out")
    vectors = {
        _VECTORS[pointer]: _per_frame(path, _VECTORS[pointer], values, frames)
        for pointer in pointers
        if pointer in _VECTORS
    }
    frames = [
        replace(frame, phase={**frame.phase, **{name: str(vector[frame.index]) for name, vector in vectors.items()}})
        for frame in frames
    ]
    offsets = _offsets(path, frames, values, in_slices=_SLICE_VECTOR in pointers)
    if not offsets or first.position_mm is None or first.orientation is None:
        return [replace(frame, position_mm=None) for frame in frames]
    normal = cross(first.orientation[:3], first.orientation[3:])
    places = [
        tuple(start + offset * along for start, along in zip(first.position_mm, normal, strict=True))
        for offset in offsets
    ]
    return [replace(frame, position_mm=place) for frame, place in zip(frames, places, strict=True)]


def _offsets(path: Path, frames: Sequence[Frame], values: Mapping[str, Any], *, in_slices: bool) -> list[float]:
    """Distances of the frames from the first, in mm; none where they are not known."""
    if listed(values.get("GridFrameOffsetVector")):
        offsets = _per_frame(path, "GridFrameOffsetVector", values, frames)
        position = frames[0].position_mm
        if position is not None and abs(offsets[0] - position[2]) < 1e-3 and offsets[0] != 0:
            return [offset - offsets[0] for offset in offsets]  # places along z, as DICOM PS3.3 C.8.8.3.2 allows
        return offsets
    between = values.get("SpacingBetweenSlices")
    if between in (None, ""):
        return []
    numbers = _per_frame(path, "SliceVector", values, frames) if in_slices else [frame.index for frame in frames]
    return [number(path, "Spacing Between Slices", between) * (each - numbers[0]) for each in numbers]


def _per_frame(path: Path, name: str, values: Mapping[str, Any], frames: Sequence[Frame]) -> list[float]:
    """An attribute with a number per frame."""
    numbers = [number(path, name, each) for each in listed(values.get(name))]
    if len(numbers) != len(frames):
        problem = f"the file has {len(frames)} frames and {len(numbers)} numbers in {name}"
        raise FileError(path, problem, CURE_OF_DAMAGE)
    return numbers
