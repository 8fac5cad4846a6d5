"""Small DICOM files, written by pydicom attribute by attribute."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (0.8, 0.7)
"""Between rows and between columns, mm."""
SERIES = "1.2.3.4"


def slice_dataset(numbers: NDArray[Any], position: Sequence[float], number: int = 1, **attributes: Any) -> Dataset:
    """A CT slice with numbers (rows, columns), whose attributes can be replaced; None takes one away."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=[repr((position, number, sorted(attributes.items())))]),
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": "1.2.3",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": number,
        "ImagePositionPatient": [round(float(each), 9) for each in position],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": list(SPACING),
        "SliceThickness": 2.0,
        "Rows": numbers.shape[-2],
        "Columns": numbers.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": numbers.itemsize * 8,
        "BitsStored": numbers.itemsize * 8,
        "HighBit": numbers.itemsize * 8 - 1,
        "PixelRepresentation": int(numbers.dtype.kind == "i"),
        "PixelData": numbers.tobytes(),
    } | attributes
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_slices(
    folder: Path,
    volume: NDArray[Any],
    place: Callable[[int], Sequence[float]] = lambda index: (0, 0, 2.0 * index),
    attributes: Callable[[int], dict[str, Any]] = lambda _: {},
    names: Callable[[int], str] = lambda index: f"{index + 1}.dcm",
) -> Path:
    """A file per slice of a volume (z, y, x)."""
    for index, numbers in enumerate(volume):
        save(slice_dataset(numbers, place(index), index + 1, **attributes(index)), folder / names(index))
    return folder


def write_frames(path: Path, volume: NDArray[Any], places: Sequence[Sequence[float]]) -> Path:
    """Enhanced CT: one file with all slices of a volume (z, y, x)."""
    groups = []
    for place in places:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [float(each) for each in place]
        group.PlanePositionSequence = [position]
        groups.append(group)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), 2.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    attributes: dict[str, Any] = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
    )
    attributes |= {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": groups}
    attributes |= {"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": len(groups)}
    return save(slice_dataset(volume, (0, 0, 0), **attributes), path)


def write_by_simpleitk(
    path: Path, numbers: NDArray[Any], z_mm: float, compressor: str | None, tags: dict[str, str] | None = None
) -> None:
    """A file of one axial slice (rows, columns), compressed where a compressor is named."""
    image = sitk.GetImageFromArray(numbers[None])
    image.SetSpacing((SPACING[1], SPACING[0], 3))
    place = {"0020|000e": SERIES, "0020|0032": f"0\\0\\{z_mm}", "0020|0037": "1\\0\\0\\0\\1\\0"}
    for tag, text in (place | (tags or {})).items():
        image.SetMetaData(tag, text)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    if compressor is not None:
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
    writer.Execute(image)


def ramp(num_slices: int = 6, shape: tuple[int, int] = (5, 4)) -> NDArray[np.int16]:
    """Slices of different numbers, no two voxels alike."""
    return np.arange(num_slices * shape[0] * shape[1], dtype=np.int16).reshape(num_slices, *shape)
