"""Reading a folder of DICOM files as one image, or one of its phases."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types, pydicom has few.

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from scipy import ndimage

from seg25d.data.dicom_codestreams import check_codestreams
from seg25d.data.dicom_frames import CURE_OF_DAMAGE, Frame, damaged, quiet_pydicom, read_header
from seg25d.data.dicom_series import DicomVolume, find_volumes
from seg25d.data.dicom_suv import suv_factor
from seg25d.data.dicom_values import cross
from seg25d.data.image_checks import check_geometry, check_memory
from seg25d.data.image_geometry import Geometry
from seg25d.data.problems import FileError

logger = logging.getLogger(__name__)
__all__ = ["DicomVolume", "find_volumes", "read_dicom", "read_dicom_geometry", "read_volume"]

Shifts = tuple[tuple[float, float], ...]
_READ_BY_PYDICOM = (RLELossless, DeflatedExplicitVRLittleEndian)
"""Encodings that pydicom decodes with nothing but numpy; the others go to GDCM."""
_READ_BY_GDCM = (
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    JPEG2000Lossless,
    JPEG2000,
)
_NUMBER_BYTES = 4
"""Of a number at most: int32 or float32."""
_VOXEL_ATTRIBUTES = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def read_dicom(folder: Path) -> tuple[NDArray[Any], Geometry]:
    """Read the one series of a folder of DICOM files; see `find_volumes` and `read_volume`."""
    (volume,) = find_volumes(folder)
    for change in volume.changes:
        logger.warning("%s: %s", folder, change)
    return read_volume(volume)


def read_dicom_geometry(folder: Path) -> Geometry:
    """The grid of the one series of a folder of DICOM files, from the headers alone.

    Raises:
        ImageError: See `find_volumes`; or if the grid cannot be one.
    """
    (volume,) = find_volumes(folder)
    return volume_geometry(volume)


def read_volume(volume: DicomVolume, *, suv: bool = False) -> tuple[NDArray[Any], Geometry]:
    """Read the voxels of a volume.

    Args:
        volume: Its slices.
        suv: Turn PET into standardised uptake values by body weight.

    Returns:
        The voxels (z, y, x), z along the normal of the slices, and their grid. Each slice has its own rescale slope and
        intercept. Numbers are whole where all slopes and intercepts are and no slice was made, else float32.

    Raises:
        ImageError: If a file is damaged, the grid cannot be one, numbers are too large for float32, or there are no
            uptake values.
    """
    geometry = volume_geometry(volume)
    check_memory(volume.frames[0].path.parent, geometry.shape, _NUMBER_BYTES)
    slices = _read_slices(volume.frames)
    if suv:
        factor = suv_factor(volume.frames)
        slices = [(array * factor).astype(np.float32) for array in slices]
    if volume.shifts is not None:
        slices = _straighten(slices, volume.shifts)
    array = np.stack(slices)
    del slices
    if volume.places is not None:
        array = _interpolate(array, volume.places)
    return array, geometry


def volume_geometry(volume: DicomVolume) -> Geometry:
    first = volume.frames[0]
    assert first.orientation is not None, "volumes have one"
    assert first.spacing_mm is not None, "volumes have one"
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    (rows_before, columns_before), (more_rows, more_columns) = _margins(volume.shifts)
    between_rows, between_columns = first.spacing_mm
    origin = np.array(volume.origin_mm) + column * between_rows * rows_before + row * between_columns * columns_before
    matrix = np.stack([row, column, np.array(cross(first.orientation[:3], first.orientation[3:]))], axis=1)
    numbers = (volume.step_mm, between_rows, between_columns), tuple(origin.tolist()), tuple(matrix.ravel().tolist())
    check_geometry(first.path.parent, *numbers)
    num_slices = len(volume.frames) if volume.places is None else round(volume.places[-1]) + 1
    return Geometry(
        shape=(num_slices, first.shape[0] + more_rows, first.shape[1] + more_columns),
        spacing_mm=numbers[0],
        origin_mm=numbers[1],
        direction=numbers[2],
    )


def _margins(shifts: Shifts | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the rows and columns of straightened slices begin, in those of the first, and how many more there are."""
    if shifts is None:
        return (0, 0), (0, 0)
    lowest, highest = np.floor(np.min(shifts, axis=0)).astype(int), np.ceil(np.max(shifts, axis=0)).astype(int)
    return (int(lowest[0]), int(lowest[1])), (int(highest[0] - lowest[0]), int(highest[1] - lowest[1]))


def _straighten(slices: list[NDArray[Any]], shifts: Shifts) -> list[NDArray[Any]]:
    """Slices as one stack straight along the normal, by linear interpolation; the lowest number is around them."""
    starts, more = _margins(shifts)
    lowest = float(min(array.min() for array in slices))
    straight = []
    for array, shift in zip(slices, shifts, strict=True):
        wide = np.pad(array.astype(np.float32), [(0, extra) for extra in more], constant_values=lowest)
        by = [each - start for each, start in zip(shift, starts, strict=True)]
        straight.append(ndimage.shift(wide, by, order=1, mode="constant", cval=lowest))
    return straight


def _interpolate(array: NDArray[Any], places: tuple[float, ...]) -> NDArray[np.float32]:
    """Slices at 0, 1, 2 ... by linear interpolation between those at the places."""
    wanted = np.arange(round(places[-1]) + 1)
    before = np.clip(np.searchsorted(places, wanted, side="right") - 1, 0, len(places) - 2)
    lower, upper = np.take(places, before), np.take(places, before + 1)
    result = np.empty((len(wanted), *array.shape[1:]), np.float32)
    for index, (first, share) in enumerate(zip(before, (wanted - lower) / (upper - lower), strict=True)):
        result[index] = (1 - share) * array[first] + share * array[first + 1]
    return result


def _read_slices(frames: tuple[Frame, ...]) -> list[NDArray[Any]]:
    """The numbers of each frame (rows, columns): whole numbers of all, or float32 of all."""
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames)
    of_file: dict[Path, list[int]] = {}
    for index, frame in enumerate(frames):
        of_file.setdefault(frame.path, []).append(index)
    slices: list[NDArray[Any]] = [np.empty(0)] * len(frames)
    for path, indices in of_file.items():
        stored = _stored_numbers(path, frames[indices[0]].shape)
        for index in indices:
            frame = frames[index]
            if frame.index >= len(stored):
                raise FileError(path, f"frame {frame.index + 1} is not there", CURE_OF_DAMAGE)
            slices[index] = _rescale(stored[frame.index], frame.slope, frame.intercept, whole=whole)
            if not np.isfinite(slices[index]).all() and np.isfinite(stored[frame.index]).all():
                problem = (
                    f"its numbers become too large by Rescale Slope {frame.slope:g} and Intercept {frame.intercept:g}"
                )
                raise FileError(path, problem, "correct its header")
    if any(array.dtype.kind == "f" for array in slices):
        slices = [array.astype(np.float32) for array in slices]
    return slices


def _rescale(stored: NDArray[Any], slope: float, intercept: float, *, whole: bool) -> NDArray[Any]:
    """Numbers as int16 or int32 where slope and intercept are whole and they have place, else float32."""
    if whole and stored.dtype.kind in "iub":
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                if (slope, intercept) == (1, 0):
                    return stored.astype(dtype)
                # Products may leave the type where sums do not.
                return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    with np.errstate(over="ignore"):
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _stored_numbers(path: Path, shape: tuple[int, int]) -> NDArray[Any]:
    """The numbers of a file as they are stored (frames, rows, columns), without slope and intercept."""
    try:
        dataset = read_header(path)
        assert dataset is not None, "it was read before"
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax in _READ_BY_GDCM:
            check_codestreams(path, dataset)
            array = _decode_by_gdcm(dataset)
        elif syntax and (not syntax.is_transfer_syntax or (syntax.is_compressed and syntax not in _READ_BY_PYDICOM)):
            problem = f"its voxels are encoded as {syntax.name}, which cannot be read"
            raise FileError(path, problem, "export it without compression, or as JPEG 2000")
        else:
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, _ = dataset.original_encoding
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            with quiet_pydicom():
                array = _without_unused_bits(dataset.pixel_array, dataset)
    except FileError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise damaged(path, error) from None
    return array.reshape(-1, *shape)


def _without_unused_bits(array: NDArray[Any], dataset: pydicom.Dataset) -> NDArray[Any]:
    """Numbers of the stored bits alone: old scanners put overlays into the others."""
    unused = 0 if array.dtype.kind == "f" else array.itemsize * 8 - int(dataset.get("BitsStored") or array.itemsize * 8)
    if unused <= 0 or int(dataset.get("BitsAllocated", 0)) == 1:
        return array
    return (array << unused) >> unused


def _decode_by_gdcm(dataset: pydicom.Dataset) -> NDArray[Any]:
    """Decode JPEG of any kind: a copy of the image with nothing but its voxels goes to GDCM."""
    copy = pydicom.Dataset()
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID = SecondaryCaptureImageStorage
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID = pydicom.uid.generate_uid()
    for name in _VOXEL_ATTRIBUTES:
        if name in dataset:
            copy[name] = dataset[name]
    copy.PhotometricInterpretation = "MONOCHROME2"  # numbers as they are stored: GDCM would turn the others round
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.dcm")
        copy.save_as(path, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
