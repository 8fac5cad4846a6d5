"""Damaged image files: the product reads each or refuses it in one sentence, whatever the damage.

Small good files of every format are changed at random (bits, numbers, lines, lengths), with a fixed seed. Each changed
file is read as verification reads an image and a label, and as prediction reads an image and writes a result, in a
process of its own, with a limit of memory and of time. Allowed are the exit status 0 (then voxels and geometry are
those that SimpleITK gives by hand) and 2.

    python benchmarks/fuzz_headers.py                        # 2,000 files per format
    python benchmarks/fuzz_headers.py --files 50 --formats nrrd --keep FOLDER
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import argparse
import contextlib
import gzip
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from mutations import mutate

from seg25d.core.errors import InputError, Seg25dError
from seg25d.core.parallel import expendable
from seg25d.data.dataset import find_inputs
from seg25d.data.image_io import read_geometry, read_image, write_labels
from seg25d.data.verify import verify_dataset
from seg25d.planning.normalization import ChannelNormalization
from seg25d.preprocessing.preprocess import preprocess_image

MEMORY_BYTES = 2 << 30
SECONDS = 20
NUM_FILES = 2000
SEED = 23
FORMATS = ("nii", "nii.gz", "nrrd", "mha", "mhd")
IMAGE_IO = {".gz": "NiftiImageIO", ".nii": "NiftiImageIO", ".nrrd": "NrrdImageIO"} | dict.fromkeys(
    (".mha", ".mhd"), "MetaImageIO"
)
SHAPE = (9, 11, 12)
LABELS = ("label", "layers")
"""Beginnings of the names of label files; the others are images."""
WRONG = 3
"""Exit status of a file that was read as something else than what SimpleITK makes of it."""


class Outcome(NamedTuple):
    """What became of one file."""

    status: int
    """Exit status; negative: the signal that ended the process."""
    seconds: float
    peak_bytes: int
    text: str


class Plan(NamedTuple):
    """What a model asks of images."""

    spacing_mm: tuple[float, float, float] = (8.0, 8.0, 8.0)
    common_shape: None = None
    store: str = ""
    normalization: tuple[ChannelNormalization, ...] = (ChannelNormalization(channel="MRI", scheme="zscore"),)


def good_files(folder: Path, ending: str) -> list[tuple[Path, list[Path]]]:
    """Write good images and labels of a format; gives pairs of the file to change and all files of the image."""
    rng = np.random.default_rng(SEED)
    files = []
    for name, dtype, compress in (("short", np.int16, False), ("float", np.float32, True), ("label", np.uint8, True)):
        array = rng.normal(100, 50, SHAPE).astype(dtype) if name != "label" else np.zeros(SHAPE, dtype)
        if name == "label":
            array[2:5, 3:8, 4:9] = 1
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-10.5, 20.25, 30.0))
        path = folder / f"{name}.{ending}"
        sitk.WriteImage(image, str(path), compress)
        files.append((path, [path, *path.parent.glob(f"{name}.*raw")]))
    if ending == "nrrd":
        files.append((_nrrd_with_layers(folder / "layers.nrrd"), [folder / "layers.nrrd"]))
        files.append(_nrrd_with_data_file(folder))
    if ending == "mhd":
        files += [(data, [header, data]) for header, (_, data) in [(path, of) for path, of in files[:2]]]
    return files


def header_length(content: bytes, ending: str) -> int:
    """Bytes of the header of a good file."""
    if ending.startswith("nii"):
        return 352
    mark = b"\n\n" if ending == "nrrd" else b"ElementDataFile"
    place = content.find(mark)
    return min(len(content), content.find(b"\n", place + 2) + 1) if place >= 0 else len(content)


def mutated_files(folder: Path, ending: str, num_files: int, seed: int) -> Iterator[Path]:
    """Write one changed file after another, each with the files that it needs into a folder of its own."""
    sources = good_files(folder, ending)
    for index in range(num_files):
        target = folder / f"{index:05d}"
        target.mkdir()
        yield mutated_file(sources, ending, random.Random(f"{seed} {ending} {index}"), target)


def mutated_file(sources: Sequence[tuple[Path, list[Path]]], ending: str, rng: random.Random, target: Path) -> Path:
    """Change one of the good files, and write it with the files that it needs into a folder."""
    changed, files = rng.choice(sources)
    content = changed.read_bytes()
    if ending == "nii.gz" and rng.random() < 0.8:
        content = gzip.compress(mutate(gzip.decompress(content), header_length(content, ending), rng), 1)
    else:
        content = mutate(content, header_length(content, ending), rng)
    for path in files:
        (target / path.name).write_bytes(content if path == changed else path.read_bytes())
    return target / files[0].name


def read_everywhere(path: Path) -> int:
    """Read a file as an image, or a label, of a data set, and as the input of a prediction.

    Returns:
        The exit status: 0 if both read it, 2 if one refused it, `WRONG` if it was read as something else than what
        SimpleITK makes of it.

    Raises:
        Exception: Whatever the product raises; a mistake of the product unless it is an `InputError`.
    """
    status = 0
    root = path.parent / "Dataset001_Fuzz"
    _make_dataset(root, path, as_label=path.name.startswith(LABELS))
    if problems := verify_dataset(root, num_workers=0):
        print("; ".join(f"{item.problem} -> {item.cure}" for item in problems))
        status = InputError.exit_status
    if path.name.startswith("layers"):
        return status
    case = find_inputs(path, 1, ".nii.gz")[0]
    image, geometry = read_image(case.images)
    preprocess_image(image, geometry.canonical_spacing_mm, Plan())
    result = path.parent / f"result{''.join(path.suffixes)}"
    write_labels(result, (image[0] > 0).astype(np.uint8), geometry)
    written = read_geometry(result)
    if written.difference(geometry) or not _as_by_hand(path, image[0], result):
        return WRONG
    return status


def _as_by_hand(path: Path, image: np.ndarray, result: Path) -> bool:
    """Whether voxels and geometry are those of SimpleITK, and the result has the geometry of the image."""
    by_hand, of_result = _read_by_hand(path), _read_by_hand(result)
    if by_hand.GetDimension() == 4:
        by_hand = by_hand[:, :, :, 0]
    same = all(
        np.allclose(getattr(by_hand, name)(), getattr(of_result, name)(), rtol=1e-4, atol=1e-4)
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    )
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(by_hand, "LPS")).astype(np.float32)
    oblique = np.abs(np.array(by_hand.GetDirection())).reshape(3, 3).max(0).min() < 0.9
    return same and (oblique or np.array_equal(image, expected))


def _read_by_hand(path: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path), imageIO=IMAGE_IO[path.suffix])
    except RuntimeError:
        os.environ["ITK_NIFTI_SFORM_PERMISSIVE"] = "1"  # axes that are not at right angles
        return sitk.ReadImage(str(path), imageIO=IMAGE_IO[path.suffix])


def _make_dataset(root: Path, path: Path, *, as_label: bool) -> None:
    """A data set of one case: the file as its image with an empty label, or as the label of a good image."""
    ending = f".{'.'.join(path.name.split('.')[1:])}"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    description = {
        "channel_names": {"0": "MRI"}, "labels": {"background": 0, "one": 1, "two": 2}, "numTraining": 1,
        "file_ending": ending, "allow_empty_labels": True,
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(description))
    names = ("labelsTr/a", "imagesTr/a_0000") if as_label else ("imagesTr/a_0000", "labelsTr/a")
    for other in path.parent.glob("*.*raw"):
        os.link(other, (root / names[0]).parent / other.name)
    os.link(path, root / f"{names[0]}{ending}")
    good = sitk.GetImageFromArray(np.zeros(SHAPE, np.uint8))
    good.SetSpacing((0.7, 0.8, 2.5))
    good.SetOrigin((-10.5, 20.25, 30.0))
    sitk.WriteImage(good, str(root / f"{names[1]}{ending}"))


def run_apart(task: Callable[[], int], memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> Outcome:
    """Run a task in a forked process with limits.

    Args:
        task: Gives the exit status; an `InputError` is 2, any other exception 1.
        memory_bytes: Limit of the address space that it takes beyond that of this process.
        seconds: After which the process is killed.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    started = time.perf_counter()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _run_task(task, writing, memory_bytes)
    os.close(writing)
    timer = signal.signal(signal.SIGALRM, lambda *_: os.kill(process, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode(errors="replace")
    _, status, usage = os.wait4(process, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, timer)
    return Outcome(
        os.waitstatus_to_exitcode(status), time.perf_counter() - started, usage.ru_maxrss << 10, text.strip()
    )


def address_space_bytes() -> int:
    """Address space of this process: of libraries that are loaded, above all."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _run_task(task: Callable[[], int], output: int, memory_bytes: int) -> None:
    """Run a task in this forked process, which reads files itself, and end it."""
    expendable()
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(output, "w", errors="replace")
        limit = memory_bytes + address_space_bytes()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = task()
    except Seg25dError as error:
        status = error.exit_status
        print(error)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(status)


def read_all(paths: Iterable[Path], read: Callable[[Path], int], name: str, keep: Path | None = None) -> list[Outcome]:
    """Read files, each in a process of its own.

    Args:
        paths: The files (or folders), each in a folder of its own, which is removed once it was read.
        read: Gives the exit status of one, see `run_apart`.
        name: Of the format, for messages.
        keep: Files with a status that is not allowed are copied into this folder.
    """
    outcomes = []
    for path in paths:
        outcome = run_apart(partial(read, path))
        outcomes.append(outcome)
        if outcome.status not in (0, InputError.exit_status):
            print(f"{name} {path.parent.name} {path.name}: {outcome.status} {outcome.text[-300:]}", flush=True)
            if keep is not None:
                shutil.copytree(path.parent, keep / f"{name}_{path.parent.name}", dirs_exist_ok=True)
        shutil.rmtree(path.parent)
        if len(outcomes) % 250 == 0:
            print(f"{name}: {len(outcomes)} files", flush=True)
    return outcomes


def table(results: dict[str, list[Outcome]]) -> str:
    """A row per format: how many files ended how, the longest time and the most memory."""
    lines = [f"{'format':8} {'files':>6} {'0':>6} {'2':>6} {'other':>6} {'longest s':>10} {'most MB':>8}"]
    for ending, outcomes in results.items():
        counts = Counter(outcome.status for outcome in outcomes)
        other = len(outcomes) - counts[0] - counts[2]
        longest, most = (max(getattr(item, name) for item in outcomes) for name in ("seconds", "peak_bytes"))
        lines.append(
            f"{ending:8} {len(outcomes):6} {counts[0]:6} {counts[2]:6} {other:6} {longest:10.2f} {most >> 20:8}"
        )
    return "\n".join(lines)


def _nrrd_with_layers(path: Path) -> Path:
    """A segmentation of Slicer with two layers."""
    layers = np.zeros((*SHAPE, 2), np.uint8)
    layers[2, 2, 2, 0], layers[3, 3, 3, 1] = 1, 2
    lines = (
        "NRRD0004", "type: uchar", "dimension: 4", "space: left-posterior-superior", "sizes: 2 12 11 9",
        "space directions: none (0.7,0,0) (0,0.8,0) (0,0,2.5)", "kinds: list domain domain domain", "encoding: raw",
        "space origin: (-10.5,20.25,30)", "Segment0_Name:=one", "Segment0_Layer:=0", "Segment0_LabelValue:=1",
        "Segment1_Name:=two", "Segment1_Layer:=1", "Segment1_LabelValue:=2", "", "",
    )  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + layers.tobytes())
    return path


def _nrrd_with_data_file(folder: Path) -> tuple[Path, list[Path]]:
    """A header with its data in a file beside it."""
    header, data = folder / "detached.nrrd", folder / "detached.raw"
    lines = (
        "NRRD0004", "type: short", "dimension: 3", "sizes: 12 11 9", "endian: little", "encoding: raw",
        "space: left-posterior-superior", "space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)",
        "space origin: (-10.5,20.25,30)", "data file: detached.raw", "",
    )  # fmt: skip
    header.write_text("\n".join(lines))
    data.write_bytes(np.arange(np.prod(SHAPE)).astype(np.int16).tobytes())
    return header, [header, data]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read all changed files and print the table; 1 if a file ended otherwise than with 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=NUM_FILES, help="per format")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep", type=Path, help="folder for files that ended otherwise than with 0 or 2")
    options = parser.parse_args(arguments)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    results = {}
    for ending in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            paths = mutated_files(Path(folder), ending, options.files, options.seed)
            results[ending] = read_all(paths, read_everywhere, ending, options.keep)
    print(table(results))
    return int(any(item.status not in (0, 2) for outcomes in results.values() for item in outcomes))


if __name__ == "__main__":
    sys.exit(main())
