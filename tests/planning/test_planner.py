import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import parse_record, read_record, write_record
from seg25d.core.types import Shape, Spacing
from seg25d.data.labels import Labels
from seg25d.planning.channel_rules import store_name
from seg25d.planning.configurations import configuration_names
from seg25d.planning.explanation import explain
from seg25d.planning.memory import GIGABYTE, MemoryUse
from seg25d.planning.network_rules import NETWORK_RULES
from seg25d.planning.plan import Plans
from seg25d.planning.planner import plan_dataset
from seg25d.planning.plans_name import RESERVED, check_plans_name
from seg25d.planning.recipe_rules import DEFAULT_RULES, PLANNING_RULES, find_rules
from seg25d.planning.revision import revise_plans
from seg25d.planning.search import CARD_SHARE, OVERHEAD_BYTES, Fit, Limits, check_memory, search
from seg25d.representations import ANATOMICAL
from seg25d.representations.base import CONFIGURATIONS, VolumeGeometry
from seg25d.representations.projections.method import Projections
from tests.planning import published_fingerprints as published

SLOWLY_PLANNED = frozenset({"liver", "pancreas", "isotropic_half_mm", "brats", "thick_slices"})
"""Published data sets of large volumes, for which many windows are tried."""
UNTRACED = pytest.mark.usefixtures("bytes_per_voxel")
ISOTROPIC = (1.0, 1.0, 1.0)


def plan(
    shape: Shape,
    spacing: Spacing = ISOTROPIC,
    *,
    num_cases: int = 20,
    channels: tuple[str, ...] = ("MRI",),
    configurations: tuple[str, ...] | None = None,
    gpu_memory_gb: float = 8,
) -> Plans:
    data = published.Published(shape, ((num_cases, spacing),), channels, 2)
    return plan_dataset(*published.make_fingerprint(data), configurations=configurations, gpu_memory_gb=gpu_memory_gb)


def test_plans_do_not_depend_on_the_processes_that_make_them() -> None:
    data = published.Published((18, 40, 36), ((3, ISOTROPIC),), ("MRI",), 2)
    wanted = ("mv", "axial", "si")
    alone, together = (
        plan_dataset(*published.make_fingerprint(data), configurations=wanted, num_workers=number) for number in (0, 2)
    )
    assert alone == together
    assert list(alone.configurations) == list(together.configurations)


def mostly_single_slices(shape: Shape) -> Plans:
    """Plans of ten cases with one slice and one with three."""
    fingerprint, description = published.make_fingerprint(published.Published(shape, ((11, ISOTROPIC),), ("MRI",), 2))
    thick = (3, *shape[1:])
    other = fingerprint.cases[0].model_copy(update={"shape": thick, "cropped_shape": thick})
    fingerprint = fingerprint.model_copy(update={"cases": (other, *fingerprint.cases[1:])})
    return plan_dataset(fingerprint, description, gpu_memory_gb=1.5)


def test_plans_say_how_many_slices_are_labelled() -> None:
    data = published.Published((18, 20, 16), ((3, ISOTROPIC),), ("MRI",), 2)
    fingerprint, description = published.make_fingerprint(data)
    cases = tuple(case.model_copy(update={"labelled_slices": (4, 20, 16)}) for case in fingerprint.cases)
    sparse = fingerprint.model_copy(update={"cases": cases})
    plans, told = (
        plan_dataset(each, description, configurations=["axial"], gpu_memory_gb=8) for each in (fingerprint, sparse)
    )
    assert "labels" not in plans.reasons
    assert told.reasons["labels"].startswith("3 of 3 case(s) are labelled in some slices along D (inferior-superior)")
    # They decide nothing, so that plans from before they were counted stay.
    assert told.model_copy(update={"reasons": plans.reasons}) == plans


def test_all_configurations_of_a_small_data_set() -> None:
    plans = plan((18, 20, 16), num_cases=200)
    assert tuple(plans.configurations) == tuple(CONFIGURATIONS)
    windows = {
        "axial": (14, 20, 16),
        "coronal": (20, 16, 16),
        "sagittal": (20, 20, 12),
        "si": (18, 20, 16),
        "stack": (20, 20, 16),
        "mip": (20, 20, 16),
        "mv": (24, 24, 24),
        "3d": (20, 20, 16),
    }
    assert {name: plans.configurations[name].window for name in windows} == windows
    assert len({item.store for item in plans.configurations.values()}) == 1
    assert plans.configurations["si"].representation.grid == (4, 5)
    assert plans.configurations["axial"].representation.context == 3
    # 0.8 % of 200 cases are less than two volumes, and two is the smallest batch.
    assert plans.configurations["axial"].batch_size == 2
    assert plans.configurations["3d"].batch_size == 2
    assert all(item.estimated_memory_gb <= 8 for item in plans.configurations.values())


def test_plans_survive_their_file(tmp_path: Path) -> None:
    plans = plan((12, 16, 16), configurations=("si", "3d"))
    write_record(tmp_path / "plans.json", plans)
    assert read_record(tmp_path / "plans.json", Plans) == plans


@UNTRACED
def test_every_decision_has_its_reason_and_explain_tells_it() -> None:
    plans = plan((6, 24, 24), (5.0, 1.0, 1.0), channels=("CT", "PET"), configurations=("2d", "si", "mip", "3d"))
    text = explain(plans)
    words = " ".join(text.split())
    for reasons in (plans.reasons, *(item.reasons for item in plans.configurations.values())):
        told = {key: reason for key, reason in reasons.items() if key != "choice"}
        assert all(f"{key}: {' '.join(reason.split())}" in words for key, reason in told.items())
    assert all(item.reasons["choice"] in words for item in plans.configurations.values())
    assert set(plans.reasons) == {"spacing_mm", "slice_axis", "normalization", "mirror_axes", "gpu_memory_gb"}
    for name, item in plans.configurations.items():
        own = {"ceiling"} if name == "mip" else set()
        own |= {"warning"} if name != "axial" else set()
        shared = {"choice", "representation", "window", "batch_size", "network", "estimated_memory_gb"}
        assert set(item.reasons) == shared | own | {"flops_per_update"}


@UNTRACED
@pytest.mark.parametrize("shape", [(7, 48, 40), (9, 40, 48), (24, 20, 16)])
def test_the_explanation_is_narrow_says_which_row_2d_is_and_shows_no_internals(shape: Shape) -> None:
    plans = plan(shape, (4.0, 1.0, 1.0), gpu_memory_gb=1.5)
    long = "axial__" + 60 * "n"
    plans = plans.with_plan(long, plans.configurations["axial"])
    text = explain(plans)
    assert max(map(len, text.splitlines())) <= 110
    rows = text.splitlines()[2 : 4 + len(CONFIGURATIONS)]
    assert rows[1].startswith("axial = 2d  ")
    assert sum("2d" in row for row in rows) == 1
    assert len({row.index("G") for row in rows[1:]}) == 1, "aligned, the long name too"
    assert not {"maps_per_view", "regions", "stack_size", "num_classes", "True", "False"} & set(text.split())
    for name in plans.configurations:
        shown = "axial = 2d" if name == "axial" else name
        assert f"\n\n{shown}: " in text or long in name


@UNTRACED
@pytest.mark.parametrize(
    ("shape", "spacing", "warned"),
    [
        ((7, 48, 40), ISOTROPIC, set(CONFIGURATIONS) - {"axial"}),
        ((9, 48, 40), (10.0, 1.5, 1.5), {"coronal", "sagittal", "mv"}),
        ((64, 64, 64), ISOTROPIC, set()),
        ((64, 64, 40), ISOTROPIC, {"mv"}),
    ],
)
def test_what_speaks_against_a_configuration_is_said(shape: Shape, spacing: Spacing, warned: set[str]) -> None:
    plans = plan(shape, spacing, gpu_memory_gb=1.5)
    assert {name for name, item in plans.configurations.items() if "warning" in item.reasons} == warned
    text = explain(plans)
    assert text.count("  warning: ") == len(warned)


@UNTRACED
def test_warnings_name_numbers_and_the_cure() -> None:
    thick = plan((9, 48, 40), (10.0, 1.5, 1.5), gpu_memory_gb=1.5).configurations
    assert "10 x 1.5 mm" in thick["coronal"].reasons["warning"]
    assert "take 2d (axial)" in thick["sagittal"].reasons["warning"]
    assert "(9 x 48 x 40) along D (inferior-superior)" in thick["mv"].reasons["warning"]
    assert thick["mv"].reasons["mirror_axes"].startswith("none")
    single = mostly_single_slices((1, 48, 40)).configurations
    assert "only 1 pixel wide" in single["coronal"].reasons["warning"]
    assert "single slice and no third dimension" in single["mip"].reasons["warning"]
    assert single["mip"].reasons["warning"].endswith("take 2d (axial)")
    few = plan((5, 48, 40), configurations=("3d",), gpu_memory_gb=1.5).configurations
    assert "only 5 slices along D" in few["3d"].reasons["warning"]


@UNTRACED
@pytest.mark.parametrize(
    ("shape", "num_cases", "reason"),
    [
        ((16, 32, 32), 1, "the smallest allowed, 1, as a single window has more than 0.8% of the voxels"),
        ((16, 32, 32), 200, "the smallest allowed, 2, as in nnU-Net"),
        ((16, 32, 32), 40, "the smallest allowed, 1, as a single window"),
    ],
)
def test_which_batch_is_the_smallest_is_said(shape: Shape, num_cases: int, reason: str) -> None:
    item = plan(shape, num_cases=num_cases, configurations=("3d",)).configurations["3d"]
    assert item.reasons["batch_size"].startswith(reason)


@UNTRACED
def test_2d_is_stored_under_its_anatomical_name() -> None:
    plans = plan((16, 12, 16), (1.0, 4.0, 1.0), configurations=("2d", "coronal", "si"))
    assert list(plans.configurations) == ["coronal", "si"]
    assert plans.slice_axis == plans.configurations["si"].representation.axis == 1


@UNTRACED
def test_projections_know_the_volume_and_the_labels() -> None:
    data = published.Published((4, 24, 16), ((9, (3.0, 1.0, 1.0)),), ("MRI",), 1)
    fingerprint, description = published.make_fingerprint(data)
    (item,) = plan_dataset(fingerprint, description, configurations=["mip"]).configurations.values()
    representation = item.representation
    assert isinstance(representation, Projections)
    assert representation.network_axes == (1, 2)
    assert representation.spacing_mm == item.spacing_mm
    assert (representation.num_classes, representation.background) == (1, True)
    assert item.network.num_supervised == 1
    assert "turned about H" in item.reasons["representation"]
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
    regions = description.model_copy(update={"labels": labels})
    (item,) = plan_dataset(fingerprint, regions, configurations=["mip"]).configurations.values()
    assert isinstance(item.representation, Projections)
    assert (item.representation.num_classes, item.representation.background) == (2, False)


def fake_trace(monkeypatch: pytest.MonkeyPatch, activations: Callable[[Any, Shape, int], int]) -> list[int]:
    """Let the search see this memory for a representation, a window and a batch; gives the batches it asked for."""
    asked = []

    def trace(item: Any, batch_size: int, limits: Limits, position: int) -> Fit:
        representation, window, network = item
        asked.append(batch_size)
        used = activations(representation, window, batch_size)
        memory = MemoryUse(parameters=0, gradients=0, optimizer=0, activations=used, num_parameters=0)
        return Fit(
            representation=representation,
            window=window,
            network=network,
            batch_size=batch_size,
            memory=memory,
            position=position,
        )

    monkeypatch.setattr("seg25d.planning.search._trace", trace)
    return asked


def limits_of(configuration: str, geometry: VolumeGeometry, gpu_memory_gb: float) -> Limits:
    return Limits(
        configuration=configuration,
        geometry=geometry,
        num_channels=1,
        num_outputs=2,
        num_cases=9,
        total_voxels=10**9,
        gpu_memory_gb=gpu_memory_gb,
    )


@pytest.mark.parametrize(("numbers_per_voxel", "whole"), [(100, True), (2000, False)])
def test_no_tensor_has_more_numbers_than_kernels_count(
    monkeypatch: pytest.MonkeyPatch, numbers_per_voxel: int, whole: bool
) -> None:
    """With memory for anything: 144^3 voxels of 2000 numbers are more than 2^31."""

    def trace(item: Any, batch_size: int, limits: Limits, position: int) -> Fit:
        representation, window, network = item
        largest = numbers_per_voxel * prod(window) * batch_size
        memory = MemoryUse(
            parameters=0, gradients=0, optimizer=0, activations=1, num_parameters=0, largest_tensor=largest
        )
        values = {"representation": representation, "window": window, "network": network, "position": position}
        return Fit(**values, batch_size=batch_size, memory=memory)

    monkeypatch.setattr("seg25d.planning.search._trace", trace)
    geometry = VolumeGeometry(shape=(139, 139, 139), spacing_mm=ISOTROPIC)
    candidates = CONFIGURATIONS["3d"].candidates(geometry)
    fit = search(candidates, limits_of("3d", geometry, 139).model_copy(update={"total_voxels": 10**12}))
    assert (fit.position == 0) == whole
    numbers = numbers_per_voxel * prod(fit.window)
    assert numbers * fit.batch_size < 2**31 <= numbers * (fit.batch_size + 1)
    assert (fit.batch_size > 2, fit.num_uncountable > 0) == (whole, not whole)


def test_plans_for_8_gb_fit_into_what_such_cards_have() -> None:
    """7.76 GiB are reported by cards that are sold with 8; the CUDA context comes off that too."""
    limits = limits_of("3d", VolumeGeometry(shape=(32, 64, 48), spacing_mm=ISOTROPIC), 8)
    assert limits.budget_bytes + OVERHEAD_BYTES <= 7.76 * GIGABYTE
    golden = [json.loads(path.read_text()) for path in published.GOLDEN.glob("*.json")]
    estimates = [plan["estimated_memory_gb"] for each in golden for plan in each["configurations"].values()]
    assert len(estimates) > 20
    assert max(estimates) <= 7.76


def test_fewer_views_are_not_taken_for_as_costly_as_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search predicts memory from what it traced: six views must not be taken to need what twelve did."""
    fake_trace(monkeypatch, lambda each, window, batch: 1000 * each.num_training_views * prod(window) * batch)
    geometry = VolumeGeometry(shape=(32, 64, 48), spacing_mm=ISOTROPIC)
    enough_for_six = (1000 * 6 * 32 * 32 * 48 * 2 + OVERHEAD_BYTES) / GIGABYTE / CARD_SHARE + 0.01
    fit = search(Projections.candidates(geometry), limits_of("mip", geometry, enough_for_six))
    assert fit.window == (32, 32, 48)
    assert isinstance(fit.representation, Projections)
    assert (fit.representation.num_training_views, fit.representation.num_views) == (6, 36)


@pytest.mark.parametrize(("fixed", "rise", "steep"), [(0, 200, 0), (500, 200, 250), (2000, 100, 1), (3000, 1, 400)])
def test_the_batch_is_the_largest_that_fits(monkeypatch: pytest.MonkeyPatch, fixed: int, rise: int, steep: int) -> None:
    """Memory is the highest of some lines over the batch; few sizes are traced, none twice."""

    def used(batch_size: int) -> int:
        return max(fixed + rise * batch_size, steep * batch_size) * GIGABYTE // 1024

    asked = fake_trace(monkeypatch, lambda _, __, batch: used(batch))
    geometry = VolumeGeometry(shape=(32, 64, 48), spacing_mm=ISOTROPIC)
    limits = limits_of("3d", geometry, 8)
    candidates = CONFIGURATIONS["3d"].candidates(geometry)
    fit = search(candidates, limits)
    assert fit.batch_size == max(size for size in range(2, 65) if used(size) <= limits.budget_bytes)
    assert len(set(asked)) == len(asked) <= 6


@UNTRACED
@pytest.mark.parametrize(("configuration", "bounded"), [("si", False), ("stack", False), ("3d__swin_unetr", True)])
def test_windows_of_very_many_classes_have_no_more_scores_than_a_prediction_can_hold(
    configuration: str, bounded: bool
) -> None:
    """Those of a U-Net and of a V-Net are made in parts, those of a Swin UNETR are there all at once."""
    data = published.Published((96, 96, 96), ((50, ISOTROPIC),), ("CT",), 200)
    plans = plan_dataset(*published.make_fingerprint(data), configurations=[configuration], gpu_memory_gb=4)
    (many,) = plans.configurations.values()
    assert (2 * 201 * prod(many.window) <= 4 * GIGABYTE / 32) == bounded
    assert ("201 per voxel" in many.reasons["window"]) == bounded


@UNTRACED
def test_sided_labels_are_not_mirrored() -> None:
    fingerprint, description = published.make_fingerprint(published.PUBLISHED["tiny"])
    sided = description.model_copy(update={"labels": Labels(names={"background": 0, "left lung": 1, "right lung": 2})})
    plans = plan_dataset(fingerprint, sided, configurations=["2d"])
    assert plans.configurations["axial"].mirror_axes == (0, 1)
    assert plans.reasons["mirror_axes"] == (
        "mirrored along D (inferior-superior) and H (anterior-posterior); not along W (right-left), as mirroring would "
        "swap left and right, which the names of 'left lung' and 'right lung' distinguish"
    )
    plain = plan_dataset(fingerprint, description, configurations=["2d"])
    assert plain.reasons["mirror_axes"].startswith("all three axes")
    assert plain.configurations["axial"].mirror_axes == (0, 1, 2)


@UNTRACED
def test_a_single_slice_and_a_single_case_can_be_planned() -> None:
    plans = plan((1, 20, 20), num_cases=1)
    assert plans.configurations["axial"].representation.context == 0
    assert plans.configurations["axial"].batch_size == 1


@UNTRACED
@pytest.mark.parametrize(("axis", "name"), list(enumerate(ANATOMICAL)))
def test_what_needs_a_third_dimension_is_left_out_for_single_slices(axis: int, name: str) -> None:
    shape, spacing = [20, 24, 28], [4.0, 4.0, 4.0]
    shape[axis], spacing[axis] = 1, 0.1
    flat: tuple[Shape, Spacing] = ((shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2]))
    plans = plan(*flat)
    assert list(plans.configurations) == [name], "although its slices are the thinnest"
    assert list(plan(*flat, configurations=("2d",)).configurations) == [name]
    others = ", ".join(each for each in CONFIGURATIONS if each != name)
    assert plans.reasons["left_out"].startswith(f"{others} need a third dimension")
    assert "along which the median volume has a single voxel" in plans.reasons["slice_axis"]
    for asked_for in ("mip", "mv", "3d__se_unet"):
        with pytest.raises(InputError, match=rf"{asked_for[:2]}\w* needs a third dimension.*; plan {name}$"):
            plan(*flat, configurations=("2d", asked_for))


def test_recipes_for_a_third_dimension_are_not_for_single_slices() -> None:
    data = published.make_fingerprint(published.Published((1, 24, 16), ((9, ISOTROPIC),), ("CT",), 2))
    with pytest.raises(InputError, match=r"needs? a third dimension.*; plan with another recipe than sobirov2022"):
        plan_dataset(*data, rules=find_rules("sobirov2022"))


@UNTRACED
def test_a_few_thicker_cases_are_enough_for_a_third_dimension() -> None:
    assert set(mostly_single_slices((1, 20, 24)).configurations) == set(CONFIGURATIONS)


@UNTRACED
def test_volumes_too_small_to_pool_can_be_planned() -> None:
    plans = plan((2, 3, 5), num_cases=3)
    assert plans.configurations.pop("mv").window == (8, 8, 8)
    assert all(len(item.network.widths) == 1 for item in plans.configurations.values())


@UNTRACED
def test_models_of_all_configurations_take_their_window() -> None:
    torch = pytest.importorskip("torch")
    for item in plan((5, 16, 12), num_cases=3).configurations.values():
        widths = {"width": 2} if item.network.name == "fusion_net" else {"widths": (2,) * len(item.network.widths)}
        narrow = item.network.model_copy(update=widths)
        model = item.model_copy(update={"network": narrow}).build_model(1, 3).eval()
        channels = item.representation.input_channels(1)
        assert model(torch.zeros(1, channels, *item.window)).shape == (1, 3, *item.window)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=f"'quad'; known: 2d, {', '.join(CONFIGURATIONS)}$"):
        plan_dataset(*published.make_fingerprint(published.PUBLISHED["tiny"]), configurations=["si", "quad"])
    with pytest.raises(InputError, match=r"sobirov1922.*known: default"):
        find_rules("sobirov1922")


def test_too_little_memory_names_configuration_and_cure() -> None:
    with pytest.raises(InputError, match=r"configuration si: 0\.5 GB .*--gpu-memory-gb 0\.\d"):
        plan((40, 64, 64), configurations=("si",), gpu_memory_gb=0.5)


def test_a_budget_that_the_message_names_does() -> None:
    with pytest.raises(InputError) as caught:
        plan((40, 64, 64), configurations=("3d",), gpu_memory_gb=0.1)
    named = float(str(caught.value).split("--gpu-memory-gb ")[1].split()[0])
    assert plan((40, 64, 64), configurations=("3d",), gpu_memory_gb=named).configurations


@UNTRACED
@pytest.mark.parametrize(("shape", "grid"), [((144, 144, 144), (12, 12)), ((48, 80, 80), (8, 6))])
def test_whole_volumes_become_square_super_images(shape: Shape, grid: tuple[int, int]) -> None:
    item = plan(shape, configurations=("si",), gpu_memory_gb=80).configurations["si"]
    # Tiles are rounded up to what the network can divide: 144 to 160.
    assert item.window[0] == shape[0]
    assert all(size >= whole for size, whole in zip(item.window, shape, strict=True))
    assert item.representation.grid == grid


@pytest.mark.parametrize("configuration", ["si", pytest.param("3d", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("budgets", "width"), [((4, 8), 16), pytest.param((12, 24, 80), 32, marks=pytest.mark.slow)])
def test_more_memory_gives_larger_windows_or_batches(
    configuration: str, budgets: tuple[float, ...], width: int
) -> None:
    sizes = []
    for budget in budgets:
        data = published.make_fingerprint(published.PUBLISHED["brats"])
        (item,) = plan_dataset(*data, configurations=[configuration], gpu_memory_gb=budget).configurations.values()
        # With 80 GB a larger batch has tensors of 2^31 values or more.
        assert item.estimated_memory_gb <= budget
        assert item.estimated_memory_gb > (0.3 if budget == 80 else 0.6) * budget
        assert item.network.widths[0] == width
        sizes.append((prod(item.window), item.batch_size))
    assert sizes == sorted(set(sizes))


@UNTRACED
def test_slices_of_a_small_data_set_make_shallow_windows_and_it_is_said() -> None:
    (item,) = plan((60, 64, 64), num_cases=10, configurations=("axial",)).configurations.values()
    assert item.window == (8, 64, 64)  # half of 0.8 % of 600 slices are 2; 8 at least
    assert "leaves more updates" in item.reasons["window"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOWLY_PLANNED)) for name in published.PUBLISHED]
)
def test_plans_of_published_data_sets_stay_as_they_are(name: str) -> None:
    """After a change on purpose: `python tests/planning/regenerate_golden_plans.py`."""
    data = published.PUBLISHED[name]
    configurations = published.golden_configurations(data)
    plans = plan_dataset(*published.make_fingerprint(data), configurations=configurations)
    planned = published.decisions(plans)
    golden = json.loads((published.GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    for item in golden["configurations"].values():
        # Another version of PyTorch may keep other tensors.
        item["estimated_memory_gb"] = pytest.approx(item["estimated_memory_gb"], rel=0.02)
    assert planned == golden
    assert all(item.estimated_memory_gb <= 8 for item in plans.configurations.values())


TINY_DATA = published.make_fingerprint(published.PUBLISHED["tiny"])


def revise(stored: Plans | None, *, data: tuple[object, object] = TINY_DATA, **changes: object) -> Plans:
    options = {"configurations": ("si",), "gpu_memory_gb": 8.0, "rules": DEFAULT_RULES, "plans_name": "plans"}
    return revise_plans(stored, *data, **(options | changes))


@pytest.fixture
def edited(bytes_per_voxel: None) -> Plans:
    plans = revise(None)
    item = plans.configurations["si"].model_copy(update={"batch_size": 7})
    return plans.model_copy(update={"configurations": {"si": item}})


@UNTRACED
def test_edited_plans_are_kept_and_what_is_missing_is_added(edited: Plans) -> None:
    assert revise(edited) == edited
    more = revise(edited, configurations=("2d", "si"))
    assert list(more.configurations) == ["si", "axial"]
    assert more.configurations["si"].batch_size == 7


@UNTRACED
def test_plans_of_something_else_are_made_anew_and_it_is_said(edited: Plans, caplog: pytest.LogCaptureFixture) -> None:
    fingerprint, description = TINY_DATA
    relabelled = description.model_copy(update={"labels": Labels(names={"background": 0, "other": 1})})
    for changes, reason in (
        ({"data": (fingerprint, relabelled)}, "the data set"),
        ({"gpu_memory_gb": 4.0}, "4 GB now and was 8 GB"),
    ):
        caplog.clear()
        plans = revise(edited, configurations=("2d",), **changes)
        assert set(plans.configurations) == {"si", "axial"}
        assert plans.configurations["si"].batch_size != 7
        (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert reason in record.getMessage()
        assert "again" in record.getMessage()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("window", [0, 64, 64]),
        ("spacing_mm", [0.0, 1.0, 1.0]),
        ("mirror_axes", [3]),
        ("batch_size", 0),
        ("representation", {"name": "super_image", "grid": [-4, -3]}),
    ],
)
def test_wrong_edits_name_the_place(edited: Plans, key: str, value: object) -> None:
    content = edited.model_dump(mode="json")
    content["configurations"]["si"][key] = value
    place = "configurations.si" if key == "representation" else rf"configurations\.si\.{key}"
    with pytest.raises(RecordError, match=place):
        parse_record(content, Plans, "plans.json")


@pytest.mark.parametrize(("key", "value"), [("gpu_memory_gb", 0), ("plans_name", "../x"), ("slice_axis", 3)])
def test_wrong_edits_of_the_whole_name_the_place(edited: Plans, key: str, value: object) -> None:
    with pytest.raises(RecordError, match=key):
        parse_record(edited.model_dump(mode="json") | {key: value}, Plans, "plans.json")


@UNTRACED
def test_projections_turn_in_the_spacing_of_the_plan() -> None:
    content = revise(None, configurations=("mip",)).model_dump(mode="json")
    content["configurations"]["mip"]["representation"]["spacing_mm"] = [1.0, 1.0, 1.0]
    with pytest.raises(RecordError, match=r"configurations\.mip: .*differs from spacing_mm"):
        parse_record(content, Plans, "plans.json")


def test_another_spacing_needs_other_arrays(edited: Plans) -> None:
    content = edited.model_dump(mode="json")
    item = content["configurations"]["si"]
    item["spacing_mm"] = [4.0, 1.0, 1.0]
    wanted = store_name((4.0, 1.0, 1.0), edited.configurations["si"].normalization)
    with pytest.raises(RecordError, match=rf"configurations\.si\.store.*{wanted}.*run plan_and_preprocess"):
        parse_record(content, Plans, "plans.json")
    item["store"] = wanted
    assert revise(parse_record(content, Plans, "plans.json")).configurations["si"].spacing_mm == (4.0, 1.0, 1.0)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "..", "dataset", "Splits", "fingerprint", "se_unet"])
def test_names_of_plans(name: str) -> None:
    assert check_plans_name("big_2-x") == "big_2-x"
    with pytest.raises(ValueError, match="name of plans"):
        check_plans_name(name)


def test_plans_are_not_called_like_networks_or_recipes() -> None:
    assert {*NETWORK_RULES, *PLANNING_RULES} <= set(RESERVED)


def test_memory_that_leaves_nothing_is_refused_at_once() -> None:
    check_memory(0.6)
    with pytest.raises(InputError, match=r"0\.5 GB of GPU memory are not enough"):
        check_memory(0.5)


def test_the_rstn_is_planned_for_slices_in_memory_for_both_passes() -> None:
    plans = plan((18, 20, 16), num_cases=200, configurations=("2d__rstn", "2d"))
    usual, rstn = plans.configurations["axial"], plans.configurations["axial__rstn"]
    assert rstn.network.name == "rstn"
    assert rstn.network.network.widths == usual.network.widths
    assert rstn.window[1:] == usual.window[1:]
    assert 2 * usual.num_parameters < rstn.num_parameters < 2.1 * usual.num_parameters
    per_voxel = [item.flops_per_update / item.batch_size / prod(item.window) for item in (usual, rstn)]
    assert per_voxel[1] > 1.9 * per_voxel[0]
    assert rstn.reasons["network"].startswith("rstn twice 16-32")
    assert "axial__rstn" in explain(plans)
    assert parse_record(rstn.model_dump(mode="json"), type(rstn), "plans.json") == rstn


@UNTRACED
def test_regions_are_regions_for_the_rstn_too() -> None:
    small = published.Published((8, 10, 8), ((9, ISOTROPIC),), ("MRI",), 2)
    fingerprint, description = published.make_fingerprint(small)
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
    for data, regions in ((description, False), (description.model_copy(update={"labels": labels}), True)):
        (item,) = plan_dataset(fingerprint, data, configurations=["2d__rstn"]).configurations.values()
        assert item.network.regions == regions


@UNTRACED
def test_a_network_that_only_slices_can_have_is_that_of_the_views() -> None:
    plans = plan((8, 10, 8), num_cases=200, configurations=("mv__rstn",))
    views = tuple(f"{name}__rstn" for name in ANATOMICAL)
    assert tuple(plans.configurations) == (*views, "mv__rstn")
    fused = plans.configurations["mv__rstn"]
    assert fused.representation.views == views
    assert fused.network.name == "fusion_net"
    assert ", ".join(views) in fused.reasons["representation"]
    assert {plans.configurations[name].network.name for name in views} == {"rstn"}
    # A network that both can have is that of the fusion.
    assert configuration_names(("mv__se_unet",), 0) == [*ANATOMICAL, "mv__se_unet"]
    with pytest.raises(InputError, match=r"'fusion_net' has 3 dimensions, and 2 are needed"):
        configuration_names(("axial__fusion_net",), 0)
    with pytest.raises(InputError, match=r"'rstn' has 2 dimensions, and 3 are needed"):
        configuration_names(("3d__rstn",), 0)


@UNTRACED
def test_edits_of_what_another_configuration_needs_are_kept() -> None:
    data = published.make_fingerprint(published.Published((8, 10, 8), ((9, ISOTROPIC),), ("MRI",), 1))
    stored = revise(None, data=data, configurations=("axial",))
    edited = stored.with_plan("axial", stored.configurations["axial"].model_copy(update={"batch_size": 7}))
    more = revise(edited, data=data, configurations=("mv",))
    assert set(more.configurations) == {*ANATOMICAL, "mv"}
    assert more.configurations["axial"].batch_size == 7
