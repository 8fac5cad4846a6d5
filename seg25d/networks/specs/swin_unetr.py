"""Settings of the Swin UNETR."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from seg25d.core.records import Record
from seg25d.core.types import Sizes

if TYPE_CHECKING:
    from torch import nn


class SwinUNETRSpec(Record):
    """All settings of a Swin UNETR; others have MONAI's defaults.

    Parameters with 2 channels in and 1 out: 6,302,539 in 2D, 15,703,843 in 3D, the 6.3 and 15.7 M of Sobirov et al.
    """

    name: Literal["swin_unetr"] = "swin_unetr"
    dims: Literal[2, 3]
    """Number of spatial axes, 2 or 3."""
    feature_size: int = Field(default=24, ge=12, le=1200, multiple_of=12)
    """Channels at full size."""
    checkpointing: bool = False
    """Compute the transformer's activations twice instead of keeping them: less memory, more time."""

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return str(self.feature_size)

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, all 1, as the network pads its input."""
        return (1,) * self.dims

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator."""
        from seg25d.networks.swin_unetr import SwinUNETR  # noqa: PLC0415 - loads torch

        return SwinUNETR(self, in_channels, num_outputs)
