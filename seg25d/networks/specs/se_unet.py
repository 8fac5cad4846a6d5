"""Settings of the SE-norm U-Net."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from seg25d.core.limits import Width
from seg25d.networks.specs.mixing import MixesSlices
from seg25d.networks.specs.topology import Topology, check_stages

if TYPE_CHECKING:
    from torch import nn


class SEUNetSpec(Topology, MixesSlices):
    """All settings of an SE-norm U-Net; `strides` are those of max pooling, `kernels` 3, or 1 to leave an axis alone.

    The published network has five stages with strides of 2. Parameters with 2 channels in and 1 out: 8,508,001 in 2D,
    21,751,681 in 3D, 28,092,001 in 2D with `encoder_kernel` 7; the 8.51, 21.75 and 28.09 M of Sobirov et al., Table 1.
    """

    score_layer: ClassVar[str] = "head"
    """The convolution of single pixels or voxels whose output is the scores: prediction makes them in parts."""
    name: Literal["se_unet"] = "se_unet"
    width: Width = 24
    """Channels of the first stage; they double from stage to stage."""
    reduction: Width = 2
    """Factor by which the squeezed description of an image has fewer channels."""
    encoder_kernel: Literal[3, 7] = 3
    """Kernel size that replaces a 3 in `kernels` in the encoder below the first stage. 7: the "kernel 7" of Sobirov et
    al., placed in the simplest way that gives the published count."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        check_stages(self.strides, self.kernels)
        if any(size not in (1, 3) for kernel in self.kernels for size in kernel):
            raise ValueError("kernels must be 1 or 3; larger ones are chosen with encoder_kernel")
        if self.width % self.reduction:
            raise ValueError(f"width must be divisible by reduction, got {self.width} and {self.reduction}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.strides)))

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return "-".join(map(str, self.widths)) + (" k7" if self.encoder_kernel == 7 else "")

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator, with PyTorch's initialisation."""
        from seg25d.networks.se_unet import SEUNet  # noqa: PLC0415 - loads torch

        return SEUNet(self, in_channels, num_outputs)
