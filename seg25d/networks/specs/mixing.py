"""Settings of mixing between slices, see `networks/mixing.py`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from seg25d.core.limits import MAX_STAGES, Width
from seg25d.core.records import Record

if TYPE_CHECKING:
    from torch import nn

SHARE = 0.25
"""Share of the channels that a shift moves, half of it to each side: the best of the temporal shift module (Lin et al.
2019, arXiv 1811.08383), on which Slice-Shift UNet builds (Ugwu et al. 2023, arXiv 2307.12853)."""
FIRST_STAGE = 3
"""Stage from which on there is attention, at an eighth of the size: a 64th of the places. Our choice."""
NUM_HEADS = 4
"""Heads of the attention; our choice."""
HEAD_WIDTH = 32
"""Channels of a head (Liu et al. 2021, Swin transformer, section 3.3)."""
ACS_SHARE = 0.5
"""Share of the channels that see across the slices, half of it in each plane. Each plane has a third in the authors'
code (Yang et al. 2021, arXiv 1911.10477; acsconv/operators/acsconv.py); with a quarter, numbers come in whole vectors
of 8. Our choice."""


class Shift(Record):
    """A share of the channels comes from the neighbouring slices, half of it from each side; there are no weights.

    As in the temporal shift module (Lin et al. 2019) and Slice-Shift UNet (Ugwu et al. 2023). At the ends of a window
    the outermost slice keeps its own features, where these have zeros.
    """

    name: Literal["shift"] = "shift"
    share: float = Field(default=SHARE, gt=0, le=1)
    """Share of the channels that come from other slices."""

    @property
    def reason(self) -> str:
        """What it does, for `--explain`."""
        return (
            f"at the input of every stage {self.share:.3g} of the channels are those of the neighbouring slices, half "
            "of them from each side (Lin et al. 2019; Slice-Shift UNet, Ugwu et al. 2023)"
        )

    def build(self, channels: int, stage: int, num_stages: int) -> "nn.Module":
        """Make the layer for the input of a stage, see `make_mixers`."""
        from seg25d.networks.mixing import SliceShift  # noqa: PLC0415 - heavy

        del stage, num_stages
        return SliceShift(int(channels * self.share / 2))


class Attention(Record):
    """Slices of a window attend to each other at each place in the plane, in the coarse stages.

    As between the slices of CAT-Net (Hung et al. 2022, arXiv 2203.15163) and CSAM (Hung et al. 2024, arXiv 2311.04942).
    Near slices count more: the slopes of Press et al. 2022, to both sides, which suit any number of slices, and a bias
    for each distance that is learnt, from 0 on.
    """

    name: Literal["attention"] = "attention"
    first_stage: int = Field(default=FIRST_STAGE, ge=0, le=MAX_STAGES)
    """Stage from which on slices attend to each other, 0 at full size; the coarsest one in networks of fewer."""
    num_heads: int = Field(default=NUM_HEADS, ge=1, le=64)
    head_width: Width = HEAD_WIDTH
    """Channels of a head."""

    @property
    def reason(self) -> str:
        """What it does, for `--explain`."""
        return (
            f"at each place in the plane, from stage {self.first_stage} on (0: full size) or in the coarsest, the "
            f"slices of a window attend to each other, with {self.num_heads} heads of {self.head_width} channels, "
            "which begin with no effect (CAT-Net, Hung et al. 2022); near slices count more (Press et al. 2022), and "
            "how much each distance counts is learnt"
        )

    def build(self, channels: int, stage: int, num_stages: int) -> "nn.Module":
        """Make the layer for the input of a stage, see `make_mixers`."""
        from seg25d.networks.mixing import NoMixing, SliceAttention  # noqa: PLC0415 - heavy

        if stage < min(self.first_stage, num_stages - 1):
            return NoMixing()
        return SliceAttention(channels, self.num_heads, self.head_width)


class Conv(Record):
    """Each channel is convolved across three slices, by a kernel that begins as (0, 1, 0) and sums to 1."""

    name: Literal["conv"] = "conv"

    @property
    def reason(self) -> str:
        """What it does, for `--explain`."""
        return (
            "at the input of every stage each channel is convolved across three slices, by a kernel that begins as "
            "(0, 1, 0), with no effect, and sums to 1; these few sums and products are not among those that are counted"
        )

    def build(self, channels: int, stage: int, num_stages: int) -> "nn.Module":
        """Make the layer for the input of a stage, see `make_mixers`."""
        from seg25d.networks.mixing import SliceConv  # noqa: PLC0415 - heavy

        del stage, num_stages
        return SliceConv(channels)


class ACS(Record):
    """A share of the channels also sees the planes across the slices, half of it rows and half of it columns.

    As in the axial-coronal-sagittal convolutions of Yang et al. 2021 (arXiv 1911.10477), whose kernels lie in three
    planes: the network's own are those within the slice, and these have three slices and three pixels of all channels.
    """

    name: Literal["acs"] = "acs"
    share: float = Field(default=ACS_SHARE, gt=0, le=1)
    """Share of the channels that see across the slices."""

    @property
    def reason(self) -> str:
        """What it does, for `--explain`."""
        return (
            f"at the input of every stage {self.share:.3g} of the channels get what kernels of three slices and three "
            "pixels see of all channels, half of them along rows and half along columns, which begin with no effect "
            "(ACS, Yang et al. 2021)"
        )

    def build(self, channels: int, stage: int, num_stages: int) -> "nn.Module":
        """Make the layer for the input of a stage, see `make_mixers`."""
        from seg25d.networks.mixing import PlaneConv  # noqa: PLC0415 - heavy

        del stage, num_stages
        return PlaneConv(channels, int(channels * self.share / 2))


Mixing: TypeAlias = Annotated[Shift | Attention | Conv | ACS, Field(discriminator="name")]
"""Any kind of mixing; its `name` says which."""
KINDS: dict[str, type[Shift] | type[Attention] | type[Conv] | type[ACS]] = {
    "shift": Shift,
    "attention": Attention,
    "conv": Conv,
    "acs": ACS,
}
"""Kinds by the names that configurations have, `networks.MIXINGS`."""


class MixesSlices(Record):
    """Settings of a network that can mix the slices of a window."""

    mixing: Mixing | None = None
    """How slices are mixed; None, which is not written, as in plans of earlier versions: not at all."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return values if self.mixing is not None else {key: values[key] for key in values if key != "mixing"}
