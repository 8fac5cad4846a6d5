"""Checks of image headers and of the length of their data, before SimpleITK reads a file.

The rules of each format are in `image_nifti.py`, `image_nrrd.py` and `image_meta.py`.
"""

from pathlib import Path

from seg25d.data.image_bytes import missing_gzip_bytes
from seg25d.data.image_meta import check_meta, missing_meta_bytes
from seg25d.data.image_nifti import check_nifti, read_nifti_header
from seg25d.data.image_nrrd import check_nrrd, missing_nrrd_bytes


def check_header(path: Path, ending: str) -> None:
    """Check what the header of an image file says, and that the bytes that are there can hold the voxels.

    Raises:
        ImageError: If it is of another format, contradicts itself, or the data cannot be there.
    """
    if ending in (".nii", ".nii.gz"):
        check_nifti(path, ending)
    elif ending == ".nrrd":
        check_nrrd(path)
    else:
        check_meta(path)


def missing_bytes(path: Path, ending: str) -> str | None:
    """Whether the data of a file that passed `check_header` end before all voxels are there, or are damaged.

    Returns:
        What is missing, or None where the file is complete.
    """
    if ending in (".nii", ".nii.gz"):
        header = read_nifti_header(path)
        assert header is not None, f"{path} passed check_header"
        return missing_gzip_bytes(path, header.num_bytes)
    return missing_nrrd_bytes(path) if ending == ".nrrd" else missing_meta_bytes(path)
