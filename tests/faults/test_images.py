"""Hostile image files: one of each kind is refused in one sentence, and nothing but the file is read."""

import gzip
import importlib
import math
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from seg25d.core import memory, parallel
from seg25d.core.errors import CaseFailures, ImageError
from seg25d.data import image_io, verify
from seg25d.data.cases import Case
from seg25d.data.dataset import find_inputs
from seg25d.data.description import read_description
from seg25d.data.dicom_codestreams import announced_size
from seg25d.data.image_io import read_image, read_labels
from seg25d.data.phantom import write_phantom_dataset
from seg25d.data.verify import verify_dataset
from seg25d.inference.cases import CaseOptions, Meaning, outcomes_here, predict_cases
from seg25d.inference.prediction_files import PredictionRecord
from tests.data.dicom_files import save, slice_dataset

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


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_crash_in_verify_is_one_problem(num_workers: int, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_check_voxels", check_or_crash)
    monkeypatch.setattr(image_io, "_read_channels", image_io._read_channels)  # which the check replaces here, too
    (problem,) = verify_dataset(phantom, num_workers=num_workers)
    assert "_002_0001.nii.gz: the process that read it crashed (SIGABRT)" in problem.problem


class Model:
    """Everything is background."""

    on_cpu = True

    def prepare(self, image: np.ndarray, spacing_mm: object, case: object = None, *, overwrite: bool) -> np.ndarray:
        return image

    def segment(self, prepared: np.ndarray, uncertainty: object = None, folder: Path | None = None) -> np.ndarray:
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


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read in this process, in which 1 MB of memory is free."""
    monkeypatch.setattr(parallel, "_EXPENDABLE", {os.getpid()})
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 1 << 20)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "mhd"])
def test_grids_are_compared_with_the_free_memory(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.Image(100, 80, 50, sitk.sitkInt16), str(path), ending != "nii")
    for read in (lambda: read_image([path]), lambda: read_labels(path), lambda: image_io.read_channel(path)):
        with pytest.raises(ImageError, match=r"too large: 50 x 80 x 100 .* 0\.0 GB are free: \d") as caught:
            read()
    assert "1 would fit; correct the header" in str(caught.value)
    assert image_io.read_geometry(path).shape == (50, 80, 100)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_pictures_are_compared_with_the_free_memory(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.new("L", (500, 400)).save(path)
    for read in (lambda: read_image([path]), lambda: read_labels(path)):
        with pytest.raises(ImageError, match=r"too large: 1 x 400 x 500 .* would fit"):
            read()


@pytest.mark.parametrize(
    ("compressor", "mark"), [("JPEG", b"\xff\xc3"), ("JPEG2000", b"\xff\x51"), ("JPEGLS", b"\xff\xf7")]
)
def test_images_in_dicom_files_have_the_size_of_the_header(compressor: str, mark: bytes, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(2 * 16 * 15, dtype=np.uint16).reshape(2, 16, 15))
    path = tmp_path / "series" / "a.dcm"
    path.parent.mkdir()
    if compressor == "JPEGLS":
        pixels = b"\xff\xd8" + struct.pack(">2BHB2HB", 0xFF, 0xF7, 11, 8, 60000, 60000, 1) + bytes(20)
        assert announced_size(pixels) == (60000, 60000, 1)
        return
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.Execute(image)
    read_image([path.parent])
    content = path.read_bytes()
    place = content.index(mark, content.index(b"\xff\xd8" if compressor == "JPEG" else b"\xff\x4f"))
    fields = (place + 5, ">2H") if compressor == "JPEG" else (place + 6, ">2I")
    changed = bytearray(content)
    struct.pack_into(fields[1], changed, fields[0], 60000, 60000)
    path.write_bytes(changed)
    with pytest.raises(ImageError, match=r"its header announces 16 x 15 pixels .* has 60000 x 60000"):
        read_image([path.parent])


@pytest.mark.usefixtures("little_memory")
def test_deflated_dicom_files_inflate_to_no_more_than_the_memory_holds(tmp_path: Path) -> None:
    dataset = slice_dataset(np.zeros((1024, 1024), np.int16), (0, 0, 0))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "series" / "a.dcm")
    assert path.stat().st_size < 10_000
    with pytest.raises(ImageError, match=r"a\.dcm: its compressed content takes 3 times 1 MB or more"):
        read_image([path.parent])


@pytest.mark.parametrize("offset", [math.nan, math.inf, -5.0, 3e9, 2.0**24 + 2])
def test_voxels_of_nifti_files_begin_near_their_header(offset: float, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkUInt8), str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(content)
    assert "(vox_offset), expected is 352 or more, up to 16777216" in refused(path)


@pytest.mark.parametrize("kind", ["fifo", "socket", "dangling", "loop", "folder", "empty"])
def test_what_is_no_image_but_has_the_name_of_one(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    make = {
        "fifo": lambda: os.mkfifo(path), "dangling": lambda: path.symlink_to("nowhere"), "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path), "empty": path.touch,
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
    }  # fmt: skip
    make[kind]()
    assert "a.nii: the f" in refused(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forked processes with limits of memory")
@pytest.mark.parametrize("name", ["nii", "nii.gz", "nrrd", "mha", "mhd", "dicom", "png", "jpg", "bmp", "tif"])
def test_damaged_files_of_the_campaign(name: str, tmp_path: Path) -> None:
    fault_campaign = importlib.import_module("fault_campaign")
    (kind,) = (kind for kind in fault_campaign.KINDS if kind.name == f"file {name}")
    results = [result for _, _, result in fault_campaign.campaign([kind], 1, range(25), tmp_path)]
    assert all(result.as_promised for result in results), results
