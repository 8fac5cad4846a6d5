"""Damaged DICOM series: each is read right, or refused in one sentence, whatever the damage.

One file of a small good series (plain, run-length encoded, lossless JPEG, JPEG 2000, several frames) is changed at
random with a fixed seed, and the series is read as `predict` and `convert` read it, in a process of its own with a
limit of memory and of time. Allowed are the exit status 0, then with the numbers that SimpleITK gives file by file
where it can read them, and 2.

    python benchmarks/fuzz_dicom.py                        # 2,000 series
    python benchmarks/fuzz_dicom.py --files 50 --seed 7
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from fuzz_headers import NUM_FILES, SEED, WRONG, Outcome, run_apart, table
from mutations import mutate
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from seg25d.core.errors import InputError
from seg25d.data.dicom_frames import quiet_pydicom
from seg25d.data.image_io import read_channel, read_geometry

SHAPE = (5, 16, 15)
HEADER_BYTES = 1500
"""Where the voxels of the good files begin, about."""
KINDS = ("plain", "RLE", "JPEG", "JPEG2000", "frames")


def good_series(folder: Path, kind: str) -> None:
    """Write a good series of one kind: slices of 3 mm, or one file with all of them."""
    folder.mkdir()
    values = np.random.default_rng(SEED).integers(0, 2000, SHAPE).astype(np.uint16)
    if kind == "frames":
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.7, 0.8, 3.0))
        sitk.WriteImage(image, str(folder / "all.dcm"))
        return
    for index, numbers in enumerate(values):
        image = sitk.GetImageFromArray(numbers[None])
        image.SetSpacing((0.7, 0.8, 3.0))
        tags = {
            "0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": "1.2.3.4", "0020|0013": str(index),
            "0020|0032": f"0\\0\\{3 * index}", "0020|0037": "1\\0\\0\\0\\1\\0", "0028|1052": "-1024", "0028|1053": "1",
        }  # fmt: skip
        for tag, text in tags.items():
            image.SetMetaData(tag, text)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{index}.dcm"))
        if kind.startswith("JPEG"):
            writer.SetUseCompression(True)
            writer.SetCompressor(kind)
        writer.Execute(image)
        if kind == "RLE":
            dataset = pydicom.dcmread(folder / f"{index}.dcm")
            dataset.compress(RLELossless)
            dataset.save_as(folder / f"{index}.dcm")


def read_series(folder: Path) -> int:
    """Read a series; gives 0, or `WRONG` if the numbers are not those of its files, each read by hand.

    Raises:
        Exception: Whatever the product raises; a mistake of the product unless it is an `InputError`.
    """
    geometry = read_geometry(folder)
    array, same = read_channel(folder)
    try:
        by_hand = numbers_by_hand(sorted(folder.iterdir()))
    except RuntimeError:
        return 0  # what SimpleITK cannot read and pydicom can, such as a length that is odd
    if geometry != same or array.shape != by_hand.shape:
        return WRONG
    close = np.isclose(array, by_hand, rtol=1e-5, atol=1e-3, equal_nan=True)
    return 0 if close.all() else WRONG


def numbers_by_hand(paths: Sequence[Path]) -> NDArray[np.float64]:
    """All slices in the order of their positions along their normal, in canonical axes; files without images not."""
    slices: list[tuple[float, NDArray[np.float64]]] = []
    for path in paths:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["Rows"])
        if "Rows" not in dataset:
            continue
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
        normal = np.array(image.GetDirection()).reshape(3, 3)[:, 2]
        start = np.array(image.GetOrigin()) @ normal
        step = image.GetSpacing()[2]
        slices += [(start + step * index, each) for index, each in enumerate(sitk.GetArrayFromImage(image))]
    stacked = sitk.GetImageFromArray(np.stack([each for _, each in sorted(slices, key=lambda item: item[0])]))
    stacked.SetDirection(image.GetDirection())
    return sitk.GetArrayFromImage(sitk.DICOMOrient(stacked, "LPS")).astype(np.float64)


def mutated_series(source: Path, rng: random.Random, target: Path) -> Path:
    """Copy a good series and change one of its files; gives that file."""
    shutil.copytree(source, target)
    path = rng.choice(sorted(target.iterdir()))
    path.write_bytes(mutate(path.read_bytes(), HEADER_BYTES, rng))
    return path


def read_all(folder: Path, kind: str, num_files: int, seed: int) -> list[Outcome]:
    """Change and read a series of one kind again and again."""
    rng = random.Random(f"{seed} {kind}")
    good_series(folder / kind, kind)
    outcomes = []
    for index in range(num_files):
        target = folder / f"{kind}_{index}"
        path = mutated_series(folder / kind, rng, target)
        outcome = run_apart(lambda target=target: read_series(target))  # type: ignore[misc]
        outcomes.append(outcome)
        if outcome.status not in (0, InputError.exit_status):
            print(f"{kind} {index} {path.name}: {outcome.status} {outcome.text[-300:]}", flush=True)
        shutil.rmtree(target)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Read all changed series and print the table; 1 if one ended otherwise than with 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=NUM_FILES, help="series in all")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as name:
        each = -(-options.files // len(KINDS))
        results = {kind: read_all(Path(name), kind, each, options.seed) for kind in KINDS}
    print(table(results))
    return int(any(item.status not in (0, InputError.exit_status) for each in results.values() for item in each))


if __name__ == "__main__":
    sys.exit(main())
