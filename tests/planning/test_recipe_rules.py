"""Recipes as the planner sees them: what they fix is fixed, and what they leave open is planned."""

import pytest

from seg25d.core.errors import InputError
from seg25d.core.types import Shape
from seg25d.data.labels import Labels
from seg25d.planning.case_fingerprint import ChannelIntensities
from seg25d.planning.geometry import choose_topology
from seg25d.planning.network_rules import NETWORK_RULES, make_network
from seg25d.planning.plan import Plans
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


def test_slices_of_a_recipe_come_one_by_one_and_without_neighbours() -> None:
    item = plan("shivdeo2021", "axial").configurations["axial"]
    assert (item.window[0], item.batch_size, item.representation.context) == (1, 16, 0)
    assert "the recipe's" in item.reasons["representation"]


def test_stacks_and_projections_of_recipes_are_those_of_the_papers() -> None:
    stacks = plan("shivdeo2021", "stack", shape=(70, 24, 20)).configurations["stack"].representation
    assert (stacks.stack_size, stacks.overlap, stacks.last_stack) == (32, 20, "padded")
    projections = plan("angermann2022", "mip").configurations["mip"].representation
    assert (projections.path_schedule, projections.num_training_views, projections.num_views) == ("paper", 12, 60)
    assert Stack.model_fields["last_stack"].default == "flush"


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


def test_ct_of_shivdeo2021_has_the_window_of_its_header() -> None:
    plans = plan("shivdeo2021", "axial")
    ct = plans.configurations["axial"].normalization[0]
    # 2.2: the DICOM window; centre -600, width 1500 where there is none
    assert (ct.channel, ct.scheme, ct.lower, ct.upper) == ("CT", "ct_window_dicom", -1350, 150)
    reason = plans.reasons["normalization"]
    assert "'CT' gets the window in the header of each image" in reason
    assert "-1350 .. 150 where it has none as in Shivdeo et al. 2021" in reason


def test_without_names_all_is_planned_that_the_recipe_is_meant_for_and_that_is_there() -> None:
    assert set(plan("shivdeo2021").configurations) == {"axial", "coronal", "sagittal", "stack"}


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


def test_labels_with_sides_are_not_mirrored_by_a_recipe_either() -> None:
    fingerprint, description = published.make_fingerprint(SMALL)
    sided = description.model_copy(update={"labels": Labels(names={"background": 0, "left lung": 1, "right lung": 2})})
    plans = plan_dataset(fingerprint, sided, configurations=["si"], rules=find_rules("sobirov2022_pta"))
    assert plans.configurations["si"].mirror_axes == ()


def test_plans_of_a_recipe_are_kept_and_added_to() -> None:
    data = published.make_fingerprint(SMALL)
    options = {"gpu_memory_gb": 8.0, "rules": find_rules("sobirov2022"), "plans_name": "plans"}
    stored = revise_plans(None, *data, configurations=("si",), **options)
    assert revise_plans(stored, *data, configurations=("si",), **options) == stored
    assert set(revise_plans(stored, *data, configurations=None, **options).configurations) == {"si", "3d"}


def test_windows_are_rounded_up_to_what_the_network_of_the_recipe_can_divide() -> None:
    data = published.Published((2, 136, 136), ((10, (1.0, 1.0, 1.0)),), ("MRI",), 1)
    plans = plan_dataset(*published.make_fingerprint(data), configurations=["si"], rules=find_rules("sobirov2022"))
    # The planner's own U-Net would halve 136 five times; the paper's does three times.
    assert plans.configurations["si"].window == (2, 136, 136)
