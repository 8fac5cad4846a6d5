"""Settings of the U-Net with a ResNet encoder."""

from typing import TYPE_CHECKING, Literal

from seg25d.core.types import Sizes
from seg25d.networks.specs.mixing import MixesSlices

if TYPE_CHECKING:
    from torch import nn

Depth = Literal[18, 34, 50]
ResNetNorm = Literal["batch", "instance"]


class ResNetUNetSpec(MixesSlices):
    """All settings of a U-Net with ResNet encoder.

    Parameters with 3 channels in and 1 out: 14,328,209 for depth 18, 24,436,369 for 34 and 32,521,105 for 50, as many
    as segmentation_models_pytorch's; per channel less or more 3,136. The encoder has 11,176,512, 21,284,672 and
    23,508,032 of them, torchvision's without its classifier.

    Pretrained statistics need batch norm, as in the original. A batch of two small images is enough if they are equally
    bright, which normalisation of each case ensures; where brightness differs, statistics over all images do not suit
    any one of them, and instance norm is better (documentation/concepts/choices.md). It also predicts sensibly after
    fewer updates, and several processes can train it (training/processes.py). Both
    compute in half precision where convolutions do; sums and statistics are float32. A single image of 32 x 32 is
    one pixel at the bottom, which has no variance: batch norm cannot train on it, and instance norm cannot predict it
    either.
    """

    name: Literal["resnet_unet"] = "resnet_unet"
    depth: Depth = 34
    """Number of layers of the ResNet: 18 and 34 have blocks of two convolutions, 50 of three."""
    norm: ResNetNorm = "batch"
    """In encoder and decoder. `instance`: pretrained scales and shifts are used, pretrained statistics are not."""

    @property
    def dims(self) -> int:
        """2 spatial axes."""
        return 2

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return f"ResNet-{self.depth}" + ("" if self.norm == "batch" else f" {self.norm} norm")

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis."""
        return (32, 32)

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator."""
        from seg25d.networks.resnet_unet import ResNetUNet  # noqa: PLC0415 - loads torch

        return ResNetUNet(self, in_channels, num_outputs)
