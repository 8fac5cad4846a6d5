"""What plans owe to the machine: windows that memory alone does not decide, time on CPUs, and what is said of both."""

import itertools
import json
from collections.abc import Callable
from math import prod
from typing import Any

import pytest

from seg25d.core.types import Shape
from seg25d.planning.machine_reasons import machine_reasons
from seg25d.planning.memory import MemoryUse
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import plan_dataset
from seg25d.planning.recipe_rules import DEFAULT_RULES
from seg25d.planning.revision import revise_plans
from seg25d.planning.search import (
    MOST_VOXELS,
    UPDATE_SECONDS,
    UPDATES_OF_A_TRAINING,
    Fit,
    Limits,
    search,
    update_seconds,
)
from seg25d.representations.base import CONFIGURATIONS, ConfigurationRules, VolumeGeometry
from seg25d.representations.projections.method import Projections
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from tests.planning import published_fingerprints as published

CT = VolumeGeometry(shape=(500, 512, 512), spacing_mm=(0.8, 0.8, 0.8))
WITH_ODD_SIDES = CT.model_copy(update={"shape": (400, 410, 411)})
QUICKLY_PLANNED = {("hippocampus", 24, "stack"), ("hippocampus", 140, "3d"), ("acdc", 80, "axial")}

OFTEN_CHECKED = {("hippocampus", 8), ("acdc", 8), ("ct", 8)}
"""The others are checked in `make test-faults`."""


def limits_of(configuration: str, geometry: VolumeGeometry, **changes: Any) -> Limits:
    """Limits of a hundred cases with memory for anything, unless the changes say something else."""
    values: dict[str, Any] = {
        "configuration": configuration,
        "geometry": geometry,
        "num_channels": 1,
        "num_outputs": 2,
        "num_cases": 100,
        "total_voxels": 100 * prod(geometry.shape),
        "gpu_memory_gb": 10_000,
    }
    return Limits(**values | changes)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    """The search, for which a voxel costs 10,000 operations and 100 bytes."""

    def trace(item: Any, batch_size: int, limits: Limits, position: int) -> Fit:
        representation, window, network = item
        voxels = batch_size * prod(window)
        memory = MemoryUse(
            parameters=0, gradients=0, optimizer=0, activations=100 * voxels, num_parameters=0, flops=10_000 * voxels
        )
        values = {"representation": representation, "window": window, "network": network, "position": position}
        return Fit(**values, batch_size=batch_size, memory=memory)

    def find(configuration: str, geometry: VolumeGeometry, **changes: Any) -> Fit:
        limits = limits_of(configuration, geometry, **changes)
        candidates = CONFIGURATIONS[configuration].from_rules(configuration, geometry, limits.rules)
        return search(candidates, limits)

    monkeypatch.setattr("seg25d.planning.search._trace", trace)
    return find


@pytest.mark.parametrize(
    ("configuration", "window"), [("3d", (256, 256, 256)), ("stack", (64, 512, 512)), ("axial", (48, 512, 512))]
)
def test_windows_end_where_the_first_patches_of_nnunet_begin_and_batches_go_on(
    chosen: Callable[..., Fit], configuration: str, window: Shape
) -> None:
    fit = chosen(configuration, CT)
    assert fit.window == window
    assert prod(fit.window) <= MOST_VOXELS
    assert fit.batch_size > 8
    assert (fit.num_too_large, fit.num_without_room) == (fit.position, 0)


@pytest.mark.parametrize(("geometry", "window"), [(CT, (500, 256, 256)), (WITH_ODD_SIDES, (400, 224, 224))])
def test_super_images_keep_all_slices(chosen: Callable[..., Fit], geometry: VolumeGeometry, window: Shape) -> None:
    """Half as high and as wide, rounded up for the network."""
    assert prod(window) > MOST_VOXELS
    assert chosen("si", geometry).window == window


def test_many_classes_leave_stacks_their_slices(chosen: Callable[..., Fit]) -> None:
    """Scores of more classes than a V-Net has features are made in parts; of fewer all are there at a time."""
    many, few = (chosen("stack", CT, gpu_memory_gb=8, num_outputs=number) for number in (17, 16))
    assert many.window == (64, 512, 512)
    assert 2 * 16 * prod(few.window) <= 2**30 / 4 < 2 * 16 * prod(many.window)


def test_projections_are_of_the_whole_volume(chosen: Callable[..., Fit]) -> None:
    assert chosen("mip", CT).window == CT.shape


def test_recipes_keep_their_windows_and_batches(chosen: Callable[..., Fit]) -> None:
    rules = ConfigurationRules(batch_size=3)
    fit = chosen("3d", CT, rules=rules, cpu_gflops=1)
    assert (fit.window, fit.batch_size, fit.position) == ((512, 512, 512), 3, 0)


@pytest.mark.parametrize(("memory", "num_cases", "batch_size"), [(24, 4, 2), (24, 1, 1), (8, 4, 1)])
def test_large_budgets_have_two_windows_in_a_batch(
    chosen: Callable[..., Fit], memory: float, num_cases: int, batch_size: int
) -> None:
    geometry = VolumeGeometry(shape=(64, 64, 64), spacing_mm=(1, 1, 1))
    fit = chosen("3d", geometry, gpu_memory_gb=memory, num_cases=num_cases, total_voxels=num_cases * 64**3)
    assert (fit.window, fit.batch_size) == ((64, 64, 64), batch_size)


@pytest.mark.parametrize("cpu_gflops", [4, 64])
def test_an_update_on_cpus_takes_two_seconds_at_most(chosen: Callable[..., Fit], cpu_gflops: float) -> None:
    most = UPDATE_SECONDS * cpu_gflops * 1e9
    fit = chosen("3d", CT, cpu_gflops=cpu_gflops, gpu_memory_gb=8)
    assert most / 2 < fit.memory.flops <= most
    assert fit.num_too_slow >= 1
    # Slower machines get smaller windows before they get more than one in a batch.
    assert fit.batch_size == 1


def test_batches_are_as_large_as_time_allows(chosen: Callable[..., Fit]) -> None:
    geometry = VolumeGeometry(shape=(64, 64, 64), spacing_mm=(1, 1, 1))
    voxels_in_time = 5.5 * 64**3
    values = {"gpu_memory_gb": 8, "total_voxels": 10**12, "num_cases": 10**6}
    fit = chosen("3d", geometry, cpu_gflops=voxels_in_time * 10_000 / UPDATE_SECONDS / 1e9, **values)
    assert (fit.window, fit.batch_size) == ((64, 64, 64), 5)
    assert chosen("3d", geometry, **values).batch_size == 64


def test_the_smallest_window_is_taken_where_all_are_slow(chosen: Callable[..., Fit]) -> None:
    fit = chosen("3d", CT, cpu_gflops=1e-9, gpu_memory_gb=8)
    assert (fit.window, fit.batch_size) == ((8, 8, 8), 1)
    assert fit.num_without_room >= 0
    assert fit.num_too_slow + fit.num_too_large + fit.num_without_room == fit.position


@pytest.mark.parametrize(("time_budget_s", "seconds"), [(0, 2), (300, 0.6), (900, 1.8), (1000, 2), (86_400, 2)])
def test_a_short_training_has_short_updates(time_budget_s: float, seconds: float) -> None:
    assert update_seconds(time_budget_s) == pytest.approx(seconds)


def test_a_time_for_trainings_has_room_for_enough_updates(chosen: Callable[..., Fit]) -> None:
    limits: dict[str, Any] = {"cpu_gflops": 64, "gpu_memory_gb": 8}
    usual, short = chosen("3d", CT, **limits), chosen("3d", CT, **limits, time_budget_s=60)
    assert UPDATES_OF_A_TRAINING * short.memory.flops / 64e9 <= 60 < UPDATES_OF_A_TRAINING * usual.memory.flops / 64e9
    assert prod(short.window) < prod(usual.window)
    assert short.num_too_slow > usual.num_too_slow
    assert chosen("3d", CT, **limits, time_budget_s=86_400) == usual, "no update takes longer than without"


def test_a_time_for_trainings_decides_nothing_without_a_speed(chosen: Callable[..., Fit]) -> None:
    assert chosen("3d", CT, time_budget_s=60) == chosen("3d", CT)


def test_a_time_for_trainings_is_explained() -> None:
    assert "time_budget_s" not in machine_reasons(8, 64)
    reasons = machine_reasons(8, 64, 300)
    assert "an update is to take 0.6 s at most, so that there are 6,000 an hour or more" in reasons["cpu_gflops"]
    assert reasons["time_budget_s"].endswith(
        "is given 5 min 0 s, in which there is room for 500 updates or more if they take 0.6 s at most"
    )
    assert "changes no plan here" in machine_reasons(8, 0, 300)["time_budget_s"]


def acdc(**machine: float) -> Plans:
    data = published.make_fingerprint(published.PUBLISHED["acdc"])
    return plan_dataset(*data, configurations=["3d"], **machine)


@pytest.fixture(scope="module")
def bounded() -> ConfigurationPlan:
    plans = acdc(cpu_gflops=256)
    assert plans.cpu_gflops == 256
    assert "256 GFLOP/s" in plans.reasons["cpu_gflops"]
    return plans.configurations["3d"]


def test_plans_for_cpus_say_how_long_updates_take(bounded: ConfigurationPlan) -> None:
    assert (bounded.window, bounded.batch_size) == ((20, 256, 224), 1)  # without a bound 2 of them, 1.02 TFLOP
    assert bounded.flops_per_update == pytest.approx(0.511e12, rel=0.01)
    assert bounded.reasons["flops_per_update"].endswith("on CPUs of 256 GFLOP/s about 2 s, 1,802 updates an hour")
    assert bounded.reasons["batch_size"].startswith("the largest of which an update takes 2 s at most")
    assert bounded.decisions == bounded.model_copy(update={"flops_per_update": 7}).decisions


@pytest.mark.slow
def test_slow_cpus_get_other_windows_and_it_is_said() -> None:
    item = acdc(cpu_gflops=64).configurations["3d"]
    assert item.flops_per_update <= UPDATE_SECONDS * 64e9
    assert item.window != (20, 256, 224)
    assert "would take longer than 2 s for an update on these CPUs" in item.reasons["window"]
    assert item.reasons["choice"].endswith("the best that fit into 8 GB and 2 s on these CPUs")


@pytest.mark.usefixtures("bytes_per_voxel")
def test_plans_for_another_speed_are_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    def revise(stored: Plans | None, cpu_gflops: float, time_budget_s: float = 0) -> Plans:
        data = published.make_fingerprint(published.PUBLISHED["tiny"])
        options: dict[str, Any] = {"configurations": ("si",), "rules": DEFAULT_RULES, "plans_name": "plans"}
        machine = {"gpu_memory_gb": 1.5, "cpu_gflops": cpu_gflops, "time_budget_s": time_budget_s}
        return revise_plans(stored, *data, **options, **machine)

    stored = revise(None, 128)
    assert revise(stored, 128) is stored
    assert revise(stored, 0).cpu_gflops == 0
    assert "the CPUs have any speed now and had 128 GFLOP/s" in caplog.text
    short = revise(stored, 128, 90)
    assert (short.cpu_gflops, short.time_budget_s) == (128, 90)
    assert "because trainings get 1 min 30 s now and got any time" in caplog.text
    assert revise(short, 128, 90) is short
    assert revise(short, 128).model_dump() == stored.model_dump()
    assert "because trainings get any time now and got 1 min 30 s" in caplog.text


def projections(geometry: VolumeGeometry) -> Projections:
    (representation, _), *_ = Projections.candidates(geometry)
    return representation


@pytest.mark.parametrize(
    ("representation", "window", "shape", "told"),
    [
        (SuperImage(grid=(5, 5)), (24, 256, 256), (500, 512, 512), "only 24 of 500 fit"),
        (SuperImage(grid=(16, 16)), (250, 256, 256), (500, 512, 512), None),
        (Stack(stack_size=8), (8, 512, 512), (500, 512, 512), "only 8 of 500 fit"),
        (Stack(stack_size=16), (16, 512, 512), (500, 512, 512), None),
        (Stack(stack_size=8), (8, 240, 208), (18, 237, 208), None),
        (Stack(stack_size=8), (8, 240, 208), (25, 237, 208), "only 8 of 25 fit"),
        (projections(CT), (500, 32, 512), (500, 512, 512), None),
        (
            projections(CT),
            (160, 32, 160),
            (500, 512, 512),
            "only 160 of 500 voxels along D (inferior-superior)",
        ),
    ],
)
def test_a_window_that_is_no_longer_the_method_is_warned_of(
    representation: Any, window: Shape, shape: Shape, told: str | None
) -> None:
    caution = representation.caution(window, VolumeGeometry(shape=shape, spacing_mm=(1, 1, 1)))
    if told is None:
        assert caution is None
    else:
        assert told in caution
        assert caution.endswith("take 2d")


def stored_plans(kind: str, name: str) -> dict[str, dict[str, Any]]:
    stored: dict[str, dict[str, Any]] = json.loads((published.GOLDEN / kind / f"{name}.json").read_text())
    return stored


def budgets(name: str) -> dict[str, dict[str, Any]]:
    return stored_plans("budgets", name)


def _mark(name: str, budget: int, configuration: str) -> list[pytest.MarkDecorator]:
    """All of them take a quarter of an hour of a processor."""
    if (name, budget, configuration) in QUICKLY_PLANNED:
        return []
    return [pytest.mark.slow] if (name, budget) in OFTEN_CHECKED else [pytest.mark.slow, pytest.mark.campaign]


@pytest.mark.parametrize(
    ("name", "budget", "configuration"),
    [
        pytest.param(*each, marks=_mark(*each))
        for each in itertools.product(published.BUDGETED, published.BUDGETS_GB, published.BUDGETED_CONFIGURATIONS)
    ],
)
def test_plans_for_all_budgets_stay_as_they_are(name: str, budget: int, configuration: str) -> None:
    """After a change on purpose: `python tests/planning/regenerate_golden_plans.py`."""
    golden = budgets(name)[str(budget)][configuration]
    # Another version of PyTorch may keep other tensors.
    golden["estimated_memory_gb"] = pytest.approx(golden["estimated_memory_gb"], rel=0.02)
    assert published.plans_for(name, budget, [configuration]) == {configuration: golden}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        pytest.param(*each, marks=[] if each[1] == "3d" else [pytest.mark.campaign])
        for each in itertools.product(published.TIMED, published.BUDGETED_CONFIGURATIONS)
    ],
)
def test_plans_for_short_trainings_stay_as_they_are(name: str, configuration: str) -> None:
    """After a change on purpose: `python tests/planning/regenerate_golden_plans.py`."""
    for time_budget_s, plans in stored_plans("time_budgets", name).items():
        golden = plans[configuration]
        golden["estimated_memory_gb"] = pytest.approx(golden["estimated_memory_gb"], rel=0.02)
        planned = published.plans_for_cpus(name, int(time_budget_s), [configuration])
        assert planned == {configuration: golden}, time_budget_s


@pytest.mark.parametrize("name", published.TIMED)
def test_short_trainings_have_as_many_updates_as_they_need(name: str) -> None:
    """As the golden files have it: the less time a training has, the less an update costs."""
    plans = stored_plans("time_budgets", name)
    assert list(plans) == [str(seconds) for seconds in published.TIMES_S]
    for configuration in published.BUDGETED_CONFIGURATIONS:
        any_time, *costs = (each[configuration]["tflop_per_update"] for each in plans.values())
        assert [*costs, any_time] == sorted([*costs, any_time])
        for seconds, cost in zip(published.TIMES_S[1:], costs, strict=True):
            assert cost <= round(update_seconds(seconds) * published.CPU_GFLOPS / 1000, 3)


@pytest.mark.parametrize("name", published.BUDGETED)
def test_large_budgets_are_used_for_batches(name: str) -> None:
    """As the golden files have it: more with more memory, and above what helps only windows of whole volumes.

    These alone may be batches of one.
    """
    shape = published.BUDGETED[name].shape
    for budget, plans in budgets(name).items():
        for configuration, item in plans.items():
            assert item["estimated_memory_gb"] <= float(budget)
            if float(budget) >= 24 and prod(item["window"]) <= MOST_VOXELS:
                assert item["batch_size"] >= 2
            if configuration not in {"si", "mip"}:
                assert prod(item["window"]) <= MOST_VOXELS
            assert item["is_warned_of"] <= (prod(item["window"]) < prod(shape) / 2)
    for small, large in ((24, 80), (80, 140)):
        before, after = (budgets(name)[str(budget)]["3d"] for budget in (small, large))
        sizes = [prod(item["window"]) * item["batch_size"] for item in (before, after)]
        assert sizes[0] <= sizes[1]
