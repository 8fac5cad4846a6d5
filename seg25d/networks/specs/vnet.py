"""Settings of the V-Net."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from seg25d.core.limits import NumBlocks, Width
from seg25d.networks.specs.mixing import MixesSlices
from seg25d.networks.specs.topology import NormName, Topology, check_stages

if TYPE_CHECKING:
    from torch import nn


class VNetSpec(Topology, MixesSlices):
    """All settings of a V-Net.

    As published: five stages with strides of 2 and kernels of 5. Parameters in 3D with 1 channel in and 2 out:
    65,183,258 with the default numbers of convolutions, those of the paper's figure (of which convolutions have
    65,179,800), and 61,982,682 with (1, 1, 2, 3, 3) and (3, 2, 1, 1), those of the released prototxt (convolutions:
    61,979,512).

    No combination of widths, depths and kernels that resembles a V-Net gives the 206 M of Shivdeo et al.; their cause
    is unknown (methods 2.3). They write that the count belongs to "our input size", on which it depends only if PReLUs
    have a slope per voxel and channel, the default of Keras: that gives this V-Net 988 M. Ours have a slope per
    channel, as in the prototxt.
    """

    name: Literal["vnet"] = "vnet"
    widths: tuple[Width, ...] = (16, 32, 64, 128, 256)
    """Channels per stage; the decoder's convolutions have twice as many."""
    encoder_blocks: tuple[NumBlocks, ...] = (1, 2, 3, 3, 3)
    """Convolutions per stage on the way down."""
    decoder_blocks: tuple[NumBlocks, ...] = (3, 3, 2, 1)
    """Convolutions per stage on the way up, from the coarsest on."""
    norm: NormName = "none"
    """Normalisation before each PReLU except the head's; the original has none."""
    checkpointing: bool = False
    """Compute the activations within each stage twice instead of keeping them: less memory, more time, same result."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        check_stages(self.strides, self.kernels, self.widths, self.encoder_blocks)
        if len(self.decoder_blocks) != len(self.widths) - 1 or any(number < 1 for number in self.decoder_blocks):
            raise ValueError(
                f"decoder_blocks must have {len(self.widths) - 1} entries of at least 1, one fewer than stages"
            )
        if self.checkpointing and self.norm == "batch":
            raise ValueError("checkpointing would count each batch twice in batch norm's statistics; use instance norm")
        return self

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return "-".join(map(str, self.widths))

    @property
    def head_width(self) -> int:
        """Channels of which the head makes the scores."""
        return 2 * self.widths[0] if self.decoder_blocks else self.widths[0]

    def named_score_layer(self, num_outputs: int) -> str | None:
        """The layers by which prediction makes scores a few planes at a time; None: all at once.

        The last convolution alone sees as many channels as there are scores, so it is the whole head, whose kernel
        reaches into neighbouring planes. In 2D these are no neighbours, and with few scores nothing would be saved.
        """
        return "head" if self.dims == 3 and num_outputs > self.head_width else None

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator."""
        from seg25d.networks.vnet import VNet  # noqa: PLC0415 - loads torch

        return VNet(self, in_channels, num_outputs)
