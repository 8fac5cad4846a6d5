from types import SimpleNamespace

import pytest

from seg25d.core.errors import InputError
from seg25d.planning.configurations import configuration_name
from seg25d.planning.plan import Plans
from seg25d.runs.names import find_configuration, parse_folds, with_network


def make_plans(slice_axis: int = 0, networks: dict[str, str] | None = None, recipe: str = "default") -> Plans:
    """Plans of configurations with networks of these names."""
    configurations = {
        name: SimpleNamespace(
            network=SimpleNamespace(name=network),
            representation=SimpleNamespace(default_network="vnet" if name == "stack" else "unet"),
        )
        for name, network in (networks or {"axial": "unet", "si": "unet"}).items()
    }
    return Plans.model_construct(
        dataset_name="Dataset001_A",
        plans_name="plans",
        slice_axis=slice_axis,
        configurations=configurations,
        recipe=recipe,
        reasons={},
    )


@pytest.mark.parametrize(("axis", "name"), [(0, "axial"), (1, "coronal"), (2, "sagittal")])
def test_2d_is_the_planned_axis(axis, name):
    assert configuration_name("2d", axis) == name
    assert configuration_name("2d__se_unet", axis) == f"{name}__se_unet"
    assert configuration_name("si", axis) == "si"


def test_configurations_by_name():
    plans = make_plans()
    assert find_configuration(plans, "2d")[0] == "axial"
    with pytest.raises(InputError, match=r"'mip'.*known: axial, si"):
        find_configuration(plans, "mip")
    with pytest.raises(InputError, match=r"mip adds it$"):
        find_configuration(plans, "mip")
    flat = plans.model_copy(update={"reasons": {"left_out": "mip needs a third dimension"}})
    with pytest.raises(InputError, match=r"; mip needs a third dimension$"):
        find_configuration(flat, "mip")


@pytest.mark.parametrize(
    ("planned", "recipe", "configuration", "network", "name"),
    [
        ({"axial": "unet"}, "default", "2d", None, "axial"),
        ({"axial": "unet"}, "default", "2d", "unet", "axial"),
        ({"axial": "unet"}, "default", "2d", "se_unet", "axial__se_unet"),
        ({"si": "unet"}, "default", "si", "half_unet", "si__half_unet"),
        # The planner's own V-Net is smaller, or has a norm.
        ({"stack": "vnet"}, "default", "stack", "vnet", "stack__vnet"),
        ({"stack": "vnet"}, "shivdeo2021", "stack", "vnet", "stack"),
        ({"stack": "unet"}, "default", "stack", "unet", "stack"),
        ({"stack": "unet"}, "default", "stack", "half_unet", "stack__half_unet"),
        ({"stack": "vnet"}, "default", "stack", "unet", "stack__unet"),
        # The recipe's U-Net is not the default one, although both are U-Nets.
        ({"si": "unet"}, "sobirov2022", "si", "unet", "si__unet"),
        ({"si": "unet"}, "sobirov2022", "si", "super_image_unet", "si"),
        # The plan was edited: it has another network now.
        ({"si": "se_unet"}, "default", "si", "se_unet", "si"),
        ({"si": "se_unet"}, "default", "si", "unet", "si__unet"),
        # Planned by its full name, alone or beside the other.
        ({"si__se_unet": "se_unet"}, "default", "si", "se_unet", "si__se_unet"),
        ({"si__se_unet": "se_unet"}, "default", "si__se_unet", None, "si__se_unet"),
        ({"si": "unet", "si__se_unet": "se_unet"}, "default", "si__se_unet", "unet", "si__unet"),
    ],
)
def test_networks_have_configurations_of_their_own(planned, recipe, configuration, network, name):
    assert with_network(make_plans(networks=planned, recipe=recipe), configuration, network) == name


def test_networks_that_do_not_fit_are_refused():
    plans = make_plans(networks={"si": "unet", "stack": "vnet"})
    with pytest.raises(InputError, match="unknown network 'resnet'; for 2 dimensions there are unet, "):
        with_network(plans, "si", "resnet")
    with pytest.raises(InputError, match="'xception_cbam_unet' has 2 dimensions, and 3 are needed here; choose one of"):
        with_network(plans, "stack", "xception_cbam_unet")
    with pytest.raises(InputError, match="no configuration '3d'"):
        with_network(plans, "3d", "unet")


def test_a_network_of_views_is_planned_with_them() -> None:
    plans = make_plans(networks={"axial": "unet", "mv": "fusion_net"})
    with pytest.raises(InputError, match=r"no configuration 'mv__rstn' .* with -c mv__rstn adds it"):
        with_network(plans, "mv", "rstn")
    plans = make_plans(networks={"mv": "fusion_net", "mv__rstn": "fusion_net"})
    assert with_network(plans, "mv", "rstn") == "mv__rstn"
    assert with_network(plans, "mv__rstn", None) == "mv__rstn"


def test_run_names_say_what_is_not_the_default():
    plans = make_plans()
    assert plans.run_name("si") == "si"
    assert plans.model_copy(update={"recipe": "sobirov2022"}).run_name("si") == "si__sobirov2022"
    assert plans.model_copy(update={"plans_name": "mine"}).run_name("si") == "si__mine"


def test_folds_by_name():
    assert parse_folds(["cv"], 3) == [0, 1, 2]
    assert parse_folds(["2", "0", "2"], 5) == [2, 0]
    assert parse_folds(["all"], 5) == ["all"]


@pytest.mark.parametrize("word", ["5", "-1", "x", "", "0.5", "²", pytest.param("9" * 5000, id="long")])
def test_wrong_folds_list_the_right_ones(word):
    with pytest.raises(InputError, match="numbers from 0 to 4, `cv` or `all`"):
        parse_folds([word], 5)
