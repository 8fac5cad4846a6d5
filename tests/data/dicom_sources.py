"""DICOM series of many kinds, with what lies in each of their frames, for tests of segmentations of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    RTDoseStorage,
)

from tests.data.dicom_files import AXIAL, SPACING, save, slice_dataset, write_by_simpleitk, write_slices

SHAPE = (5, 7, 6)
PATIENT = {
    "PatientName": "Muster^Jörg",
    "PatientID": "4711",
    "PatientBirthDate": "19610203",
    "PatientSex": "M",
    "StudyDate": "20240229",
    "StudyTime": "101112.5",
    "StudyID": "7",
    "AccessionNumber": "A 1",
    "ReferringPhysicianName": "Meier^Anna",
    "SpecificCharacterSet": "ISO_IR 100",
    "FrameOfReferenceUID": "1.2.3.9",
    "SeriesNumber": 3,
    "PositionReferenceIndicator": "XY",
}


class Source(NamedTuple):
    """A frame of a series."""

    instance: str
    frame: int | None
    """From 1; None in a file with one frame."""
    position: tuple[float, ...]
    numbers: NDArray[Any]
    """As they are stored (rows, columns)."""


def scrambled(shape: Sequence[int] = SHAPE) -> NDArray[np.int16]:
    """A volume (z, y, x) in which no two voxels of a slice are alike, and no slice is like another."""
    rng = np.random.default_rng(sum(shape))
    slices = [100 * index + rng.permutation(shape[1] * shape[2]) for index in range(shape[0])]
    return np.array(slices, np.int16).reshape(shape)


def labels_of(numbers: NDArray[Any], num_labels: int = 3) -> NDArray[np.uint8]:
    """A label for each voxel of a slice (rows, columns), by the order of its numbers, which no slope changes.

    Some slices have none, and the last label has no voxel.
    """
    ranks = np.argsort(np.argsort(numbers, axis=None)).reshape(numbers.shape)
    if ranks.flat[0] % 3 == 0:
        return np.zeros(numbers.shape, np.uint8)
    return (ranks % num_labels).astype(np.uint8)


def _of_slices(
    place: Callable[[int], Sequence[float]] = lambda index: (-10.25, 3.5, 70.125 + 2.5 * index),
    names: Callable[[int], str] = lambda index: f"{index + 1}.dcm",
    shape: Sequence[int] = SHAPE,
    attributes: Callable[[int], dict[str, Any]] = lambda _: {},
    syntax: str | None = None,
) -> Callable[[Path], list[Source]]:
    def write(folder: Path) -> list[Source]:
        volume = scrambled(shape)
        swapped = volume.astype(">i2") if syntax == ExplicitVRBigEndian else volume
        write_slices(
            folder, swapped, place, lambda index: PATIENT | {"PixelRepresentation": 1} | attributes(index), names
        )
        sources = []
        for index, numbers in enumerate(volume):
            path = folder / names(index)
            dataset = dcmread(path)
            if syntax == RLELossless:
                dataset.compress(RLELossless, generate_instance_uid=False)
            elif syntax:
                dataset.file_meta.TransferSyntaxUID = syntax
            if syntax:
                del dataset._read_implicit, dataset._read_little
                save(_same(dataset), path)
            instance = str(dataset.get("SOPInstanceUID", ""))
            sources.append(Source(instance, None, tuple(map(float, dataset.ImagePositionPatient)), numbers))
        return sources

    return write


def _same(dataset: Dataset) -> Dataset:
    copy = Dataset()
    copy.update(dataset)
    copy.file_meta = dataset.file_meta
    return copy


def _along(cosines: Sequence[float], step: float) -> Callable[[int], Sequence[float]]:
    normal = np.cross(cosines[:3], cosines[3:])
    return lambda index: tuple(float(each) for each in np.array([-10.25, 3.5, 70]) + step * index * normal)


def _compressed(compressor: str) -> Callable[[Path], list[Source]]:
    def write(folder: Path) -> list[Source]:
        volume = scrambled((4, 16, 15))
        folder.mkdir(parents=True)
        sources = []
        for index, numbers in enumerate(volume):
            tags = {"0008|0060": "MR", "0020|000d": "1.2.3", "0020|0013": str(index + 1), "0020|0052": "1.2.3.9"}
            write_by_simpleitk(folder / f"{index}.dcm", numbers, 3 * index, compressor, tags)
            instance = str(dcmread(folder / f"{index}.dcm").SOPInstanceUID)
            sources.append(Source(instance, None, (0, 0, 3 * index), numbers))
        return sources

    return write


def _enhanced(order: Sequence[int], cosines: Sequence[float] = AXIAL, files: int = 1) -> Callable[[Path], list[Source]]:
    """Enhanced CT with frames in any order, in one file or in several."""

    def write(folder: Path) -> list[Source]:
        volume, place = scrambled(), _along(cosines, 2.5)
        sources = []
        for number, part in enumerate(np.array_split(np.array(order), files)):
            groups = []
            for index in part:
                group, position, content = Dataset(), Dataset(), Dataset()
                position.ImagePositionPatient = [round(float(each), 9) for each in place(int(index))]
                content.InStackPositionNumber = int(index) + 1
                group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
                groups.append(group)
            shared, orientation, measures = Dataset(), Dataset(), Dataset()
            orientation.ImageOrientationPatient = list(cosines)
            measures.PixelSpacing, measures.SliceThickness = list(SPACING), 2.5
            shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
            taken: dict[str, Any] = dict.fromkeys(
                ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
            )
            dataset = slice_dataset(
                volume[part], place(0), number + 1,
                **PATIENT, **taken, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(part),
                SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=groups,
            )  # fmt: skip
            save(dataset, folder / f"{number}.dcm")
            for frame, index in enumerate(part, 1):
                places = tuple(map(float, groups[frame - 1].PlanePositionSequence[0].ImagePositionPatient))
                sources.append(Source(str(dataset.SOPInstanceUID), frame, places, volume[index]))
        return sources

    return write


def _stack(**attributes: Any) -> Callable[[Path], list[Source]]:
    """Frames of one position: doses with offsets, secondary captures with a distance."""

    def write(folder: Path) -> list[Source]:
        volume = scrambled()
        dataset = slice_dataset(volume, (1, 2, 3), 1, **PATIENT, NumberOfFrames=len(volume), **attributes)
        save(dataset, folder / "a.dcm")
        instance = str(dataset.SOPInstanceUID)
        return [Source(instance, index + 1, (1, 2, 3 + 2.5 * index), numbers) for index, numbers in enumerate(volume)]

    return write


OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
FAR_OFF = [0.9955, 0.0, 0.004, 0.0, 1.0045, 0.004]
ROUNDED = [0.866, -0.5, 0.001, 0.499, 0.866, 0.05]
_rng = np.random.default_rng(1)
JITTER = _rng.uniform(-0.01, 0.01, (5, 3))
BARE: dict[str, Any] = dict.fromkeys(PATIENT)
ODD = {
    "PatientBirthDate": "unknown", "PatientSex": "X", "StudyDate": "20241399", "StudyTime": "noon", "SeriesNumber": -5,
    "PatientID": "x" * 80, "SpecificCharacterSet": None, "PatientName": "A=B=C=D",
    "SOPClassUID": "1.2.3.4.5.6", "FrameOfReferenceUID": "none", "StudyInstanceUID": "1..2",
}  # fmt: skip


def _orientation(cosines: Sequence[float]) -> Callable[[int], dict[str, Any]]:
    return lambda _: {"ImageOrientationPatient": list(cosines)}


SERIES_OF: dict[str, Callable[[Path], list[Source]]] = {
    "regular": _of_slices(),
    "names in another order": _of_slices(names=lambda index: f"{(index * 3) % 5}.dcm"),
    "from top to bottom": _of_slices(place=lambda index: (0, 0, -2.5 * index)),
    "sagittal": _of_slices(_along([0, 1, 0, 0, 0, -1], 2.5), attributes=_orientation([0, 1, 0, 0, 0, -1])),
    "coronal": _of_slices(_along([1, 0, 0, 0, 0, -1], -2.5), attributes=_orientation([1, 0, 0, 0, 0, -1])),
    "oblique": _of_slices(_along(OBLIQUE, 2.5), attributes=_orientation(OBLIQUE)),
    "turned normal": _of_slices(_along([-1, 0, 0, 0, 1, 0], 2.5), attributes=_orientation([-1, 0, 0, 0, 1, 0])),
    "rounded cosines": _of_slices(_along(ROUNDED, 2.5), attributes=_orientation(ROUNDED)),
    "cosines that are far off": _of_slices(_along(FAR_OFF, 2.5), attributes=_orientation(FAR_OFF)),
    "jitter": _of_slices(place=lambda index: (0, 0, 2.0 * index) + JITTER[index]),
    "positions in tenths": _of_slices(place=lambda index: (0, 0, round(4.96 * index, 1))),
    "not square": _of_slices(shape=(5, 11, 3)),
    "single slice": _of_slices(shape=(1, 7, 6)),
    "many slices": _of_slices(shape=(40, 3, 5)),
    "slopes of PET": _of_slices(
        attributes=lambda index: {"Modality": "PT", "RescaleSlope": [1, 0.0013, 0.5, 2, 0.07][index]}
    ),
    "implicit": _of_slices(syntax=ImplicitVRLittleEndian),
    "big endian": _of_slices(syntax=ExplicitVRBigEndian),
    "deflated": _of_slices(syntax=DeflatedExplicitVRLittleEndian),
    "run length": _of_slices(syntax=RLELossless),
    "JPEG": _compressed("JPEG"),
    "JPEG 2000": _compressed("JPEG2000"),
    "enhanced": _enhanced(range(5)),
    "enhanced in another order": _enhanced([3, 0, 4, 2, 1], OBLIQUE),
    "enhanced in two files": _enhanced([4, 3, 2, 1, 0], files=2),
    "dose": _stack(
        SOPClassUID=RTDoseStorage, Modality="RTDOSE", DoseGridScaling=0.001,
        FrameIncrementPointer=0x3004000C, GridFrameOffsetVector=[2.5 * index for index in range(5)],
    ),
    "secondary capture": _stack(
        SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, Modality="OT", SpacingBetweenSlices=2.5
    ),
    "no patient": _of_slices(attributes=lambda _: BARE),
    "odd attributes": _of_slices(attributes=lambda _: ODD),
    "a frame of reference per slice": _of_slices(attributes=lambda index: {"FrameOfReferenceUID": f"1.2.3.9.{index}"}),
}  # fmt: skip
