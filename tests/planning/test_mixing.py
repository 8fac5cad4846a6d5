"""Configurations whose networks mix slices: their names, plans and reasons, and what is refused."""

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import parse_record
from seg25d.core.types import Shape
from seg25d.networks.specs.mixing import KINDS
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.configurations import configuration_name, configuration_names, split_name
from seg25d.planning.explanation import explain
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import LEAST_MIXED, plan_dataset
from seg25d.planning.plans_name import check_plans_name
from seg25d.planning.recipe_rules import find_rules
from seg25d.representations.base import VolumeGeometry
from seg25d.representations.slices import SMALLEST_DEPTH, Slices
from seg25d.representations.super_image import SuperImage
from seg25d.runs.names import find_configuration, with_network
from tests.planning import published_fingerprints as published

UNTRACED = pytest.mark.usefixtures("bytes_per_voxel")
TINY = published.PUBLISHED["tiny"]


def plan(*configurations: str, data: published.Published = TINY, recipe: str = "default", gb: float = 8) -> Plans:
    return plan_dataset(
        *published.make_fingerprint(data), configurations=configurations, gpu_memory_gb=gb, rules=find_rules(recipe)
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("si", ("si", None, None)),
        ("si__", ("si", None, None)),
        ("si__shift", ("si", None, "shift")),
        ("2d__attention", ("2d", None, "attention")),
        ("si__half_unet__conv", ("si", "half_unet", "conv")),
        ("si__half_unet", ("si", "half_unet", None)),
        ("si__shift__half_unet", ("si", "shift__half_unet", None)),
        ("si__tile", ("si", "tile", None)),
    ],
)
def test_names_have_up_to_three_parts(name: str, parts: tuple[str, str | None, str | None]) -> None:
    assert split_name(name) == parts
    assert split_name(name).text == name.removesuffix("__")


def test_2d_with_mixing_is_the_planned_axis_with_it() -> None:
    assert configuration_name("2d__se_unet__shift", 1) == "coronal__se_unet__shift"
    assert configuration_names(["si__conv", "2d__shift", "si"], 2) == ["sagittal__shift", "si__conv", "si"]


@pytest.mark.parametrize("name", ["si__shift", "2d__attention", "coronal__conv", "si__acs", "si__half_unet__shift"])
def test_mixing_stands_in_the_plan_of_the_network(name: str) -> None:
    plans = plan(name, name.removesuffix(f"__{split_name(name).mixing}"))
    own_name, mixed = find_configuration(plans, name)
    plain = plans.configurations[own_name.removesuffix(f"__{split_name(name).mixing}")]
    assert mixed.mixing == KINDS[split_name(name).mixing or ""]()
    assert mixed.network.model_copy(update={"mixing": None}) == plain.network
    assert (mixed.window, mixed.representation) == (plain.window, plain.representation)
    more = mixed.mixing.name != "shift"
    assert (mixed.num_parameters > plain.num_parameters) == more
    assert (mixed.flops_per_update > plain.flops_per_update) == (mixed.mixing.name in ("attention", "acs"))
    if mixed.batch_size == plain.batch_size:
        assert mixed.estimated_memory_gb > plain.estimated_memory_gb
    # A file of an earlier version is what is written without mixing.
    assert parse_record(mixed.model_dump(mode="json"), ConfigurationPlan, "plan") == mixed
    assert "mixing" not in plain.model_dump(mode="json")["network"]


def test_what_mixing_is_and_costs_is_explained() -> None:
    plans = plan("si__shift", "2d__attention", "si__conv", "2d__acs")
    told = " ".join(explain(plans).split())
    for name, item in plans.configurations.items():
        assert f"mixing: {item.reasons['mixing']}" in told
        assert f"the network mixes slices ({split_name(name).mixing})" in item.reasons["choice"]
    names = ("si__shift", "axial__attention", "si__conv", "axial__acs")
    shift, attention, conv, acs = (plans.configurations[name].reasons["mixing"] for name in names)
    assert "it costs no parameters, no FLOP per update, 0." in shift
    assert "0.25 of the channels" in shift
    assert "Lin et al. 2019" in shift
    assert "more), " in attention.split("it costs ")[1]
    assert "no FLOP" not in attention
    assert "parameters (" in conv.split("it costs ")[1]
    assert "0.5 of the channels" in acs
    assert "no FLOP" not in acs
    assert "the 12 slices of a window" in shift


def test_parameters_told_are_those_that_there_are_more() -> None:
    plans = plan("si", "si__conv")
    item, plain = (plans.configurations[name] for name in ("si__conv", "si"))
    assert f"it costs {item.num_parameters - plain.num_parameters:,} parameters (" in item.reasons["mixing"]
    assert isinstance(item.network, UNetSpec)
    widths = item.network.widths
    assert item.num_parameters - plain.num_parameters == 2 * (sum(widths[:-1]) + sum(widths[1:]))


@UNTRACED
@pytest.mark.parametrize("name", ["mip__shift", "stack__attention", "3d__conv", "mv__shift", "mv__rstn__shift"])
def test_what_does_not_see_slices_side_by_side_refuses(name: str) -> None:
    base, mixing = split_name(name).configuration, split_name(name).mixing
    with pytest.raises(InputError) as caught:
        plan(name)
    assert str(caught.value) == (
        f"{name}: {mixing} is for networks of 2 dimensions that get the slices of a window side by side, which are "
        f"those of 2d, axial, coronal, sagittal, si; take one of these, or {base} without {mixing}"
    )


@UNTRACED
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("si__tile", r"unknown network 'tile'; for 2 .* unet, .*; ways of mixing .* are shift, attention, conv, acs$"),
        ("si__shift__half_unet", "unknown network 'shift__half_unet'; .*; ways of mixing slices, behind a network"),
        ("si__conv__shift", "unknown network 'conv'"),
        ("mip__blend", r"unknown network 'blend'; for 2 dimensions there are [a-z_, ]*$"),
        ("2d__rstn__shift", "axial__rstn__shift: rstn cannot mix slices; choose one of unet, se_unet, vnet, "),
        ("si__swin_unetr__conv", "swin_unetr cannot mix slices"),
    ],
)
def test_unknown_words_list_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(name)


@UNTRACED
def test_single_slices_have_nothing_to_mix() -> None:
    with pytest.raises(InputError, match="axial__shift: these images have single slices, without neighbours to mix"):
        plan("2d__shift", data=published.PUBLISHED["photographs"])
    with pytest.raises(InputError, match="recipe shivdeo2021 trains single slices, without neighbours"):
        plan("2d__conv", recipe="shivdeo2021")
    (item,) = plan("2d__shift", recipe="xia2018").configurations.values()
    assert item.window[0] == 3


@UNTRACED
def test_without_being_asked_nothing_is_mixed() -> None:
    assert not any("__" in name for name in plan().configurations)
    assert all(item.mixing is None for item in plan().configurations.values())


@UNTRACED
def test_windows_keep_slices_to_mix_where_memory_is_small() -> None:
    assert LEAST_MIXED == SMALLEST_DEPTH
    data = published.Published((48, 512, 512), ((40, (5.0, 0.5, 0.5)),), ("MRI",), 1)
    for name in ("2d", "si"):
        mixed, plain = (
            next(iter(plan(each, data=data, gb=0.6).configurations.values())) for each in (f"{name}__shift", name)
        )
        assert mixed.window[0] >= LEAST_MIXED
        assert mixed.window[0] > plain.window[0]


@pytest.mark.parametrize(("slices", "least"), [(48, 8), (5, 5)])
def test_no_candidate_has_fewer_slices_than_mixing_needs(slices: int, least: int) -> None:
    shape: Shape = (slices, 200, 160)
    geometry = VolumeGeometry(shape=shape, spacing_mm=(3, 1, 1), least_slices=LEAST_MIXED)
    for kind in (Slices, SuperImage):
        windows = [window for _, window in kind.candidates(geometry, axis=0, context=1)]
        assert min(window[0] for window in windows) == least
        assert windows[0] == shape
        assert windows[-1][1] < 100


@UNTRACED
def test_another_network_keeps_the_mixing() -> None:
    plans = plan("si__shift", "si")
    assert with_network(plans, "si__shift", None) == "si__shift"
    assert with_network(plans, "si__shift", "unet") == "si__shift"
    assert with_network(plans, "si__shift", "se_unet") == "si__se_unet__shift"
    with pytest.raises(InputError, match="rstn cannot mix slices"):
        with_network(plans, "si__shift", "rstn")
    with pytest.raises(InputError, match=r"no configuration 'si__conv' in its plans; .* -c si__conv adds it"):
        find_configuration(plans, "si__conv")


@UNTRACED
@pytest.mark.parametrize(("name", "method"), [("mip", "projections"), ("3d", "volume"), ("stack", "stack")])
def test_a_plan_that_was_edited_to_mix_what_are_no_slices_is_refused(name: str, method: str) -> None:
    values = plan(name).configurations[name].model_dump(mode="json")
    values["network"]["mixing"] = {"name": "shift"}
    with pytest.raises(RecordError, match=rf"network\.mixing: representation {method} does not give its network"):
        parse_record(values, ConfigurationPlan, "plans.json")


@UNTRACED
def test_windows_overlap_along_all_axes_where_slices_are_mixed() -> None:
    plans = plan("2d__shift", "2d", "si__shift")
    mixed, plain, tiled = (plans.configurations[name] for name in ("axial__shift", "axial", "si__shift"))
    assert mixed.step_sizes((20, 64, 64), 0.5) == tiled.step_sizes((20, 64, 64), 0.5) == (0.5, 0.5, 0.5)
    assert plain.step_sizes((20, 64, 64), 0.5) == (0.9, 0.5, 0.5)


@pytest.mark.parametrize("name", KINDS)
def test_plans_are_not_named_as_kinds_of_mixing(name: str) -> None:
    with pytest.raises(ValueError, match="the name of plans"):
        check_plans_name(name)
