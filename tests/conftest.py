"""What all tests share."""

import io
import json
import logging
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from seg25d.cli.common import configure_logging
from seg25d.cli.main import main
from seg25d.core.processor import Verdict, this_processor
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset

# How long an example takes says how busy the machine is, not whether a law holds.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of slow tests first: each process takes file by file, and a long one at the end would run alone."""
    number = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: slow[item.path] / number[item.path], reverse=True)


@pytest.fixture(scope="session", autouse=True)
def _known_processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests, in which this processor has passed its self-test: no training has to run it."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    processor = this_processor()
    precision = "bfloat16" if processor.multiplies_bfloat16 else "float32"
    Verdict(processor=processor, precision=precision, safe=True, reason="so say the tests", seconds={}).save()
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Put the logger back: a command makes it write to this test's standard error, which closes with the test."""
    logger = logging.getLogger("seg25d")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes standard error a terminal; to be called by the test, as pytest sets its own one before that."""

    def open_it() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        for name, value in {"TERM": "xterm", "COLUMNS": "160"}.items():
            monkeypatch.setenv(name, value)
        for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        configure_logging(quiet=False, debug=False)
        return terminal

    return open_it


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(20261121)


@pytest.fixture(scope="session")
def three_folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a tiny raw data set: three training cases, each held out in one fold, and a test case."""
    root = tmp_path_factory.mktemp("three_folds")
    folder = root / "raw" / DATASET_NAME
    write_phantom_dataset(folder, num_training=3, num_test=1, shape=(8, 32, 32))
    cases = [f"phantom_{index:03d}" for index in range(3)]
    splits = [{"train": [case for case in cases if case != held_out], "val": [held_out]} for held_out in cases]
    (folder / "splits.json").write_text(json.dumps(splits))
    return root


@pytest.fixture(scope="session")
def trained_once(three_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two configurations, all folds trained, and a third with one fold; to be copied."""
    root = tmp_path_factory.mktemp("trained") / "workspace"
    shutil.copytree(three_folds, root)
    _run(root, "plan_and_preprocess", "-d", "900", "-c", "2d", "si", "3d")
    short = [
        "--epochs",
        "1",
        "--iterations",
        "2",
        "--set",
        "validation_windows=1",
        "--set",
        "augmentation.enabled=false",
    ]
    for words in (("si", "cv"), ("2d", "cv"), ("3d", "1")):
        _run(root, "train", "900", *words, *short)
    return root


@pytest.fixture(scope="session")
def chosen_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the best was found; to be copied."""
    root = tmp_path_factory.mktemp("chosen") / "workspace"
    shutil.copytree(trained_once, root)
    _run(root, "find_best_configuration", "900", "--fit-weights")
    return root


def _run(workspace: Path, *words: str) -> None:
    assert main([*words, "--workspace", str(workspace), "--num-processes", "0", "--device", "cpu"]) == 0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real labelled volumes; tests that use it are skipped where it is absent."""
    folder = Path(os.environ.get("SEG25D_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real volumes are absent: {folder}")
    return folder
