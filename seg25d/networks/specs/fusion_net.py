"""Settings of the Volumetric Fusion Net."""

from typing import TYPE_CHECKING, Literal

from seg25d.core.limits import Width
from seg25d.core.records import Record
from seg25d.networks.specs.topology import NormName

if TYPE_CHECKING:
    from torch import nn

STAGES = 3


class FusionNetSpec(Record):
    """All settings of a Volumetric Fusion Net.

    Three stages down and three up, joined by additive highways from before the pooling (methods.md 4.2, variant A).
    With 4 channels in and 1 out it has 2,566,529 parameters, a twentieth of a V-Net's.
    """

    name: Literal["fusion_net"] = "fusion_net"
    width: Width = 32
    """Channels of the first stage; they double twice. The paper gives a share of a 3D network's parameters that points
    to 24 to 48 (methods.md 4.2)."""
    norm: NormName = "batch"
    zero_scores: bool = False
    """Whether the network starts with scores of 0, for scores that are added to a first estimate (as Goyal et al. 2017,
    section 5.1, initialise residual branches)."""
    initial_weights: Literal["random", "ones"] = "random"
    """Weights of all convolutions before training; with `ones` the network sums up what the views say around a voxel,
    which mimics majority voting (Xia et al. 2018, section 2.2, who find both to lead to similar results)."""

    @property
    def dims(self) -> int:
        """Always 3."""
        return 3

    @property
    def divisor(self) -> tuple[int, ...]:
        """Divisors of the input's size, one per axis."""
        return (2**STAGES,) * 3

    @property
    def summary(self) -> str:
        """The widths in a few characters."""
        return f"{self.width}-{4 * self.width}"

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator.

        Args:
            in_channels: Channels of the input, C.
            num_outputs: Scores per voxel, K.
        """
        from seg25d.networks.fusion_net import FusionNet  # noqa: PLC0415 - loads torch

        return FusionNet(self, in_channels, num_outputs)
