"""Settings of the U-Net."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from seg25d.core.limits import MAX_STAGES, NumBlocks, Width
from seg25d.networks.specs.mixing import MixesSlices
from seg25d.networks.specs.topology import ActivationName, NormName, Topology, check_stages

if TYPE_CHECKING:
    from torch import nn


class UNetSpec(Topology, MixesSlices):
    """All settings of a U-Net.

    The number of entries of `widths`, `strides` and `kernels` is the number of stages.
    """

    score_layer: ClassVar[str] = "heads.0"
    """The convolution of single pixels or voxels whose output is the scores: prediction makes them in parts."""
    name: Literal["unet"] = "unet"
    widths: tuple[Width, ...] = Field(max_length=MAX_STAGES)
    """Channels per stage."""
    encoder_blocks: NumBlocks = 2
    """Convolutions (or residual blocks) per stage on the way down."""
    decoder_blocks: NumBlocks = 2
    """Convolutions per stage on the way up."""
    residual: bool = False
    """Whether the encoder has residual blocks."""
    norm: NormName = "instance"
    activation: ActivationName = "leaky_relu"
    conv_bias: bool = False
    """Whether convolutions before a norm have a bias, which the norm removes again."""
    downsampling: Literal["stride", "max_pool"] = "stride"
    upsampling: Literal["transposed", "transposed_3"] = "transposed"
    """Transposed convolutions with kernel = stride (nnU-Net), or of size 3 (Sobirov et al., Angermann et al.)."""
    initialisation: Literal["he", "glorot"] = "he"
    """Initial weights: He et al. 2015 for the leaky ReLU (nnU-Net), or Glorot & Bengio 2010 (Keras' default)."""
    num_supervised: int = 1
    """Number of scales, from the finest on, whose scores enter the loss in training (deep supervision)."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        check_stages(self.strides, self.kernels, self.widths)
        stages = len(self.widths)
        if not 1 <= self.num_supervised <= max(1, stages - 1):
            raise ValueError(f"num_supervised must be in 1..{max(1, stages - 1)}")
        return self

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return "-".join(map(str, self.widths))

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator."""
        from seg25d.networks.unet import UNet  # noqa: PLC0415 - loads torch

        return UNet(self, in_channels, num_outputs)
