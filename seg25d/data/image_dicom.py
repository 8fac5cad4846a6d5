"""Reading a folder of DICOM files as one image."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from seg25d.data.image_checks import check_kind, unreadable
from seg25d.data.problems import FileError


def read_dicom(folder: Path) -> sitk.Image:
    """Read the one series of a folder of DICOM files.

    Raises:
        ImageError: If there is none, more than one, or it is not a 3D image.
    """
    files = series_files(folder)
    try:
        if len(files) == 1:
            image = sitk.ReadImage(files[0])
        else:
            reader = sitk.ImageSeriesReader()
            reader.SetNumberOfThreads(1)
            reader.SetFileNames(files)
            image = reader.Execute()
    except RuntimeError as error:
        raise unreadable(folder, error) from None
    check_kind(folder, image)
    return image


def series_files(folder: Path) -> tuple[str, ...]:
    """The files of the one DICOM series of a folder, in the order of its slices.

    Raises:
        ImageError: If there is none, or more than one.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise FileError(folder, "the folder holds no DICOM images", "give a folder with the files of one series")
    if len(series) > 1:
        counts = {name: len(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name)) for name in series}
        listed = ", ".join(f"{name} ({count} files)" for name, count in counts.items())
        cure = "put each series into a separate folder"
        raise FileError(folder, f"the folder holds {len(series)} DICOM series: {listed}", cure)
    files: tuple[str, ...] = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    return files
