"""`kill -9` at random moments of every step: the same command goes on and ends with the same files."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs process groups")]
COMMAND = [sys.executable, "-m", "seg25d"]
TIMES = (
    *("seconds", "total_seconds", "seconds_left", "seconds_per_iteration", "voxels_per_second"),
    *("data_wait_share", "peak_memory_gb"),
)
PLAN = ["plan_and_preprocess", "-d", "900", "-c", "si", "--num-processes", "2"]
TRAIN = ["train", "900", "si", "0", "--epochs", "4", "--iterations", "16", "--device", "cpu", "--num-processes", "1"]


def start(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*COMMAND, *words, "--workspace", str(folder), "--quiet"]
    return subprocess.Popen(arguments, env=environment, start_new_session=True)


def finish(folder: Path, words: list[str]) -> float:
    begun = time.monotonic()
    assert start(folder, words).wait(timeout=300) == 0
    return time.monotonic() - begun


def kill_now_and_then(
    folder: Path, words: list[str], duration: float, rng: np.random.Generator, times: int = 2
) -> None:
    """Kill the command some times, main process and children or main process alone; then let it end."""
    for attempt in range(times):
        process = start(folder, words)
        time.sleep(rng.uniform(0.3, 0.95) * duration)
        if attempt % 2:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finish(folder, words)


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Digest of every file; logs and records without their times."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        if not path.is_file() or path.name in (".lock", "progress.png", "checkpoint_last.pt"):
            continue
        content = path.read_bytes()
        if path.name == "log.jsonl":
            lines = [json.loads(line) for line in content.decode().splitlines()]
            content = json.dumps([{k: v for k, v in line.items() if k not in TIMES} for line in lines]).encode()
        if path.name == "prediction.json":
            content = json.dumps(sorted(json.loads(content)["seconds"])).encode()
        if path.suffix == ".json":
            content = content.replace(str(folder).encode(), b"")
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    assert found
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A workspace in which every step ran undisturbed, and how long each took."""
    folder = tmp_path_factory.mktemp("whole")
    write_phantom_dataset(folder / "raw" / DATASET_NAME, num_training=6, num_test=6, shape=(8, 32, 32))
    return folder, [finish(folder, words) for words in (PLAN, TRAIN, predict(folder))]


def predict(folder: Path) -> list[str]:
    images = folder / "raw" / DATASET_NAME / "imagesTs"
    return ["predict", "-i", str(images), "-o", str(folder / "out"), "-d", "900", "-c", "si", "--device", "cpu"]


def test_a_graph_of_trainings_survives_kills(tmp_path: Path) -> None:
    """`mv`: models of views, their predictions, the fusion network; every model that is done stays as it is."""
    plan = ["plan_and_preprocess", "-d", "900", "-c", "mv", "--num-processes", "0"]
    train = ["train", "900", "mv", "0", "--epochs", "1", "--iterations", "2", "--device", "cpu", "--num-processes", "0"]
    undisturbed, folder = tmp_path / "whole", tmp_path / "cut"
    raw = undisturbed / "raw" / DATASET_NAME
    write_phantom_dataset(raw, num_training=3, num_test=0, shape=(8, 32, 32))
    cases = sorted(path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").glob("*_0000.nii.gz"))
    folds = [{"train": [case for case in cases if case != held_out], "val": [held_out]} for held_out in cases]
    (raw / "splits.json").write_text(json.dumps(folds))
    finish(undisturbed, plan)
    shutil.copytree(undisturbed, folder, copy_function=shutil.copy2)
    kill_now_and_then(folder, train, finish(undisturbed, train), np.random.default_rng(0))
    assert digests(folder, "results/**/*") == digests(undisturbed, "results/**/*")


@pytest.mark.parametrize("seed", [0, 1])
def test_every_step_survives_kills(whole: tuple[Path, list[float]], tmp_path: Path, seed: int) -> None:
    undisturbed, durations = whole
    folder = tmp_path / "cut"
    shutil.copytree(undisturbed / "raw", folder / "raw", copy_function=shutil.copy2)
    rng = np.random.default_rng(seed)
    for words, duration in zip((PLAN, TRAIN, predict(folder)), durations, strict=True):
        kill_now_and_then(folder, words, duration, rng)
    for pattern in ("preprocessed/*/*.json", "preprocessed/*/spacing*/*", "results/*/si/fold_0/**/*", "out/*"):
        assert digests(folder, pattern) == digests(undisturbed, pattern)
    leftovers = [path for path in folder.rglob(".tmp-*") if "raw" not in path.parts]
    assert not leftovers
