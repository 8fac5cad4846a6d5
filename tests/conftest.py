"""What all tests share."""

import gc
import io
import json
import locale
import logging
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from seg25d.cli.common import configure_logging
from seg25d.cli.main import main
from seg25d.core import temporary_arrays
from seg25d.core.processor import Verdict, this_processor
from seg25d.core.temporary_arrays import TemporaryArray
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset
from seg25d.selection import cost, find_best
from seg25d.training import monitor, timing, trainer
from seg25d.workflows import machine_limits
from tests.untraced import untraced

# How long an example takes says how busy the machine is, not whether a law holds. The examples are the same every time,
# so that a failure is that of the change; --hypothesis-profile explore looks for others.
LAWS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("laws", derandomize=True, **LAWS)
settings.register_profile("explore", **LAWS)
settings.load_profile("laws")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of long tests first: each process takes file by file, and a long one at the end would run alone."""
    number = Counter(item.path for item in items)
    long = Counter(item.path for item in items if _is_long(item))
    items.sort(key=lambda item: long[item.path] / number[item.path], reverse=True)


def _is_long(item: pytest.Item) -> bool:
    """Whether a test is slow, or goes through whole commands."""
    names = getattr(item, "fixturenames", ())
    return item.get_closest_marker("slow") is not None or "constant_models" in names or "written_models" in names


def pytest_collection_finish() -> None:
    """Spare the garbage collector what pytest itself holds: every prediction makes it look through everything."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session", autouse=True)
def _plans_are_for_any_machine() -> Iterator[None]:
    """No plan of a test depends on how fast this machine is or on its memory, but those of what measures it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_limits, "cpu_gflops", lambda: 0.0)
        patch.setattr(machine_limits, "machine_memory_bytes", lambda: 64 << 30)
        yield


@pytest.fixture(scope="session", autouse=True)
def _updates_are_timed() -> Iterator[None]:
    """No test waits for updates to be timed, but those of what times them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "measure", lambda _: 0.01)
        yield


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Begin with the logger as it is at first, whatever commands a fixture of a whole module has run.

    A command makes it write to the standard error of its test, which closes with the test.
    """
    logger = logging.getLogger("seg25d")
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    """Begin with the same random weights and inputs, whichever tests ran before: of some, one in a hundred fails."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _restore_locale() -> None:
    """Begin with the locale as it is at first: GDCM, where a test writes DICOM files with values, leaves "C" behind.

    Python then takes files of text for ASCII where no encoding is named, as torch.compile does with its own.
    """
    locale.setlocale(locale.LC_ALL, "")


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


@pytest.fixture
def arrays_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Large arrays of any size lie in files, as beyond `IN_MEMORY_BYTES`; gives the shapes of those that were made."""
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems have no such files")
    shapes: list[tuple[int, ...]] = []

    class Noted(TemporaryArray):
        def __init__(self, shape: Sequence[int], dtype: str) -> None:
            super().__init__(shape, dtype)
            shapes.append(tuple(shape))

    (tmp_path / "mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(temporary_arrays, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(temporary_arrays, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(temporary_arrays, "TemporaryArray", Noted)
    return shapes


class ConstantModels:
    """Stands in place of the training loop: models with the weights of their seed, a little changed by every epoch.

    All else is real: who trains what with which settings and lengths, what a checkpoint lets go on, which files are
    left, and that of every model something is predicted.
    """

    def __init__(self) -> None:
        self.trained: list[str] = []
        """The models that were trained, in order: `axial/fold_0`."""
        self.cut_off_at = ""
        """The model whose training is interrupted as it begins."""

    @classmethod
    @contextmanager
    def written(cls) -> Iterator[Self]:
        """While this lasts, models are written instead of trained."""
        writer = cls()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer._Run, "to_the_end", lambda run: writer._write(run))  # noqa: PLW0108 - is to be bound
            patch.setattr(trainer._Run, "_validate", lambda run, _: _made_up_scores(run))
            patch.setattr(monitor, "draw_progress", lambda path, *_: path.touch())
            yield writer

    def _write(self, run: trainer._Run) -> None:
        root, state, config = run.job.folder.root, run.state, run.config
        name = f"{root.parent.name}/{root.name}"
        if name == self.cut_off_at:
            raise KeyboardInterrupt
        self.trained.append(name)
        state.finished = False
        while not run.is_over():
            run.last_tick = time.perf_counter()
            state.iteration += config.iterations_per_epoch
            state.epoch_losses = [1.0] * config.iterations_per_epoch
            state.epoch_voxels = config.iterations_per_epoch * run.batch_voxels
            state.epoch_seconds = max(1.0, (config.time_budget_seconds or 0.0) - state.seconds)
            state.seconds += state.epoch_seconds
            for model in (state.model, state.averaged):
                for weights in model.parameters():
                    weights.data.mul_(1.01)
            run._end_epoch()
        run._finish()


def _made_up_scores(run: trainer._Run) -> tuple[float, dict[str, float | None], dict[str, float]]:
    """Validation loss, Dice per label, and what the log of pretraining says beside."""
    if run.config.pretext is not None:
        return 1.0, {}, {"validation_loss_of_mean": 1.0}
    return 1.0, dict.fromkeys(run.labels.foreground, 0.5), {}


@pytest.fixture(scope="module")
def constant_models() -> Iterator[ConstantModels]:
    """In all tests of a module that asks for it, models are written instead of trained."""
    with ConstantModels.written() as writer:
        yield writer


@pytest.fixture
def written_models() -> Iterator[ConstantModels]:
    """The same in one test."""
    with ConstantModels.written() as writer:
        yield writer


@pytest.fixture
def trained(constant_models: ConstantModels) -> list[str]:
    """The models that were trained since the test began, in order: `axial/fold_0`."""
    constant_models.trained.clear()
    return constant_models.trained


@pytest.fixture
def cut_off(constant_models: ConstantModels) -> Iterator[Callable[[str], None]]:
    """Says which model's training is to be interrupted as it begins; none with an empty name."""
    yield lambda name: setattr(constant_models, "cut_off_at", name)
    constant_models.cut_off_at = ""


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
    with untraced():
        _run(root, "plan_and_preprocess", "-d", "900", "-c", "2d", "si", "3d")
    _shrink_networks(root)
    with ConstantModels.written():
        for words in (("si", "cv"), ("2d", "cv"), ("3d", "1")):
            _run(root, "train", "900", *words, "--epochs", "1", "--iterations", "2")
    return root


@pytest.fixture(scope="session")
def chosen_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the best was found; to be copied."""
    root = tmp_path_factory.mktemp("chosen") / "workspace"
    shutil.copytree(trained_once, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find_best, "measure_cost", cost._measure)  # here, as torch is loaded here
        _run(root, "find_best_configuration", "900", "--fit-weights")
    return root


@pytest.fixture(scope="session")
def shrink_networks() -> Callable[[Path], None]:
    """A function that edits the plans of a workspace: the networks are as small as they can be, all else stays."""
    return _shrink_networks


def _shrink_networks(workspace: Path) -> None:
    for path in workspace.glob("preprocessed/*/plans*.json"):
        plans = json.loads(path.read_text())
        for network in (plan["network"] for plan in plans["configurations"].values()):
            unet = network.get("network", network)  # the RSTN has one within it
            if unet["name"] == "unet":
                unet |= {"widths": [2] * len(unet["widths"]), "encoder_blocks": 1, "decoder_blocks": 1}
            elif network["name"] == "fusion_net":
                network["width"] = 2
        path.write_text(json.dumps(plans))


def _run(workspace: Path, *words: str) -> None:
    assert main([*words, "--workspace", str(workspace), "--num-processes", "0", "--device", "cpu"]) == 0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real labelled volumes; tests that use it are skipped where it is absent."""
    folder = Path(os.environ.get("SEG25D_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real volumes are absent: {folder}")
    return folder
