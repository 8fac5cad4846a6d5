"""Checks of image files; every error says in one sentence why the file cannot be used."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.memory import lack_of_memory
from seg25d.core.system_errors import refusal_to_read
from seg25d.data.cases import split_ending
from seg25d.data.image_bytes import COPY_AGAIN
from seg25d.data.image_geometry import LARGEST_MM, SMALLEST_MM
from seg25d.data.image_nifti import count_bad_voxels
from seg25d.data.problems import FileError

_OWN_CHANNELS = "save each component as a channel of its own (CASE_0000, CASE_0001 ...); labels as one number per voxel"
_FILL = "replace them, for instance by the value of air or by 0"
_FLOAT_BYTES = 4
_FARTHEST_MM = 1e7
"""No scanner is ten kilometres long."""
_LENGTH_TOLERANCE = 0.01
"""Directions in headers are rounded; what they are longer would be missing in the spacing."""
_LEAST_DETERMINANT = 1e-3
"""Of three directions of length 1; SimpleITK refuses 0."""


def check_file(path: Path) -> None:
    """Check that a file exists, can be read and is not empty.

    Raises:
        ImageError: If not.
    """
    if not path.is_file():
        raise FileError(path, "the file does not exist", "correct the path")
    if not is_text(str(path)):
        cure = "rename it, as programs that read images stop at such names"
        raise FileError(path, "its name, or that of a folder above it, is not UTF-8", cure)
    if not os.access(path, os.R_OK):
        raise FileError(path, "no permission to read the file", "ask its owner for permission to read it")
    if path.stat().st_size == 0:
        raise FileError(path, "the file is empty (0 bytes)", COPY_AGAIN)


def is_text(name: str) -> bool:
    """Whether a name is UTF-8; Python has escapes for the bytes of others, which SimpleITK ends the process for."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def check_kind(path: Path, image: sitk.ImageFileReader | sitk.Image, *, layers: bool = False) -> None:
    """Check that an image is 3D with one real number per voxel.

    Args:
        path: The file, for messages.
        image: The image, or its header.
        layers: Whether it may have several numbers per voxel, as segmentations of Slicer do.

    Raises:
        ImageError: If not.
    """
    size = image.GetSize()
    components = (
        image.GetNumberOfComponentsPerPixel() if isinstance(image, sitk.Image) else image.GetNumberOfComponents()
    )
    if len(size) < 3:
        raise FileError(path, f"the file is {len(size)}D, expected is a 3D volume", "stack the slices into a volume")
    if any(extent > 1 for extent in size[3:]):
        cure = "save each volume as a channel of its own (CASE_0000, CASE_0001 ...); labels as one volume of numbers"
        raise FileError(path, f"the file is {len(size)}D ({' x '.join(map(str, size))}), expected is 3D", cure)
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise FileError(path, "the file has complex numbers, expected are real ones", "save magnitude or phase alone")
    if components > 1 and not layers:
        problem = f"the file has {components} numbers per voxel (RGB or vectors), expected is one"
        raise FileError(path, problem, _OWN_CHANNELS)


def check_memory(path: Path, shape: Sequence[int], voxel_bytes: int) -> None:
    """Check that an image can be read, before memory is taken for what its header says.

    Args:
        path: The file, or folder of DICOM files.
        shape: Voxels along all axes, channels included.
        voxel_bytes: Of a voxel in the file. While it is read it is there twice, then once and as float32.

    Raises:
        ImageError: If more memory is needed than is free; says what would fit.
    """
    if lack := lack_of_memory(shape, 2 * voxel_bytes + _FLOAT_BYTES):
        cure = "correct the header if it is wrong, cut the image, or use a machine with more memory"
        raise FileError(path, f"it is too large: {lack}", cure)


def check_geometry(
    path: Path, spacing_mm: Sequence[float], origin_mm: Sequence[float], direction: Sequence[float]
) -> None:
    """Check that a grid can be one: finite numbers, voxels of a possible size, axes that point different ways.

    Args:
        path: The file, for messages.
        spacing_mm: Millimetres per voxel along (z, y, x), above 0.
        origin_mm: Position of the first voxel.
        direction: The 3 x 3 matrix, row by row.

    Raises:
        ImageError: If not.
    """
    cure = "correct the header of the file"
    if not all(np.isfinite(values).all() for values in (spacing_mm, origin_mm, direction)):
        raise FileError(path, "spacing, origin or direction is not a finite number", cure)
    if min(spacing_mm) < SMALLEST_MM or max(spacing_mm) > LARGEST_MM:
        said = " x ".join(f"{value:g}" for value in spacing_mm)
        problem = f"the spacing is {said} mm (z, y, x), expected is {SMALLEST_MM:g} to {LARGEST_MM:g} mm"
        raise FileError(path, problem, cure)
    if max(map(abs, origin_mm)) > _FARTHEST_MM:
        said = " x ".join(f"{value:g}" for value in origin_mm)
        raise FileError(path, f"the first voxel is at {said} mm (x, y, z), more than {_FARTHEST_MM:g} mm away", cure)
    matrix = np.reshape(direction, (3, 3))
    if np.abs(np.linalg.norm(matrix, axis=0) - 1).max() > _LENGTH_TOLERANCE:
        raise FileError(path, f"the directions of its axes, {matrix.T.tolist()}, are not of length 1", cure)
    if abs(np.linalg.det(matrix)) < _LEAST_DETERMINANT:
        raise FileError(path, "two of the axes in its header point the same way", cure)


def unreadable(path: Path, error: RuntimeError) -> InputError:
    """The error for a file that SimpleITK could not read."""
    if reason := refusal_to_read(error, path):
        return reason
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = re.sub(r"^.*ERROR: (\w+\(0x\w+\): )?", "", lines[-1]) if lines else "no reason given"
    return FileError(path, f"the file cannot be read, it is truncated or damaged ({detail})", COPY_AGAIN)


def check_finite_voxels(path: Path, values: NDArray[Any], cure: str = _FILL) -> None:
    """Check that every voxel is a number.

    Args:
        path: The file; NIfTI files are scanned again, as the reader replaces such voxels by 0.
        values: Its voxels (D, H, W).
        cure: What to do.

    Raises:
        ImageError: If voxels are NaN or infinite; says how many.
    """
    num_nan, num_infinite = count_bad_voxels(path) if split_ending(path)[1] in (".nii", ".nii.gz") else (0, 0)
    if num_nan + num_infinite == 0:
        num_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        num_nan = int(np.count_nonzero(np.isnan(values))) if num_bad else 0
        num_infinite = num_bad - num_nan
    if num_nan + num_infinite:
        problem = f"{num_nan} voxels are NaN and {num_infinite} are infinite"
        raise FileError(path, problem, cure)
