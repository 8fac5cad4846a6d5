"""Rules that choose a network for the topology of a window: the default network's settings, one rule per network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seg25d.core.errors import InputError
from seg25d.core.records import Record
from seg25d.networks.base import NETWORKS, Network
from seg25d.networks.paper_unets import half_unet, super_image_unet
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.mixing import KINDS, MixesSlices
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.topology import Topology
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.representations.base import Representation

PAPER_STAGES = 5
"""Stages of the SE-norm U-Net and the V-Net as published."""
RSTN_STAGES = 6
"""Stages of both networks of the RSTN: five halvings, as the original's FCN-8s has (methods 4.1), since crops are
rounded up to what the networks divide by. The default U-Net halves 512 pixels seven times."""


class UNetSettings(Record):
    """Settings that are not derived from the data; the default U-Net is nnU-Net's PlainConvUNet."""

    base_width: int
    """Channels of stage 0 (nnU-Net, default_experiment_planner.py: UNet_base_num_features)."""
    max_width: dict[int, int]
    """Maximum number of channels, up to which they double from stage to stage (nnU-Net: UNet_max_features_2d,
    UNet_max_features_3d)."""
    encoder_blocks: int
    """Convolutions per stage on the way down (nnU-Net: UNet_blocks_per_stage_encoder)."""
    decoder_blocks: int
    """Convolutions per stage on the way up (nnU-Net: UNet_blocks_per_stage_decoder)."""
    max_supervised: int
    """Maximum number of scales with deep supervision. nnU-Net: all but the two coarsest; the fifth would weigh less
    than 4 %."""


WIDE_UNET = UNetSettings(
    base_width=32,
    max_width={2: 512, 3: 320},
    encoder_blocks=2,
    decoder_blocks=2,
    max_supervised=4,
)
"""nnU-Net's widths."""
NARROW_UNET = WIDE_UNET.model_copy(update={"base_width": 16})
"""Half of them in every stage, up to the same largest width, a quarter of the arithmetic: a CPU then learns within
minutes. In equal time no worse than halving the two finest stages alone, and far better for super images
(documentation/concepts/choices.md)."""
WIDE_FROM_GB = 11.6
"""Memory budget from which on nnU-Net's widths are planned: such a budget comes with a GPU for which they are cheap.
Cards that are sold with 12 GB have it (11.76 GiB: github.com/TencentARC/PhotoMaker/issues/47)."""


def unet_settings(gpu_memory_gb: float) -> UNetSettings:
    """The settings for a memory budget."""
    return WIDE_UNET if gpu_memory_gb >= WIDE_FROM_GB else NARROW_UNET


def published_topology(dims: int) -> Topology:
    """The strides and kernels of the papers: halved everywhere at every stage, whatever the spacing and the window.

    With the most stages that a paper has; networks with fewer take the first ones, and kernels of their own (V-Net: 5).

    Args:
        dims: 2 or 3.
    """
    halvings = ((2,) * dims,) * (PAPER_STAGES - 1)
    return Topology(strides=((1,) * dims, *halvings), kernels=((3,) * dims,) * PAPER_STAGES)


def make_unet(topology: Topology, settings: UNetSettings = WIDE_UNET) -> UNetSpec:
    """The U-Net for a topology."""
    stages = len(topology.strides)
    dims = len(topology.strides[0])
    widths = tuple(min(settings.base_width * 2**stage, settings.max_width[dims]) for stage in range(stages))
    return UNetSpec(
        widths=widths,
        strides=topology.strides,
        kernels=topology.kernels,
        encoder_blocks=settings.encoder_blocks,
        decoder_blocks=settings.decoder_blocks,
        num_supervised=min(settings.max_supervised, max(1, stages - 2)),
    )


def make_se_unet(topology: Topology) -> SEUNetSpec:
    """The SE-norm U-Net for a topology: at most the paper's five stages, fewer in small windows (methods 1.3)."""
    return SEUNetSpec(strides=topology.strides[:PAPER_STAGES], kernels=topology.kernels[:PAPER_STAGES])


def make_vnet(topology: Topology) -> VNetSpec:
    """The V-Net of the paper's figure for a topology (methods 2.3).

    At most five stages; in small windows the coarsest are left out, on the way down and up. Kernels are 5 where the
    topology has 3.
    """
    strides, kernels = topology.strides[:PAPER_STAGES], topology.kernels[:PAPER_STAGES]
    stages = len(strides)
    full = VNetSpec.model_fields
    return VNetSpec(
        strides=strides,
        kernels=tuple(tuple(5 if size == 3 else 1 for size in kernel) for kernel in kernels),
        widths=full["widths"].default[:stages],
        encoder_blocks=full["encoder_blocks"].default[:stages],
        decoder_blocks=full["decoder_blocks"].default[PAPER_STAGES - stages :],
    )


def make_narrow_vnet(topology: Topology) -> VNetSpec:
    """The V-Net with half the widths, the topology's kernels of 3 and instance norm: a twentieth of its arithmetic.

    It is planned for stacks where memory is small; choose the published one with `--network` or with the recipe of the
    paper.
    """
    full = make_vnet(topology)
    return full.model_copy(
        update={
            "kernels": topology.kernels[:PAPER_STAGES],
            "widths": tuple(width // 2 for width in full.widths),
            "norm": "instance",
        }
    )


def make_normed_vnet(topology: Topology) -> VNetSpec:
    """The published V-Net with instance norm, planned for stacks where memory is large.

    Without a norm it does not tolerate the default learning rate: with 0.003 after 15 warm-up updates the loss grew
    from 1.9 to 6.7e8 within 12 updates of 32^3 voxels; with 0.001, the paper's, it fell.
    """
    return make_vnet(topology).model_copy(update={"norm": "instance"})


def make_swin_unetr(topology: Topology) -> SwinUNETRSpec:
    """The Swin UNETR for the number of axes of a topology; its five halvings are fixed (methods 1.4)."""
    return SwinUNETRSpec(dims=2 if len(topology.strides[0]) == 2 else 3)


def make_rstn(topology: Topology, settings: UNetSettings = WIDE_UNET, *, regions: bool = False) -> RSTNSpec:
    """The RSTN with two U-Nets for a topology, of at most `RSTN_STAGES` stages, without deep supervision (methods 4.1).

    Args:
        topology: Of images.
        settings: Of the U-Nets.
        regions: Whether the network's scores are regions instead of classes.
    """
    stages = Topology(strides=topology.strides[:RSTN_STAGES], kernels=topology.kernels[:RSTN_STAGES])
    return RSTNSpec(network=make_unet(stages, settings.model_copy(update={"max_supervised": 1})), regions=regions)


def make_xception_cbam_unet(topology: Topology) -> XceptionCBAMUNetSpec:
    """The U-Net with Xception encoder: its five halvings are fixed, so windows are rounded up (methods 2.4)."""
    assert len(topology.strides[0]) == 2, "make_network has looked"
    return XceptionCBAMUNetSpec()


def fit_unet(paper: UNetSpec, topology: Topology) -> UNetSpec:
    """A paper's U-Net (networks/paper_unets.py) with the strides and kernels of a topology of as many axes.

    At most as many stages as the paper's; fewer in small windows, with its widths from the finest stage on.
    """
    stages = min(len(paper.widths), len(topology.strides))
    return UNetSpec.model_validate(
        paper.model_dump()
        | {
            "widths": paper.widths[:stages],
            "strides": topology.strides[:stages],
            "kernels": topology.kernels[:stages],
        }
    )


@dataclass(frozen=True)
class NetworkRule:
    """Rule that makes a network for a topology."""

    network: str
    """Name of the network in the registry, as plans store it."""
    make: Callable[[Topology], Network]
    dims: frozenset[int] = frozenset({2, 3})
    """Possible numbers of spatial axes."""


NETWORK_RULES: dict[str, NetworkRule] = {
    "unet": NetworkRule("unet", make_unet),
    "se_unet": NetworkRule("se_unet", make_se_unet),
    "swin_unetr": NetworkRule("swin_unetr", make_swin_unetr),
    "vnet": NetworkRule("vnet", make_vnet),
    "xception_cbam_unet": NetworkRule("xception_cbam_unet", make_xception_cbam_unet, frozenset({2})),
    # 1.2: the ImageNet rows' network, ResNet-34; its five halvings are fixed, so windows are to be rounded up.
    "resnet_unet": NetworkRule("resnet_unet", lambda _: ResNetUNetSpec(), frozenset({2})),
    "rstn": NetworkRule("rstn", make_rstn, frozenset({2})),
    # 4.2: its three halvings are fixed, so windows are to be rounded up.
    "fusion_net": NetworkRule("fusion_net", lambda _: FusionNetSpec(), frozenset({3})),
    # 1.2: "vanilla U-Net", n = 24: 1,205,425 parameters in 2D, 3,611,665 in 3D.
    "super_image_unet": NetworkRule("unet", lambda topology: fit_unet(super_image_unet(topology.dims), topology)),
    # 3.6: half the widths of Ronneberger et al., no norm: 8,629,921 parameters in 2D, 1,618,489 in 3D.
    "half_unet": NetworkRule("unet", lambda topology: fit_unet(half_unet(topology.dims), topology)),
}
"""Rules by the name with which users choose a network; the first is the default."""


def networks_for(dims: int) -> list[str]:
    """Names of the networks for 2 or 3 axes, the default first.

    Raises:
        InputError: If there is none.
    """
    names = [name for name, rule in NETWORK_RULES.items() if dims in rule.dims]
    if not names:
        raise InputError(f"there are networks of 2 and of 3 dimensions, not of {dims}")
    return names


def networks_that_mix() -> list[str]:
    """Names of the networks that can mix the slices of a window."""
    return [name for name in networks_for(2) if issubclass(NETWORKS[NETWORK_RULES[name].network], MixesSlices)]


def with_mixing(network: Network, mixing: str) -> Network:
    """The network, mixing slices in a way of this name, with its default settings.

    Raises:
        InputError: If it cannot; names the networks that can.
    """
    if not isinstance(network, MixesSlices):
        raise InputError(f"network {network.name} cannot mix slices; choose one of {', '.join(networks_that_mix())}")
    return network.model_copy(update={"mixing": KINDS[mixing]()})


def check_network(name: str, dims: int, mixings: Sequence[str] = ()) -> None:
    """Check that there is a network of this name for a number of axes.

    Args:
        name: As users write it.
        dims: 2 or 3.
        mixings: Ways of mixing slices that the name could have meant.

    Raises:
        InputError: If the name is unknown, or that network cannot have as many axes; names those that can.
    """
    good = ", ".join(networks_for(dims))
    if name not in NETWORK_RULES:
        others = f"; ways of mixing slices, behind a network, are {', '.join(mixings)}" if mixings else ""
        raise InputError(f"unknown network {name!r}; for {dims} dimensions there are {good}{others}")
    if dims not in NETWORK_RULES[name].dims:
        can = " or ".join(map(str, sorted(NETWORK_RULES[name].dims)))
        raise InputError(f"network {name!r} has {can} dimensions, and {dims} are needed here; choose one of {good}")


def make_network(name: str, topology: Topology) -> Network:
    """Make the network of a name for a topology.

    Sizes must still be rounded up to the network's divisor, which need not be the topology's.

    Raises:
        InputError: See `check_network`.
    """
    check_network(name, topology.dims)
    return NETWORK_RULES[name].make(topology)


def choose_network(
    wanted: str | None,
    topology: Topology,
    representation: Representation,
    gpu_memory_gb: float,
    *,
    has_regions: bool = False,
) -> Network:
    """Choose the network to plan: the requested one, or the representation's default in a size for the memory.

    Args:
        wanted: A name in `NETWORK_RULES`, or None.
        topology: Of the window.
        representation: The representation that lifts the network to volumes.
        gpu_memory_gb: Memory that a training step may take.
        has_regions: Whether scores of voxels are regions.

    Raises:
        InputError: See `check_network`.
    """
    name = wanted or representation.default_network
    if name == "unet":
        settings = unet_settings(gpu_memory_gb)
        if not representation.deep_supervision:
            settings = settings.model_copy(update={"max_supervised": 1})
        return make_unet(topology, settings)
    if wanted is None and name == "vnet":
        return make_narrow_vnet(topology) if gpu_memory_gb < WIDE_FROM_GB else make_normed_vnet(topology)
    network = make_network(name, topology)
    if isinstance(network, RSTNSpec):
        network = make_rstn(topology, unet_settings(gpu_memory_gb), regions=has_regions)
    return network.model_copy(update=representation.network_settings(name))


def with_checkpointing(network: Network) -> Network | None:
    """The network that computes activations twice instead of keeping them; None if it cannot, or does so already."""
    if isinstance(network, VNetSpec | SwinUNETRSpec) and not network.checkpointing:
        return network.model_copy(update={"checkpointing": True})
    return None
