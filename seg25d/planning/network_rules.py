"""The default network: all its numbers in one table."""

from seg25d.core.records import Record
from seg25d.networks import NetworkSpec
from seg25d.networks.unet import UNetSpec
from seg25d.planning.geometry import Topology


class UNetSettings(Record):
    """What the planner does not derive from the data; the default U-Net is nnU-Net's PlainConvUNet."""

    base_width: dict[int, int]
    """Channels of stage 0 in 2D and 3D (nnU-Net, default_experiment_planner.py: UNet_base_num_features)."""
    max_width: dict[int, int]
    """Channels double from stage to stage up to here (nnU-Net: UNet_max_features_2d, UNet_max_features_3d)."""
    encoder_blocks: int
    """Convolutions per stage on the way down (nnU-Net: UNet_blocks_per_stage_encoder)."""
    decoder_blocks: int
    """Convolutions per stage on the way up (nnU-Net: UNet_blocks_per_stage_decoder)."""
    max_supervised: int
    """Most scales with deep supervision. nnU-Net: all but the two coarsest; the fifth would weigh less than 4 %."""


DEFAULT_UNET = UNetSettings(
    base_width={2: 32, 3: 32},
    max_width={2: 512, 3: 320},
    encoder_blocks=2,
    decoder_blocks=2,
    max_supervised=4,
)
"""The network of every configuration for now."""

ONE_SCALE = DEFAULT_UNET.model_copy(update={"max_supervised": 1})
"""The same without deep supervision."""


def make_unet(topology: Topology, settings: UNetSettings = DEFAULT_UNET) -> NetworkSpec:
    """The U-Net for a topology."""
    stages = len(topology.strides)
    dims = len(topology.strides[0])
    widths = tuple(min(settings.base_width[dims] * 2**stage, settings.max_width[dims]) for stage in range(stages))
    return UNetSpec(
        widths=widths,
        strides=topology.strides,
        kernels=topology.kernels,
        encoder_blocks=settings.encoder_blocks,
        decoder_blocks=settings.decoder_blocks,
        num_supervised=min(settings.max_supervised, max(1, stages - 2)),
    )
