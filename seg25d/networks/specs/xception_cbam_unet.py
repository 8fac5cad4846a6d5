"""Settings of the U-Net with an Xception encoder and attention."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from seg25d.core.types import Sizes
from seg25d.networks.specs.mixing import MixesSlices

if TYPE_CHECKING:
    from torch import nn


class XceptionCBAMUNetSpec(MixesSlices):
    """All settings of a U-Net with Xception encoder.

    Trainable parameters with 3 channels in and 1 out: 38,415,360 with attention in the decoder, 38,579,510 with
    attention on the skip connections, 38,370,009 without (15,310,632 of them in the encoder); the paper says 38 M.

    The paper repeats a slice to 3 channels. Here the first convolution has as many channels as the image: on
    equal channels three filters act as one, their sum; each channel fewer than three saves 288 parameters.

    In training, batch norm needs more than one pixel per channel: not a single image of 32 x 32.
    """

    score_layer: ClassVar[str] = "head"
    """The convolution of single pixels whose output is the scores: prediction makes them in parts."""
    name: Literal["xception_cbam_unet"] = "xception_cbam_unet"
    attention: Literal["decoder", "skips", "none"] = "decoder"
    """Position of CBAM: after each of the decoder's six stages, including the middle one, or on the four skip
    connections. The paper does not say; the first fits its 38 M better."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of dropout at the input of a decoder stage."""

    @property
    def dims(self) -> int:
        """2 spatial axes."""
        return 2

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return {"decoder": "CBAM in the decoder", "skips": "CBAM on skips", "none": "without CBAM"}[self.attention]

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis."""
        return (32, 32)

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator, with PyTorch's initialisation."""
        from seg25d.networks.xception_cbam_unet import XceptionCBAMUNet  # noqa: PLC0415 - loads torch

        return XceptionCBAMUNet(self, in_channels, num_outputs)
