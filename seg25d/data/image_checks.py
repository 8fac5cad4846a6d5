"""Checks of image files; every error says in one sentence why the file cannot be used."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray

from seg25d.core.errors import ImageError
from seg25d.data.cases import split_ending
from seg25d.data.image_headers import count_bad_voxels
from seg25d.data.problems import FileError


def check_kind(path: Path, image: sitk.ImageFileReader | sitk.Image) -> None:
    """Check that an image is 3D with one real number per voxel.

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
        cure = "save each volume as a separate channel: CASE_0000, CASE_0001 ..."
        raise FileError(path, f"the file is {len(size)}D ({' x '.join(map(str, size))}), expected is 3D", cure)
    if components > 1:
        problem = f"the file has {components} numbers per voxel (RGB or vectors), expected is one"
        raise FileError(path, problem, "save each component as a separate channel: CASE_0000, CASE_0001 ...")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise FileError(path, "the file has complex numbers, expected are real ones", "save magnitude or phase alone")


def unreadable(path: Path, error: RuntimeError) -> ImageError:
    """The error for a file that SimpleITK could not read."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = re.sub(r"^.*ERROR: (\w+\(0x\w+\): )?", "", lines[-1]) if lines else "no reason given"
    return FileError(path, f"the file cannot be read, it is truncated or damaged ({detail})", "copy or export it again")


def check_finite_voxels(path: Path, values: NDArray[np.float32]) -> None:
    """Check that every voxel is a number.

    Args:
        path: The file; NIfTI files are scanned again, as the reader replaces such voxels by 0.
        values: Its voxels (D, H, W).

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
        raise FileError(path, problem, "replace them, for instance by the value of air or by 0")
