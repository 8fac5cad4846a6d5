"""Recipes as the planner sees them: what they fix is fixed, and what they leave open is planned."""

import pytest

from seg25d.core.errors import InputError
from seg25d.core.records import parse_record
from seg25d.core.types import Shape
from seg25d.data.labels import Labels
from seg25d.networks.base import NetworkSpec
from seg25d.planning.case_fingerprint import ChannelIntensities
from seg25d.planning.geometry import choose_topology
from seg25d.planning.network_rules import NETWORK_RULES, make_network
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import plan_dataset
from seg25d.planning.recipe_rules import (
    DEFAULT_RULES,
    PLANNING_RULES,
    SOBIROV2022,
    ConfigurationRules,
    PlanningRules,
    find_rules,
)
from seg25d.planning.revision import revise_plans
from seg25d.representations.base import CONFIGURATIONS
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import choose_grid
from tests.planning import published_fingerprints as published

SMALL = published.Published((12, 24, 20), ((10, (2.0, 1.0, 1.0)),), ("CT", "PET", "zscore"), 1)
INTENSITIES = ChannelIntensities(
    mean=20.0, std=30.0, median=25.0, minimum=-500.0, maximum=900.0, percentile_00_5=-80.0, percentile_99_5=160.0
)


def plan(recipe: str, *configurations: str, shape: Shape = SMALL.shape) -> Plans:
    data = SMALL._replace(shape=shape)
    return plan_dataset(*published.make_fingerprint(data), configurations=configurations, rules=find_rules(recipe))


def test_a_recipe_fixes_spacing_normalisation_network_batch_and_mirroring() -> None:
    plans = plan("sobirov2022", "si")
    item = plans.configurations["si"]
    assert plans.recipe == "sobirov2022"
    assert item.spacing_mm == (1.0, 1.0, 1.0)
    assert [(channel.scheme, channel.lower, channel.std) for channel in item.normalization] == [
        ("ct", -1024, 1024),
        ("zscore_offset", None, None),
        ("zscore", None, None),
    ]
    assert [channel.channel for channel in item.normalization] == list(SMALL.channels)
    # 12 slices at 2 mm are 24 at 1 mm.
    assert item.window[0] == 24
    assert item.batch_size == 2
    assert item.network.widths[:2] == (24, 48)
    assert (item.network.downsampling, item.network.num_supervised) == ("max_pool", 1)
    assert item.mirror_axes == ()
    assert plan("sobirov2022_pta", "si").configurations["si"].mirror_axes == (2,)


@pytest.mark.usefixtures("bytes_per_voxel")
def test_the_reasons_name_the_paper() -> None:
    plans = plan("sobirov2022", "si")
    reasons = plans.reasons | plans.configurations["si"].reasons
    assert (
        "'CT' gets ct (lower -1024, upper 1024, mean 0, std 1024) as in Sobirov et al. 2022" in reasons["normalization"]
    )
    assert "'zscore' asks for zscore" in reasons["normalization"]
    assert "1 x 1 x 1 mm as in Sobirov" in reasons["spacing_mm"]
    assert reasons["mirror_axes"].startswith("no axis")
    assert reasons["batch_size"].startswith("the recipe's")
    assert "super_image_unet" in reasons["network"]


@pytest.mark.usefixtures("bytes_per_voxel")
def test_slices_of_a_recipe_come_one_by_one_and_without_neighbours() -> None:
    item = plan("shivdeo2021", "axial").configurations["axial"]
    assert (item.window[0], item.batch_size, item.representation.context) == (1, 16, 0)
    assert "the recipe's" in item.reasons["representation"]


@pytest.mark.usefixtures("bytes_per_voxel")
def test_stacks_and_projections_of_recipes_are_those_of_the_papers() -> None:
    stacks = plan("shivdeo2021", "stack", shape=(70, 24, 20)).configurations["stack"].representation
    assert (stacks.stack_size, stacks.overlap, stacks.last_stack) == (32, 20, "padded")
    projections = plan("angermann2022", "mip").configurations["mip"].representation
    assert (projections.path_schedule, projections.num_training_views, projections.num_views) == ("paper", 12, 60)
    assert Stack.model_fields["last_stack"].default == "flush"


@pytest.mark.usefixtures("bytes_per_voxel")
def test_views_and_fusion_of_xia2018() -> None:
    plans = plan("xia2018", shape=(40, 48, 44))
    assert set(plans.configurations) == {"axial", "coronal", "sagittal", "mv"}
    view = plans.configurations["coronal"]
    assert (view.representation.context, view.batch_size, view.window[1]) == (1, 1, 3)
    fused = plans.configurations["mv"]
    assert (fused.batch_size, fused.representation.from_mean, fused.network.zero_scores) == (16, False, False)
    # 4.1: HU from -100 to 240
    assert [(each.scheme, each.lower, each.upper) for each in view.normalization][:2] == [
        ("ct_window", -100, 240),
        ("rescale_0_1", None, None),
    ]


@pytest.mark.usefixtures("bytes_per_voxel")
def test_ct_of_shivdeo2021_has_the_window_of_its_header() -> None:
    plans = plan("shivdeo2021", "axial")
    ct = plans.configurations["axial"].normalization[0]
    # 2.2: the DICOM window; centre -600, width 1500 where there is none
    assert (ct.channel, ct.scheme, ct.lower, ct.upper) == ("CT", "ct_window_dicom", -1350, 150)
    reason = plans.reasons["normalization"]
    assert "'CT' gets the window in the header of each image" in reason
    assert "-1350 .. 150 where it has none as in Shivdeo et al. 2021" in reason


@pytest.mark.usefixtures("bytes_per_voxel")
def test_without_names_all_is_planned_that_the_recipe_is_meant_for_and_that_is_there() -> None:
    assert set(plan("shivdeo2021").configurations) == {"axial", "stack"}


@pytest.mark.parametrize("configuration", ["axial", "2d"])
def test_what_a_recipe_is_not_meant_for_is_refused(configuration: str) -> None:
    with pytest.raises(InputError, match=r"recipe sobirov2022 is not meant for axial, but for si, 3d"):
        plan("sobirov2022", configuration)


@pytest.mark.parametrize("rules", PLANNING_RULES.values(), ids=PLANNING_RULES)
def test_every_recipe_is_meant_for_something_that_is_there_with_a_network_that_is_there(rules: PlanningRules) -> None:
    assert any(rules.allows(name) for name in CONFIGURATIONS)
    assert {rules.of(name).network for name in CONFIGURATIONS} <= {None, *NETWORK_RULES}
    assert find_rules(rules.name) is rules


def test_the_default_recipe_leaves_everything_to_the_planner() -> None:
    assert PlanningRules(name="default", source="") == DEFAULT_RULES
    assert DEFAULT_RULES.of("si") == ConfigurationRules()
    assert DEFAULT_RULES.fixed_normalization("CT") is None


@pytest.mark.parametrize(
    ("channel", "scheme"),
    [
        ("ct_window:40:400", "ct_window"),
        ("ct_window:dicom", "ct_window_dicom"),
        ("noNorm", "none"),
        ("ct", "ct"),
        ("None", "zscore_offset"),
        (" ct ", "zscore_offset"),
        ("T1", "zscore_offset"),
    ],
)
def test_a_channel_that_asks_for_a_scheme_gets_it(channel: str, scheme: str) -> None:
    normalization = SOBIROV2022.normalization(channel, INTENSITIES)
    assert (normalization.scheme, normalization.channel) == (scheme, channel)
    if scheme == "ct_window":
        assert (normalization.lower, normalization.upper) == (-160, 240)


@pytest.mark.parametrize(
    ("name", "dims", "in_channels", "expected"),
    [
        ("super_image_unet", 2, 2, 1_205_425),
        ("super_image_unet", 3, 2, 3_611_665),
        ("half_unet", 2, 1, 8_629_921),
        ("half_unet", 3, 1, 1_618_489),
    ],
)
def test_networks_of_the_papers_have_their_numbers_of_parameters(
    name: str, dims: int, in_channels: int, expected: int
) -> None:
    torch = pytest.importorskip("torch")
    topology = choose_topology([160] * dims, [1.0] * dims)
    with torch.device("meta"):
        network = make_network(name, topology).build(in_channels, 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_small_windows_have_fewer_stages_with_the_widths_from_the_top() -> None:
    spec = make_network("half_unet", choose_topology([20, 20], [1.0, 1.0]))
    assert spec.widths == (32, 64, 128)
    assert spec.divisor == (4, 4)


@pytest.mark.usefixtures("bytes_per_voxel")
def test_labels_with_sides_are_not_mirrored_by_a_recipe_either() -> None:
    fingerprint, description = published.make_fingerprint(SMALL)
    sided = description.model_copy(update={"labels": Labels(names={"background": 0, "left lung": 1, "right lung": 2})})
    plans = plan_dataset(fingerprint, sided, configurations=["si"], rules=find_rules("sobirov2022_pta"))
    assert plans.configurations["si"].mirror_axes == ()


@pytest.mark.usefixtures("bytes_per_voxel")
def test_plans_of_a_recipe_are_kept_and_added_to() -> None:
    data = published.make_fingerprint(SMALL)
    options = {"gpu_memory_gb": 8.0, "rules": find_rules("sobirov2022"), "plans_name": "plans"}
    stored = revise_plans(None, *data, configurations=("si",), **options)
    assert revise_plans(stored, *data, configurations=("si",), **options) == stored
    assert set(revise_plans(stored, *data, configurations=None, **options).configurations) == {"si", "3d"}


@pytest.mark.usefixtures("bytes_per_voxel")
def test_windows_are_rounded_up_to_what_the_network_of_the_recipe_can_divide() -> None:
    data = published.Published((2, 136, 136), ((10, (1.0, 1.0, 1.0)),), ("MRI",), 1)
    plans = plan_dataset(*published.make_fingerprint(data), configurations=["si"], rules=find_rules("sobirov2022"))
    # The planner's own U-Net would halve 136 five times; the paper's does three times.
    assert plans.configurations["si"].window == (2, 136, 136)


THIN_CT = published.Published((387, 512, 512), ((10, (0.625, 0.7, 0.7)),), ("CT",), 1)
"""Slices that are closer than their pixels: the planner would slice along another axis."""
ATRIA = published.Published((88, 576, 576), ((100, (0.625, 0.625, 0.625)),), ("LGE MRI",), 1)


def plan_of(
    data: published.Published, recipe: str, configuration: str, gpu_memory_gb: float = 8.0
) -> tuple[Plans, ConfigurationPlan]:
    plans = plan_dataset(
        *published.make_fingerprint(data),
        configurations=[configuration],
        gpu_memory_gb=gpu_memory_gb,
        rules=find_rules(recipe),
    )
    (item,) = plans.configurations.values()
    return plans, item


def number_of_parameters(network: NetworkSpec, in_channels: int) -> int:
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        return sum(weights.numel() for weights in network.build(in_channels, 1).parameters())


@pytest.mark.usefixtures("bytes_per_voxel")
@pytest.mark.parametrize(("gpu_memory_gb", "is_whole"), [(8.0, True), (1.0, False)])
def test_shivdeo2021_trains_the_published_vnet_on_stacks_of_axial_slices(gpu_memory_gb: float, is_whole: bool) -> None:
    plans, item = plan_of(THIN_CT, "shivdeo2021", "stack", gpu_memory_gb)
    # 2.1: 32 slices along the axis of the body, 2.2: of 512 x 512 pixels
    assert (item.representation.axis, item.representation.stack_size, item.window[0]) == (0, 32, 32)
    assert (item.window == (32, 512, 512)) == is_whole
    # 2.3: the paper's figure, whatever the spacing and the window
    assert set(item.network.strides[1:]) == {(2, 2, 2)}
    assert set(item.network.kernels) == {(5, 5, 5)}
    assert number_of_parameters(item.network, 1) == 65_179_252
    assert ("here only" in item.reasons.get("warning", "")) == (not is_whole)
    assert (item.common_shape, item.spacing_mm) == ((None, 512, 512), (0.625, 0.7, 0.7))
    assert "512 along H" in plans.reasons["spacing_mm"]
    assert plans.reasons["slice_axis"].endswith("as in Shivdeo et al. 2021")


@pytest.mark.usefixtures("bytes_per_voxel")
def test_shivdeo2021_takes_single_axial_slices_of_any_images() -> None:
    coarse = published.Published((60, 100, 300), ((10, (1.0, 4.0, 1.0)),), ("CT",), 1)
    plans, item = plan_of(coarse, "shivdeo2021", "2d")
    assert list(plans.configurations) == ["axial"]
    assert (plans.slice_axis, item.window, item.batch_size) == (0, (1, 512, 512), 16)
    assert item.spacing_mm == (1.0, 0.78125, 0.585938)
    # 2.4: 38 M with a slice as three channels
    assert number_of_parameters(item.network, 3) == 38_415_360
    with pytest.raises(InputError, match="not meant for coronal"):
        plan_of(coarse, "shivdeo2021", "coronal")


@pytest.mark.usefixtures("bytes_per_voxel")
@pytest.mark.parametrize(("recipe", "num_slices", "grid"), [("", 88, (11, 8)), ("64", 64, (8, 8))])
def test_the_atria_of_sobirov2022_have_a_common_size_and_the_grid_of_the_paper(
    recipe: str, num_slices: int, grid: tuple[int, int]
) -> None:
    plans, item = plan_of(ATRIA, f"sobirov2022_atria{recipe}", "si")
    # 1.7: 160 x 160 in the plane
    assert (item.window, item.common_shape) == ((num_slices, 160, 160), (num_slices, 160, 160))
    assert (item.representation.grid, item.representation.axis, item.batch_size) == (grid, 0, 2)
    assert [each.scheme for each in item.normalization] == ["zscore"]
    assert f"tiled {grid[0]} x {grid[1]}: the recipe's" in item.reasons["representation"]
    assert plans.slice_axis == 0
    _, volume = plan_of(ATRIA, f"sobirov2022_atria{recipe}", "3d")
    # 1.2: strides of 2 and kernels of 3, although slices are closer than pixels now
    assert volume.spacing_mm[0] < volume.spacing_mm[1] / 2
    assert volume.network.strides == ((1, 1, 1), *((2, 2, 2),) * 3)
    assert set(volume.network.kernels) == {(3, 3, 3)}
    assert volume.window == (num_slices, 160, 160)
    assert [number_of_parameters(each.network, 2) for each in (item, volume)] == [1_205_425, 3_611_665]


@pytest.mark.usefixtures("bytes_per_voxel")
def test_a_grid_of_the_recipe_is_for_its_number_of_slices_alone() -> None:
    _, item = plan_of(ATRIA, "sobirov2022_atria", "si", gpu_memory_gb=0.62)
    assert item.window[0] < 88
    assert item.representation.grid == choose_grid(*item.window)


@pytest.mark.usefixtures("bytes_per_voxel")
def test_a_spacing_that_is_asked_for_goes_before_a_common_size() -> None:
    plans = plan_dataset(
        *published.make_fingerprint(ATRIA),
        configurations=["3d"],
        spacing_3d_mm=(1.25, 1.25, 1.25),
        rules=find_rules("sobirov2022_atria"),
    )
    item = plans.configurations["3d"]
    assert (item.common_shape, item.spacing_mm) == (None, (1.25, 1.25, 1.25))


@pytest.mark.usefixtures("bytes_per_voxel")
def test_plans_from_before_there_was_a_common_size_are_read_and_count_as_made_from_the_same_recipe() -> None:
    data = published.make_fingerprint(SMALL)
    plans = plan_dataset(*data, configurations=["si"], rules=SOBIROV2022)
    content = plans.model_dump(mode="json")
    del content["configurations"]["si"]["common_shape"]
    assert parse_record(content, Plans, "plans.json") == plans
    # The digest of a checkout from before, commit 90845f7.
    assert plans.planned_from == "cbab764effa8b50ab81f50887ca17539"


@pytest.mark.usefixtures("bytes_per_voxel")
def test_slices_of_angermann2022_are_of_as_many_volumes_and_volumes_are_whole() -> None:
    # 3.8: 96 x 288 x 224 voxels, sliced along the shortest axis
    data = published.Published((96, 288, 224), ((119, (0.9, 0.7, 0.7)),), ("MRA",), 1)
    _, slices = plan_of(data, "angermann2022", "2d")
    assert (slices.representation.axis, slices.window, slices.batch_size) == (0, (1, 288, 224), 16)
    assert number_of_parameters(slices.network, 1) == 8_629_921
    _, volume = plan_of(data, "angermann2022", "3d")
    assert (volume.window, volume.batch_size) == ((96, 288, 224), 1)
    assert number_of_parameters(volume.network, 1) == 1_618_489
