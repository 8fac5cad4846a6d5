"""Reading and writing image files with SimpleITK, which is used only in the modules `data/image_*.py`.

Arrays are in canonical axes (D, H, W); they are written with exactly the geometry of the file they belong to.
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import gzip
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray

from seg25d.core.files import atomic_path
from seg25d.core.leftovers import temporary_name
from seg25d.core.system_errors import check_room, writing
from seg25d.data.cases import ENDINGS, is_picture, split_ending
from seg25d.data.grid_problems import grid_problem
from seg25d.data.image_apart import read_apart
from seg25d.data.image_bytes import truncated
from seg25d.data.image_checks import (
    check_file,
    check_finite_voxels,
    check_geometry,
    check_kind,
    check_memory,
    unreadable,
)
from seg25d.data.image_dicom import read_dicom, read_dicom_geometry
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_headers import check_header, missing_bytes
from seg25d.data.image_meta import split_meta_file
from seg25d.data.image_nifti import patch_nifti_geometry, read_nifti_header
from seg25d.data.image_nrrd import patch_nrrd_geometry, read_nrrd_geometry
from seg25d.data.image_pictures import (
    count_picture_channels,
    read_picture,
    read_picture_geometry,
    read_picture_labels,
    write_picture,
)
from seg25d.data.image_slicer import check_names, layers_are_no_image, merge_layers, segments
from seg25d.data.labels import round_nearly_whole
from seg25d.data.problems import FileError

__all__ = [
    "Geometry",
    "count_channels",
    "open_header",
    "read_channel",
    "read_geometry",
    "read_image",
    "read_labels",
    "write_channel",
    "write_labels",
]

_IMAGE_IO = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
_GZIP_LEVEL = 6
_LABEL_ALL = "give each voxel a label, such as background (0), and export the labels again"
_PERMISSIVE = "ITK_NIFTI_SFORM_PERMISSIVE"


def read_geometry(path: Path) -> Geometry:
    """Read the grid of an image from its header, or from the headers of a folder of DICOM files.

    Raises:
        ImageError: If the file is missing, empty, not 3D or not an image with one number per voxel.
    """
    if path.is_dir():
        return read_dicom_geometry(path)
    if is_picture(path):
        return read_picture_geometry(path)
    return read_apart(_header_geometry, path)


def count_channels(paths: Sequence[Path]) -> int:
    """The channels of a case: one per file, but three of a picture with colours and four of one with alpha too.

    Raises:
        ImageError: If a picture cannot be read.
    """
    return sum(count_picture_channels(path) if is_picture(path) else 1 for path in paths)


def read_image(paths: Sequence[Path], check_finite: bool = True) -> tuple[NDArray[np.float32], Geometry]:
    """Read the channels of a case.

    Args:
        paths: A file, or a folder of DICOM files, per channel; at least one. A picture with colours has several.
        check_finite: Search for NaN and infinity; NIfTI files with real numbers are read a second time for this, which
            is unnecessary after verification.

    Returns:
        The image (C, D, H, W), converted to float32, and the geometry of the first channel.

    Raises:
        ImageError: If a file cannot be read, has voxels that are NaN or infinite, or the grids of the channels differ.
    """
    array, geometry = read_apart(_read_channels, paths[0])
    image = np.empty((count_channels(paths), *array.shape[1:]), np.float32)
    filled = 0
    for path in paths:
        if path != paths[0]:
            array, other = read_apart(_read_channels, path)
            if found := grid_problem(path, other, paths[0], geometry):
                difference, cure = found
                raise FileError(path, f"its grid differs from that of {paths[0].name}: {difference}", cure)
        image[filled : filled + len(array)] = array
        if check_finite:
            check_finite_voxels(path, image[filled : filled + len(array)])
        filled += len(array)
    return image, geometry


def read_channel(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read one channel of a case without conversion.

    Args:
        path: A file, or a folder of DICOM files.

    Returns:
        The intensities (D, H, W) in the type of the file, and its geometry.

    Raises:
        ImageError: If it cannot be read.
    """
    return read_apart(_read, path)


def read_labels(path: Path, names: Mapping[str, int | tuple[int, ...]] | None = None) -> tuple[NDArray[Any], Geometry]:
    """Read a label file.

    Args:
        path: The file. Layers of a segmentation of Slicer become one label map.
        names: The declared values by name, for segments of Slicer.

    Returns:
        The values (D, H, W) in the type of the file, nearly whole numbers rounded, and its geometry.

    Raises:
        ImageError: If the file cannot be read, has voxels that are NaN or infinite, or segments of Slicer overlap or
            have other values than the declared ones.
    """
    return read_apart(_read_labels, path, dict(names or {}))


def write_labels(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write a label file with the geometry of the image that it belongs to.

    Args:
        path: The file; its ending chooses the format. It is complete or absent afterwards, and its bytes depend only on
            the arguments.
        array: Whole numbers (D, H, W) in canonical axes.
        geometry: The geometry of the image. Spacing, origin and direction are written exactly if both files have the
            same format, or the output is `.mha` or `.mhd`; else to the precision of the format (32 bits in NIfTI).

    Raises:
        ImageError: If the ending is not known or the file cannot be written.
    """
    write_channel(path, array.astype(np.uint8) if array.dtype == np.bool_ else array, geometry)


def write_channel(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write one channel of a case in the type of the array, otherwise like `write_labels`.

    Args:
        path: The file.
        array: Intensities (D, H, W) in canonical axes.
        geometry: The geometry of the image that they come from.

    Raises:
        ImageError: If the ending is not known or the file cannot be written.
    """
    assert array.shape == geometry.canonical_shape, f"{array.shape} on a grid of {geometry.canonical_shape}"
    ending = _known_ending(path)
    if is_picture(path):
        write_picture(path, geometry.from_canonical(array), geometry)
        return
    image = sitk.GetImageFromArray(geometry.from_canonical(array))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    try:
        with atomic_path(path) as temporary:
            if ending in (".nii", ".nii.gz"):
                _write_nifti(path, temporary, image, geometry)
            elif ending == ".mhd":
                _write_mhd(path, temporary, image)
            else:
                _write(temporary, image)
                if ending == ".nrrd" and geometry.nrrd_geometry:
                    patch_nrrd_geometry(temporary, geometry.nrrd_geometry)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1]
        raise FileError(
            path, f"the file cannot be written ({detail})", "check free space and permissions of the folder"
        ) from None


def _known_ending(path: Path) -> str:
    ending = split_ending(path)[1]
    if not ending:
        raise FileError(path, "its ending is not known", f"known are {', '.join(ENDINGS)}")
    return ending


def open_header(path: Path) -> sitk.ImageFileReader:
    """Open a file and read its header, with all checks that need only the header.

    Raises:
        ImageError: If the file is missing, empty or damaged, not 3D or neither an image with one number per voxel nor a
            segmentation of Slicer.
    """
    ending = _known_ending(path)
    check_file(path)
    check_header(path, ending)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO[ending])
    reader.SetNumberOfThreads(1)
    reader.SetFileName(str(path))
    _run(path, reader.ReadImageInformation)
    check_kind(path, reader, layers=bool(segments(reader)))
    return reader


def _header_geometry(path: Path) -> Geometry:
    return _geometry(path, open_header(path))


def _read_channels(path: Path) -> tuple[NDArray[Any], Geometry]:
    """The channels (C, D, H, W) of a file, or a folder of DICOM files, and their grid."""
    if is_picture(path):
        array, geometry = read_picture(path)
        return geometry.to_canonical(array), geometry
    array, geometry = _read(path)
    return array[np.newaxis], geometry


def _read(path: Path) -> tuple[NDArray[Any], Geometry]:
    if path.is_dir():
        array, geometry = read_dicom(path)
    else:
        reader = open_header(path)
        if reader.GetNumberOfComponents() > 1:
            raise layers_are_no_image(path, reader.GetNumberOfComponents())
        geometry = _geometry(path, reader)
        image = _read_voxels(path, reader)
        array = sitk.GetArrayViewFromImage(image)
    return geometry.to_canonical(array), geometry


def _read_labels(path: Path, names: Mapping[str, int | tuple[int, ...]]) -> tuple[NDArray[Any], Geometry]:
    array, geometry = _read(path) if path.is_dir() else _read_label_file(path, names)
    if array.dtype.kind == "f":
        check_finite_voxels(path, array, _LABEL_ALL)
    return round_nearly_whole(array), geometry


def _read_label_file(path: Path, names: Mapping[str, int | tuple[int, ...]]) -> tuple[NDArray[Any], Geometry]:
    """The values (D, H, W) of a label file, and its grid."""
    if is_picture(path):
        values, geometry = read_picture_labels(path)
        return geometry.to_canonical(values), geometry
    reader = open_header(path)
    geometry, found = _geometry(path, reader), segments(reader)
    values = sitk.GetArrayViewFromImage(image := _read_voxels(path, reader))
    has_layers = image.GetNumberOfComponentsPerPixel() > 1
    check_names(path, values if has_layers else values[..., np.newaxis], found, names)
    return geometry.to_canonical(merge_layers(path, values, found, names) if has_layers else values), geometry


def _read_voxels(path: Path, reader: sitk.ImageFileReader) -> sitk.Image:
    check_memory(path, (*reader.GetSize()[::-1], reader.GetNumberOfComponents()), _voxel_bytes(reader))
    if missing := missing_bytes(path, split_ending(path)[1]):
        raise truncated(path, missing)
    size = reader.GetSize()
    if len(size) > 3:
        reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
    image: sitk.Image = _run(path, reader.Execute)
    return image


def _voxel_bytes(reader: sitk.ImageFileReader) -> int:
    """Bytes of a number in the file, by the name of its type: "32-bit float"."""
    bits = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    return int(bits[1]) // 8 if bits else 8


def _run(path: Path, step: Callable[[], Any]) -> Any:
    """Run one step of reading; NIfTI axes that are not orthogonal are read as the closest orthogonal ones.

    ITK refuses such files unless this variable is set. Labels for them are still written with the affine of the input.
    """
    try:
        return step()
    except RuntimeError as error:
        if "orthonormal" not in str(error):
            raise unreadable(path, error) from None
    os.environ[_PERMISSIVE] = "1"
    try:
        return step()
    except RuntimeError as error:
        raise unreadable(path, error) from None
    finally:
        del os.environ[_PERMISSIVE]


def _geometry(path: Path, image: sitk.ImageFileReader) -> Geometry:
    num_axes = len(image.GetSize())
    matrix = np.array(image.GetDirection()).reshape(num_axes, num_axes)[:3, :3]
    spacing = np.array(image.GetSpacing()[:3])
    # A header may have negative spacing: SimpleITK turns the axis round when it reads the voxels.
    matrix *= np.where(spacing < 0, -1, 1)
    numbers = (tuple(np.abs(spacing)[::-1].tolist()), image.GetOrigin()[:3], matrix.ravel().tolist())
    check_geometry(path, *numbers)
    ending = split_ending(path)[1]
    header = read_nifti_header(path) if ending in (".nii", ".nii.gz") else None
    return Geometry(
        shape=image.GetSize()[2::-1],
        spacing_mm=numbers[0],
        origin_mm=numbers[1],
        direction=tuple(numbers[2]),
        nifti_geometry=header.geometry() if header else None,
        nrrd_geometry=read_nrrd_geometry(path) if ending == ".nrrd" else None,
    )


def _write(path: Path, image: sitk.Image, compress: bool = True) -> None:
    """Write a file by ITK, whose writers of NIfTI and NRRD say nothing where the disk is full."""
    sitk.WriteImage(image, str(path), compress)
    if missing := missing_bytes(path, split_ending(path)[1]):
        raise RuntimeError(missing)
    check_room(path)


def _write_nifti(path: Path, temporary: Path, image: sitk.Image, geometry: Geometry) -> None:
    """Write uncompressed, insert the geometry of the input, then compress: gzip files cannot be changed in place.

    ITK takes off further endings of a name, such as those of `case.nii.nii.gz`, so that it gets a name without any.
    """
    plain = path.with_name(temporary_name(f"{zlib.crc32(path.name.encode()):08x}.nii"))
    with writing(path, plain):
        _write(plain, image, compress=False)
        if geometry.nifti_geometry:
            patch_nifti_geometry(plain, geometry.nifti_geometry)
        if path.suffix != ".gz":
            plain.replace(temporary)
            return
        with (
            plain.open("rb") as source,
            temporary.open("wb") as target,
            gzip.GzipFile("", "wb", _GZIP_LEVEL, target, mtime=0) as stream,
        ):
            shutil.copyfileobj(source, stream, 1 << 20)


def _write_mhd(path: Path, temporary: Path, image: sitk.Image) -> None:
    """Write header and data file: SimpleITK would name the data file after the temporary header."""
    # A per cent sign in the name of a data file stands for the number of a slice.
    data_path = path.with_name(path.stem.replace("%", "percent") + ".zraw")
    whole = temporary.with_suffix(".mha")
    with writing(path, whole):
        _write(whole, image)
        with atomic_path(data_path) as temporary_data:
            split_meta_file(whole, temporary, temporary_data, data_path.name)
            # The old header must never exist beside the new data; without a header there is no image.
            path.unlink(missing_ok=True)
