"""A small workspace in which every command has run undisturbed, before and after each, and comparison with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from fuzz_dicom import good_series
from same_files import NO_CONTENT, difference_of, values_of

from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset

SHORT = ("--epochs", "1", "--iterations", "2", "--device", "cpu", "--num-processes", "1")
IMAGES = f"workspace/raw/{DATASET_NAME}/imagesTs"
TRUTH = f"workspace/raw/{DATASET_NAME}/labelsTs"
COMPARED = (".json", ".jsonl", ".safetensors", ".npz", ".b2nd", ".nii.gz", ".csv")
"""Endings of files whose content is compared; of others (pictures, pages, resume states, archives) only that they are
there."""
MEASURED = ("on_pareto_front",)
"""Endings of places whose values follow from measured times."""
TIMEOUT_SECONDS = 600
INJECTED = Path(__file__).parent / "injected"
"""The folder that counts the calls of a command and can end it at one, see the module in it."""


class Step(NamedTuple):
    """A command of the chain, as words after `seg25d`; it works in the folder that holds `workspace`."""

    name: str
    words: tuple[str, ...]


STEPS = (
    Step("plan", ("plan_and_preprocess", "-d", "900", "-c", "si", "2d", "mv", "--num-processes", "2")),
    Step("pretrain", ("pretrain", "900", "si", "--task", "inpainting", *SHORT)),
    Step("train", ("train", "900", "si", "0", "1", *SHORT)),
    Step("train 2d", ("train", "900", "2d", "0", "1", *SHORT)),
    Step("train mv", ("train", "900", "mv", "0", *SHORT)),
    Step(
        "find_best", ("find_best_configuration", "900", "-c", "si", "2d", "--folds", "0", "1", "--num-processes", "2")
    ),
    Step("predict", ("predict", "-i", IMAGES, "-o", "out", "-d", "900", "-c", "si", "--save-probabilities")),
    Step("predict 2d", ("predict", "-i", IMAGES, "-o", "out2d", "-d", "900", "-c", "2d", "--save-probabilities")),
    Step("predict mv", ("predict", "-i", IMAGES, "-o", "outmv", "-d", "900", "-c", "mv", "-f", "0")),
    Step("ensemble", ("ensemble", "-i", "out", "out2d", "-o", "fused", "--method", "mean")),
    Step("evaluate", ("evaluate", TRUTH, "out", "-o", "summary.json", "--csv", "scores.csv")),
    Step("export", ("export_model", "900", "-c", "si", "-f", "0", "1", "-o", "model.zip")),
    Step("install", ("install_model", "model.zip", "--workspace", "other")),
    Step("report", ("report", "900")),
    Step("convert msd", ("convert", "--from", "msd", "-i", "Task01_MadeUp", "--num-processes", "2")),
    Step("convert dicom", ("convert", "--from", "dicom", "-i", "dicom", "-o", "series", "--num-processes", "2")),
)


class Undisturbed(NamedTuple):
    """What is known of an undisturbed run of a step."""

    seconds: float
    calls: int
    """Calls that change names or flush files, of all of its processes."""


def prepare(folder: Path) -> None:
    """Run every step undisturbed, twice, and keep what was there before and after each; done once.

    Args:
        folder: Gets `before/STEP`, `after/STEP`, `noise.json` (places whose values differ between two undisturbed runs,
            such as times) and `undisturbed.json` (seconds and calls of each step).
    """
    if (folder / "undisturbed.json").exists():
        return
    noise: set[str] = set()
    known: dict[str, Undisturbed] = {}
    rounds = [folder / "first", folder / "second"]
    for working in rounds:
        shutil.rmtree(working, ignore_errors=True)
        _write_inputs(working)
    for step in STEPS:
        _copy(rounds[0], folder / "before" / step.name)
        calls = folder / "calls"
        calls.unlink(missing_ok=True)
        for working, extra in zip(rounds, ({}, counting(calls)), strict=True):
            began = time.monotonic()
            status, text = run(step, working, extra)
            if status != 0:
                raise RuntimeError(f"undisturbed, {step.name} ended with {status}: {text}")
        known[step.name] = Undisturbed(time.monotonic() - began, calls.stat().st_size)
        _copy(rounds[0], folder / "after" / step.name)
        noise |= {place for place, _ in differences(*rounds)}
    (folder / "noise.json").write_text(json.dumps(sorted(noise), indent=2))
    (folder / "undisturbed.json").write_text(json.dumps(known, indent=2))


def undisturbed(step: Step, prepared: Path) -> Undisturbed:
    """What is known of an undisturbed run of a step."""
    return Undisturbed(*json.loads((prepared / "undisturbed.json").read_text())[step.name])


def counting(calls: Path, **further: str) -> dict[str, str]:
    """Environment variables with which a command counts its calls in a file; see `injected/sitecustomize.py`."""
    path = os.pathsep.join([str(INJECTED), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "FAULT_CALLS": str(calls), **further}


def _write_inputs(folder: Path) -> None:
    """Write the raw data set, a task of the Decathlon with two channels, and two series of DICOM files."""
    write_phantom_dataset(folder / "workspace" / "raw" / DATASET_NAME, num_training=6, num_test=3, shape=(8, 32, 32))
    task, rng = folder / "Task01_MadeUp", np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (task / name).mkdir(parents=True)
    for case in "abc":
        channels = [sitk.GetImageFromArray(rng.integers(0, 9, (4, 6, 5)).astype(np.int16)) for _ in range(2)]
        joined = sitk.JoinSeries(channels)  # type: ignore[no-untyped-call]
        sitk.WriteImage(joined, str(task / "imagesTr" / f"{case}.nii.gz"))
        label = sitk.GetImageFromArray(rng.integers(0, 2, (4, 6, 5)).astype(np.uint8))
        sitk.WriteImage(label, str(task / "labelsTr" / f"{case}.nii.gz"))
    cases = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "abc"]
    described = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "lesion"}, "training": cases}
    (task / "dataset.json").write_text(json.dumps(described))
    (folder / "dicom").mkdir()
    for kind in ("plain", "frames"):
        good_series(folder / "dicom" / kind, kind)


def start(step: Step, folder: Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a step in a process group of its own.

    Args:
        step: What to run.
        folder: That holds `workspace`.
        extra: Environment variables beside those of this process.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell has set that for commands in its background, and ours would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    words = step.words if "--workspace" in step.words else (*step.words, "--workspace", "workspace")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(extra or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "seg25d", *words], cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout: float = TIMEOUT_SECONDS) -> tuple[int, str]:
    """Wait for a process; gives its status (that of SIGKILL if it took longer than the timeout) and what it printed."""
    try:
        text, _ = process.communicate(timeout=timeout)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)  # it does not hear of it, as its group is another one
        raise
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        text += f"\nkilled after {timeout} s"
    return process.returncode, text


def run(step: Step, folder: Path, extra: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a step to its end; see `start` and `finish`."""
    return finish(start(step, folder, extra))


def begin(step: Step, prepared: Path, folder: Path) -> None:
    """Make `folder` what it was before a step."""
    _copy(prepared / "before" / step.name, folder)


def compare(step: Step, prepared: Path, folder: Path) -> str:
    """Say how a folder differs from what it is after an undisturbed run of a step; empty if it does not."""
    noise = set(json.loads((prepared / "noise.json").read_text()))
    found = [
        f"{place}: {words}"
        for place, words in differences(prepared / "after" / step.name, folder)
        if place not in noise and not place.endswith(MEASURED)
    ]
    return "\n".join(found[:20])


def differences(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """Places in which two folders differ, and how: files that only one has, values of files."""
    names = [files_of(folder) for folder in (first, second)]
    for name in sorted(names[0] | names[1]):
        if name not in names[1] or name not in names[0]:
            yield name, "missing" if name in names[0] else "too many"
        elif name.endswith(COMPARED) and name.rpartition("/")[2] not in NO_CONTENT:
            values = [dict(_values(folder, name)) for folder in (first, second)]
            for place in sorted(values[0].keys() | values[1].keys()):
                if place not in values[0] or place not in values[1]:
                    yield f"{name}: {place}", "missing" if place in values[0] else "too many"
                elif words := difference_of(values[0][place], values[1][place]):
                    yield f"{name}: {place}", words


def files_of(folder: Path) -> set[str]:
    """Relative names of all files of a folder, and of empty folders in it."""
    paths = (
        path for path in folder.rglob("*") if not path.is_dir() or path.name.startswith(".tmp-") or _is_empty(path)
    )
    return {path.relative_to(folder).as_posix() for path in paths}


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _values(folder: Path, name: str) -> Iterator[tuple[str, object]]:
    """Values of a file; paths in it begin at the folder."""
    for place, value in values_of(folder / name):
        yield place, value.replace(str(folder), "") if isinstance(value, str) else value


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copy2, symlinks=True)


def named(names: Sequence[str]) -> list[Step]:
    """The steps of these names."""
    return [step for step in STEPS if step.name in names]
