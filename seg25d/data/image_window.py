"""The display window of intensities that the header of an image specifies."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

from pathlib import Path

from seg25d.data.cases import is_picture
from seg25d.data.dicom_frames import read_window
from seg25d.data.dicom_series import find_volumes
from seg25d.data.image_apart import read_apart
from seg25d.data.image_io import open_header

CENTER, WIDTH = "0028|1050", "0028|1051"
"""The DICOM attributes Window Center and Window Width as SimpleITK names them (DICOM PS3.6). It keeps these names in
MetaImage and NRRD files that it writes from DICOM images; NIfTI files have no place for them."""


def read_window_tags(path: Path) -> tuple[str, str]:
    """Read the display window from the header of an image, as text.

    Args:
        path: A file, or a folder of DICOM files, of which the first slice is read.

    Returns:
        Centre and width, each "" if the header does not have it. There may be several values, separated by backslashes.

    Raises:
        ImageError: If the header cannot be read.
    """
    if path.is_dir():
        return read_window(find_volumes(path)[0].frames[0].path)
    if is_picture(path):
        return "", ""
    return read_apart(_read_metadata, path)


def _read_metadata(path: Path) -> tuple[str, str]:
    reader = open_header(path)
    center, width = (reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else "" for key in (CENTER, WIDTH))
    return center, width
