"""The window of intensities that the header of an image asks for."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

from pathlib import Path

from seg25d.data.dicom_frames import read_window
from seg25d.data.dicom_series import find_volumes
from seg25d.data.image_io import open_header

CENTER, WIDTH = "0028|1050", "0028|1051"
"""The DICOM attributes Window Center and Window Width as SimpleITK names them (DICOM PS3.6). It keeps these names in
MetaImage and NRRD files that it writes from DICOM images; NIfTI files have no place for them."""


def read_window_tags(path: Path) -> tuple[str, str]:
    """What the header of an image says about the window to look at it with, word for word.

    Args:
        path: A file, or a folder of DICOM files, of which the first slice is asked.

    Returns:
        Centre and width, each "" where the header says nothing. There may be several values, separated by backslashes.

    Raises:
        ImageError: If the header cannot be read.
    """
    if path.is_dir():
        return read_window(find_volumes(path)[0].frames[0].path)
    reader = open_header(path)
    center, width = (reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else "" for key in (CENTER, WIDTH))
    return center, width
