"""Hostile image files: one of each kind is refused in one sentence, and nothing but the file is read."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg25d.core.errors import CaseFailures, ImageError
from seg25d.data import image_io, verify
from seg25d.data.cases import Case
from seg25d.data.dataset import find_inputs
from seg25d.data.description import read_description
from seg25d.data.image_io import read_image
from seg25d.data.phantom import write_phantom_dataset
from seg25d.data.verify import verify_dataset
from seg25d.inference.cases import CaseOptions, Meaning, outcomes_here, predict_cases
from seg25d.inference.prediction_files import PredictionRecord

VOXELS = bytes(range(64))
MHD = (
    "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
    "ElementDataFile = {}\n"
)
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nspace: left-posterior-superior\nencoding: {}\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n{}\n"
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside which no header lies."""
    path = tmp_path / "outside.raw"
    path.write_bytes(VOXELS)
    (tmp_path / "images").mkdir()
    return path


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image([path])
    return str(caught.value)


@pytest.mark.parametrize("ending", ["mhd", "nrrd"])
@pytest.mark.parametrize(
    "name", ["%n", "%s%s", "%d", "x%9999999999d.raw 1 4 1", "../outside.raw", "{outside}", "~a.raw", "LISTa", "-", ""]
)
def test_headers_name_nothing_but_files_beside_them(ending: str, name: str, outside: Path) -> None:
    path = outside.parent / "images" / f"a.{ending}"
    named = name.format(outside=outside)
    for beside in ("~a.raw", "LISTa", "-", "a.raw"):
        (path.parent / beside).write_bytes(VOXELS)
    header = MHD.format(named) if ending == "mhd" else NRRD.format("raw", f"data file: {named}")
    path.write_text(header + "\n" * (ending == "nrrd") + f"{outside}\n" * 4)
    assert "data file" in refused(path)


@pytest.mark.parametrize("ending", ["mhd", "nrrd"])
@pytest.mark.parametrize("kind", ["link", "linked folder", "device", "fifo", "folder", "loop"])
def test_data_files_are_files_beside_the_header(ending: str, kind: str, outside: Path) -> None:
    folder = outside.parent / "images"
    path, data = folder / f"a.{ending}", folder / "a.raw"
    named = "b/outside.raw" if kind == "linked folder" else "a.raw"
    make = {
        "link": lambda: data.symlink_to(outside),
        "linked folder": lambda: (folder / "b").symlink_to(outside.parent),
        "device": lambda: data.symlink_to("/dev/zero"),
        "fifo": lambda: os.mkfifo(data),
        "folder": data.mkdir,
        "loop": lambda: data.symlink_to(data),
    }
    make[kind]()
    path.write_text(MHD.format(named) if ending == "mhd" else NRRD.format("raw", f"data file: {named}"))
    assert "does not" in refused(path)


def test_a_list_in_the_header_names_nothing_elsewhere(outside: Path) -> None:
    path = outside.parent / "images" / "a.mhd"
    path.write_text(MHD.format("LIST") + f"{outside}\n" * 4)
    assert "expected is a file beside the header" in refused(path)


def test_other_letters_of_local_are_a_name(outside: Path) -> None:
    path = outside.parent / "images" / "a.mhd"
    path.write_bytes(MHD.format("LoCaL").encode() + VOXELS)
    assert "does not exist beside it" in refused(path)


def test_compressed_data_are_not_uncompressed_beyond_what_is_announced(outside: Path) -> None:
    path = outside.parent / "images" / "a.nrrd"
    path.write_bytes(NRRD.format("gzip", "").encode() + gzip.compress(bytes(1 << 24), 1))
    assert "more than the announced 64 bytes" in refused(path)


def test_names_that_are_no_text(outside: Path) -> None:
    path = outside.parent / "images" / os.fsdecode(b"\xff\xfe.nii.gz")
    path.write_bytes(gzip.compress(VOXELS))
    assert "is not UTF-8; rename it" in refused(path)


def read_or_crash(path: Path) -> Any:
    """In place of what reads images: the process dies of one of them."""
    if "_002_0001" in path.name:
        os.abort()
    return REAL_READER(path)


REAL_READER = image_io._read_channels
REAL_CHECK = verify._check_voxels


def check_or_crash(case: Case, **settings: Any) -> Any:
    image_io._read_channels = read_or_crash
    return REAL_CHECK(case, **settings)


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "Dataset900_Phantom"
    write_phantom_dataset(folder, num_training=4, num_test=3, shape=(8, 16, 16))
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_crash_in_verify_is_one_problem(num_workers: int, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if num_workers:
        monkeypatch.setattr(verify, "_check_voxels", check_or_crash)
    else:
        monkeypatch.setattr(image_io, "_read_channels", read_or_crash)
    (problem,) = verify_dataset(phantom, num_workers=num_workers)
    assert "_002_0001.nii.gz: the process that read it crashed (SIGABRT)" in problem.problem


class Model:
    """Everything is background."""

    def prepare(self, image: np.ndarray, spacing_mm: object, case: object = None) -> np.ndarray:
        return image

    def segment(self, prepared: np.ndarray) -> np.ndarray:
        return np.zeros(prepared.shape[1:], np.uint8)


def test_a_crash_in_predict_is_one_failed_case(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "_read_channels", read_or_crash)
    cases = find_inputs(phantom / "imagesTr", 2, ".nii.gz")
    meaning = Meaning(read_description(phantom / "dataset.json"), None)
    record = PredictionRecord(model={})
    with pytest.raises(CaseFailures, match=r"1 case\(s\) failed") as caught:
        predict_cases(
            lambda work, begin: outcomes_here(Model(), work, begin),
            meaning, cases, tmp_path / "out", CaseOptions(), record,
        )  # fmt: skip
    ((name, message),) = caught.value.failures.items()
    assert name.endswith("_002")
    assert "crashed (SIGABRT)" in message
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == len(cases) - 1
