"""What a data set is planned for: numbers that are given, else those of its plans, else those of the machine."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.device import Execution, gpu_memory_gb
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME, write_phantom_dataset
from seg25d.planning.plan import Plans
from seg25d.planning.plans_file import read_plans
from seg25d.training.config import TrainingConfig
from seg25d.workflows import folds
from seg25d.workflows import machine_limits as module
from seg25d.workflows.machine_limits import MachineLimits, machine_limits, plans_for_cpus, training_time

STORED = Plans(
    dataset_name="Dataset001_A", gpu_memory_gb=24, cpu_gflops=128, slice_axis=0, reasons={}, configurations={}
)


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_gflops", lambda: 64.0)


def gpus(monkeypatch: pytest.MonkeyPatch, *gib: float) -> None:
    """Let torch see GPUs with this memory."""
    properties = [SimpleNamespace(total_memory=int(each * 2**30)) for each in gib]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gib))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gib))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties[number])


def limits(stored: Plans | None = None, **options: Any) -> tuple[float, float]:
    chosen: dict[str, Any] = {"memory_gb": "auto", "gflops": "auto", "device": None} | options
    return machine_limits("A", stored, **chosen)


def test_memory_is_that_of_the_smallest_gpu_or_of_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_memory_gb(None) is None
    gpus(monkeypatch, 79.25, 23.68)
    assert gpu_memory_gb(None) == gpu_memory_gb("cuda") == gpu_memory_gb("cuda:1") == 23.6
    assert gpu_memory_gb("cuda:0") == 79.2
    assert gpu_memory_gb("cuda:2") is gpu_memory_gb("cpu") is gpu_memory_gb("mps") is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (8, 64)),
        ({"gflops": None}, (8, 0)),
        ({"gflops": 32.0}, (8, 32)),
        ({"gflops": 0.0}, (8, 0)),
        # A number of GB is for a GPU, which may be elsewhere.
        ({"memory_gb": 24.0}, (24, 0)),
        ({"memory_gb": 24.0, "device": "cpu"}, (24, 64)),
        ({"memory_gb": 24.0, "gflops": 32.0}, (24, 32)),
        ({"stored": STORED}, (24, 128)),
        ({"stored": STORED, "gflops": None}, (24, 128)),
        ({"stored": STORED, "memory_gb": 24.0}, (24, 128)),
        ({"stored": STORED, "memory_gb": 16.0}, (16, 0)),
        ({"stored": STORED, "gflops": 0.0}, (24, 0)),
    ],
)
def test_limits_without_a_gpu(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: Any) -> None:
    gpus(monkeypatch)
    assert limits(**options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (79.2, 0)),
        ({"device": "cpu"}, (8, 64)),
        ({"memory_gb": 24.0}, (24, 0)),
        ({"stored": STORED}, (24, 128)),
        ({"gflops": 32.0}, (79.2, 32)),
    ],
)
def test_limits_with_a_gpu(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: Any) -> None:
    gpus(monkeypatch, 79.25)
    assert limits(**options) == expected


@pytest.mark.parametrize(
    ("machine_gb", "expected"), [(64, 8), (15.4, 8), (14, 4), (8, 4), (7.6, 4), (7, 2), (3.8, 2), (1, 2)]
)
def test_half_of_a_small_machine_is_planned_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, machine_gb: float, expected: float
) -> None:
    caplog.set_level(logging.INFO)
    gpus(monkeypatch)
    monkeypatch.setattr(module, "machine_memory_bytes", lambda: int(machine_gb * 2**30))
    assert limits() == (expected, 64)
    assert f"A: planning for {expected} GB, as there is no GPU to train on" in caplog.text
    assert (f"and the machine has {machine_gb:.1f} GB in all" in caplog.text) == (expected < 8)
    assert limits(memory_gb=8.0) == (8, 0), "a number that is given counts"
    assert limits(STORED) == (24, 128), "so do plans that are there"


def test_it_is_said_what_plans_are_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    gpus(monkeypatch)
    limits()
    assert "A: planning for 8 GB, as there is no GPU to train on" in caplog.text
    assert "A: planning for CPUs of 64 GFLOP/s; --cpu-gflops takes another number, or 0" in caplog.text
    gpus(monkeypatch, 79.25)
    limits()
    assert "A: planning for 79.2 GB, those of the GPU" in caplog.text
    limits(STORED)
    assert "as planned before, for 24 GB; the GPU here has 79.2: --gpu-memory-gb 79.2 plans for that" in caplog.text


@pytest.mark.parametrize(
    ("memory_gb", "device", "gib", "expected"),
    [
        ("auto", None, (), True),
        ("auto", None, (24,), False),
        ("auto", "cpu", (24,), True),
        (24.0, None, (), False),
        (24.0, "cpu", (), True),
    ],
)
def test_new_plans_are_for_cpus_where_these_train(
    monkeypatch: pytest.MonkeyPatch, memory_gb: Any, device: str | None, gib: tuple[float, ...], expected: bool
) -> None:
    gpus(monkeypatch, *gib)
    assert plans_for_cpus(memory_gb, device) == expected


ON_CPUS, ON_A_GPU = MachineLimits(8, 64), MachineLimits(24, 0)
SHORT = STORED.model_copy(update={"time_budget_s": 90.0})


@pytest.mark.parametrize(
    ("stored", "given", "limits", "expected", "told"),
    [
        (None, None, ON_CPUS, 0, ""),
        (STORED, None, ON_CPUS, 0, ""),
        (SHORT, None, ON_CPUS, 90, ""),
        (SHORT, 0.0, ON_CPUS, 0, ""),
        (SHORT, 300.0, ON_CPUS, 300, "A: planning for trainings of 5 min 0 s each, in which an update is to take 0.6"),
        (None, 300.0, ON_A_GPU, 300, "A: 5 min 0 s for each training change no plan: a time bounds updates on CPUs"),
    ],
)
def test_the_time_of_trainings_is_given_or_as_planned_before(
    caplog: pytest.LogCaptureFixture,
    stored: Plans | None,
    given: float | None,
    limits: MachineLimits,
    expected: float,
    told: str,
) -> None:
    caplog.set_level(logging.INFO)
    assert training_time("A", stored, given, limits) == expected
    assert caplog.text.count("A: ") == bool(told)
    assert told in caplog.text


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.resolve(tmp_path, {})
    write_phantom_dataset(workspace.raw_dataset(DATASET_NAME), num_training=5, num_test=0, shape=(8, 16, 16))
    return workspace


def planned(workspace: Workspace, **options: Any) -> Plans:
    chosen = {"configurations": ("2d",), "plan_only": True, "num_processes": 0} | options
    (plans,) = api.plan_and_preprocess(workspace, ["900"], api.PlanningOptions(**chosen)).values()
    return plans


def test_plans_keep_their_numbers_until_others_are_given(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    first = planned(workspace, gpu_memory_gb=3, cpu_gflops=128)
    assert (first.gpu_memory_gb, first.cpu_gflops) == (3, 128)
    assert planned(workspace).configurations == planned(workspace, cpu_gflops="auto").configurations
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    again = planned(workspace, gpu_memory_gb=2)
    assert (again.gpu_memory_gb, again.cpu_gflops) == (2, 0)
    assert "because the memory is 2 GB now and was 3 GB and the CPUs have any speed now" in caplog.text
    clean = planned(workspace, clean=True)
    assert (clean.gpu_memory_gb, clean.cpu_gflops) == (8, 0)


def test_plans_keep_the_time_of_trainings_until_another_is_given(workspace: Workspace, tmp_path: Path) -> None:
    file = workspace.preprocessed_dataset(DATASET_NAME).plans()
    where = ("--workspace", str(tmp_path), "--num-processes", "0", "--device", "cpu")

    def times(*words: str) -> tuple[float, bool, str]:
        assert main(["plan_and_preprocess", "-d", "900", "-c", "2d", "--plan-only", *where, *words]) == 0
        plans = read_plans(file)
        return plans.time_budget_s, "time_budget_s" in file.read_text(), plans.reasons.get("time_budget_s", "")

    assert times() == (0, False, "")
    first, is_written, reason = times("--time-budget", "90s")
    assert (first, is_written) == (90, True)
    assert reason.startswith("each training (one fold of one configuration) is given 1 min 30 s")
    assert times() == (90, True, reason)
    assert times("--time-budget", "0") == (0, False, "")


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), (8, 64)),
        (("--gpu-memory-gb", "auto"), (8, 64)),
        (("--gpu-memory-gb", "3"), (3, 0)),
        (("--gpu-memory-gb", "3", "--device", "cpu"), (3, 64)),
        (("--cpu-gflops", "0"), (8, 0)),
        (("--cpu-gflops", "32"), (8, 32)),
    ],
)
def test_commands_look_at_the_machine(
    workspace: Workspace, tmp_path: Path, words: tuple[str, ...], numbers: Any
) -> None:
    where = ("--workspace", str(tmp_path), "--num-processes", "0")
    assert main(["plan_and_preprocess", "-d", "900", "-c", "2d", "--plan-only", *where, *words]) == 0
    plans = read_plans(workspace.preprocessed_dataset(DATASET_NAME).plans())
    assert (plans.gpu_memory_gb, plans.cpu_gflops) == numbers


def test_a_gpu_that_is_too_small_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpu_memory_gb", lambda _: 0.4)
    with pytest.raises(InputError, match="not enough"):
        planned(workspace)


@pytest.mark.parametrize(("gflops", "kind", "warned"), [(64, "cuda", True), (64, "cpu", False), (0, "cuda", False)])
def test_a_gpu_that_trains_what_was_planned_for_cpus_is_told(
    gflops: float, kind: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Joined(Exception):  # noqa: N818 - no error
        pass

    def join(device: torch.device) -> None:
        raise Joined

    monkeypatch.setattr(logging.getLogger("seg25d"), "propagate", True)
    monkeypatch.setattr(folds, "choose_execution", lambda *_: Execution(torch.device(kind), torch.float32))
    monkeypatch.setattr(folds, "join_processes", join)
    task: Any = SimpleNamespace(
        dataset_name="Dataset900_Made", plans=SimpleNamespace(cpu_gflops=gflops), device=None, config=TrainingConfig()
    )
    with pytest.raises(Joined):
        folds.train_folds(task)
    assert ("was planned for CPUs of 64 GFLOP/s" in caplog.text) == warned
