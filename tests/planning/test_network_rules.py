"""From topologies to networks."""

import pytest
import torch

from seg25d.core.errors import InputError
from seg25d.networks import REQUESTABLE
from seg25d.networks.base import NETWORKS
from seg25d.networks.paper_unets import half_unet, super_image_unet
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.topology import Topology
from seg25d.planning.geometry import choose_topology
from seg25d.planning.network_rules import (
    NETWORK_RULES,
    choose_network,
    fit_unet,
    make_network,
    make_unet,
    networks_for,
    with_checkpointing,
)
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack

CUBE = choose_topology((128, 128, 128), (1, 1, 1))
SMALL = choose_topology((40, 56, 40), (1, 1, 1))
THICK = choose_topology((16, 128, 128), (4, 1, 1))
PLANE = choose_topology((512, 512), (1, 1))
PIXELS = choose_topology((5, 7), (1, 1))


def test_every_network_has_a_rule_and_the_default_is_first() -> None:
    assert {rule.network for rule in NETWORK_RULES.values()} == set(NETWORKS)
    assert next(iter(NETWORK_RULES)) == "unet"
    assert set(NETWORK_RULES) == set(REQUESTABLE)


@pytest.mark.parametrize("topology", [CUBE, SMALL, THICK, PLANE, PIXELS], ids=["cube", "small", "thick", "plane", "px"])
def test_networks_have_the_name_and_axes_that_were_asked_for(topology: Topology) -> None:
    dims = len(topology.strides[0])
    for name in networks_for(dims):
        network = make_network(name, topology)
        assert network.dims == dims
        assert network.name == NETWORK_RULES[name].network
        if name in NETWORKS:
            assert network.name == name


def test_the_default_is_the_unet_of_the_planner() -> None:
    assert make_network("unet", THICK) == make_unet(THICK)


def test_topologies_that_are_assumed_here() -> None:
    assert [len(topology.strides) for topology in (CUBE, SMALL, THICK, PLANE, PIXELS)] == [6, 4, 6, 8, 1]


@pytest.mark.parametrize("name", ["se_unet", "vnet"])
def test_five_stages_at_most_and_fewer_in_small_windows(name: str) -> None:
    assert make_network(name, CUBE).divisor == (16, 16, 16)
    assert make_network(name, SMALL).divisor == (8, 8, 8)
    assert make_network(name, PLANE).divisor == (16, 16)
    assert make_network(name, PIXELS).divisor == (1, 1)
    assert make_network(name, THICK).divisor == (4, 16, 16)


def test_counts_are_the_papers_where_the_window_is_large_and_isotropic() -> None:
    with torch.device("meta"):
        networks = [
            make_network("se_unet", CUBE).build(2, 1),
            make_network("se_unet", PLANE).build(2, 1),
            make_network("vnet", CUBE).build(1, 2),
            fit_unet(super_image_unet(2), PLANE).build(2, 1),
            fit_unet(half_unet(3), CUBE).build(1, 1),
        ]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [21_751_681, 8_508_001, 65_183_258, 1_205_425, 1_618_489]


def test_small_windows_keep_the_finest_stages() -> None:
    vnet = make_network("vnet", SMALL)
    assert vnet.name == "vnet"
    assert (vnet.widths, vnet.encoder_blocks, vnet.decoder_blocks) == ((16, 32, 64, 128), (1, 2, 3, 3), (3, 2, 1))
    se_unet = make_network("se_unet", SMALL)
    assert se_unet.name == "se_unet"
    assert se_unet.widths == (24, 48, 96, 192)
    assert fit_unet(half_unet(3), SMALL).widths == (8, 16, 32, 64)


def test_kernels_and_strides_follow_the_spacing() -> None:
    assert THICK.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert THICK.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    vnet, se_unet = make_network("vnet", THICK), make_network("se_unet", THICK)
    assert vnet.name == "vnet"
    assert vnet.kernels[:3] == ((1, 5, 5), (1, 5, 5), (5, 5, 5))
    assert se_unet.name == "se_unet"
    assert se_unet.kernels == THICK.kernels[:5]
    unet = fit_unet(super_image_unet(3), THICK)
    assert (unet.strides, unet.kernels) == (THICK.strides[:4], THICK.kernels[:4])
    assert unet.downsampling == "max_pool"


def test_the_planners_own_networks_follow_the_memory() -> None:
    slices, stack = Slices(axis=0), Stack(stack_size=16)
    small, large = (choose_network(None, PLANE, slices, memory) for memory in (8, 12))
    assert (small.widths[:4], large.widths[:4]) == ((16, 32, 64, 128), (32, 64, 128, 256))
    assert choose_network("unet", PLANE, slices, 8) == small
    small, large = (choose_network(None, CUBE, stack, memory) for memory in (8, 12))
    assert ((small.widths[0], small.norm), (large.widths[0], large.norm)) == ((8, "instance"), (16, "instance"))
    assert choose_network("vnet", CUBE, stack, 8).norm == "none"


def test_both_networks_of_the_rstn_follow_memory_and_window_and_halve_five_times_at_most() -> None:
    slices = Slices(axis=0)
    small, large = (choose_network("rstn", PLANE, slices, memory) for memory in (8, 12))
    assert isinstance(small, RSTNSpec)
    assert isinstance(large, RSTNSpec)
    assert small.network.widths == (16, 32, 64, 128, 256, 512)
    assert large.network.widths == (32, 64, 128, 256, 512, 512)
    assert small.divisor == (32, 32)
    assert small.network.num_supervised == 1
    assert make_network("rstn", choose_topology((40, 56), (1, 1))).divisor == (8, 8)


def test_the_rstn_knows_which_scores_are_probabilities_of_their_own() -> None:
    projections = Projections(axis=0, spacing_mm=(1.0, 1.0, 1.0))
    for has_regions in (False, True):
        for representation, regions in ((Slices(axis=0), has_regions), (projections, True)):
            network = choose_network("rstn", PLANE, representation, 8, has_regions=has_regions)
            assert isinstance(network, RSTNSpec)
            assert network.regions == regions


def test_checkpointing_is_for_those_that_have_it() -> None:
    for name in networks_for(3):
        network = with_checkpointing(make_network(name, CUBE))
        assert (network is not None) == (name in ("vnet", "swin_unetr"))
        assert network is None or (network.checkpointing and with_checkpointing(network) is None)


def test_networks_with_fixed_halvings_take_their_own_divisor() -> None:
    assert make_network("swin_unetr", THICK).divisor == (1, 1, 1)
    assert make_network("swin_unetr", PLANE).divisor == (1, 1)
    assert make_network("xception_cbam_unet", PIXELS).divisor == (32, 32)
    assert make_network("resnet_unet", PIXELS).divisor == (32, 32)


def test_combinations_that_make_no_sense_name_those_that_do() -> None:
    assert set(networks_for(2)) - set(networks_for(3)) == {"xception_cbam_unet", "resnet_unet", "rstn"}
    with pytest.raises(
        InputError,
        match=r"has 2 dimensions, and 3 are needed.* one of unet, se_unet, .*, half_unet$",
    ):
        make_network("xception_cbam_unet", CUBE)
    with pytest.raises(InputError, match=r"unknown network 'resnet'; for 2 dimensions there are unet, .*xception"):
        make_network("resnet", PLANE)
    with pytest.raises(InputError, match="not of 4"):
        networks_for(4)
