"""Mixing between slices: features of a slice reach its neighbours in the same window, inside of a 2D network.

The representation says where the slices of a window are among the images (`SliceLayout`), a network has a mixing layer
at the input of each of its stages. Whatever the kind, equal slices are left as they are, and so is a window of one
slice; a fresh network with `attention` or `conv` is the network without.

A 2D convolution that jumps by one tile of a super image is not among the kinds: along a row it is `conv`, but blind at
the ends of rows; along a column it joins slices that lie a row apart, which differs from grid to grid.

Letters: B windows, D slices, C channels, h w image, N images in a batch, P places in the planes of a batch, H heads, E
channels of a head.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.limits import MAX_STAGES, Width
from seg25d.core.records import Record
from seg25d.networks.swin_unetr import LayerNorm

SHARE = 0.25
"""Share of the channels that a shift moves, half of it to each side: the best of the temporal shift module (Lin et al.
2019, arXiv 1811.08383), on which Slice-Shift UNet builds (Ugwu et al. 2023, arXiv 2307.12853)."""
FIRST_STAGE = 3
"""Stage from which on there is attention, at an eighth of the size: a 64th of the places. Our choice."""
NUM_HEADS = 4
"""Heads of the attention; our choice."""
HEAD_WIDTH = 32
"""Channels of a head (Liu et al. 2021, Swin transformer, section 3.3)."""
STEEPEST = 8
"""Slopes of the heads fall from 2^(-8/H) to 2^-8 (Press et al. 2022, arXiv 2108.12409, section 3)."""
REACH = 8
"""Slices up to which each distance to either side has a bias of its own, learnt per head as in Liu et al. 2021; farther
ones share that of the last. Our choice."""

Change: TypeAlias = Callable[[Tensor], Tensor]
"""From slices (B, D, C, h, w) to the same shape."""
SliceLayout: TypeAlias = Callable[[Tensor, Change], Tensor]
"""Applies a change to the slices that features (N, C, ...) hold, and puts the result where they were."""
Step: TypeAlias = Callable[[Tensor], Tensor]
"""From features (N, C, h, w) to the same shape: a mixing layer that knows the layout."""


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

    def build(self, channels: int, stage: int, num_stages: int) -> nn.Module:
        """Make the layer for the input of a stage, see `make_mixers`."""
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

    def build(self, channels: int, stage: int, num_stages: int) -> nn.Module:
        """Make the layer for the input of a stage, see `make_mixers`."""
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

    def build(self, channels: int, stage: int, num_stages: int) -> nn.Module:
        """Make the layer for the input of a stage, see `make_mixers`."""
        del stage, num_stages
        return SliceConv(channels)


Mixing: TypeAlias = Annotated[Shift | Attention | Conv, Field(discriminator="name")]
"""Any kind of mixing; its `name` says which."""
KINDS: dict[str, type[Shift] | type[Attention] | type[Conv]] = {"shift": Shift, "attention": Attention, "conv": Conv}
"""Kinds by the names that configurations have, `networks.MIXINGS`."""


class MixesSlices(Record):
    """Settings of a network that can mix the slices of a window."""

    mixing: Mixing | None = None
    """How slices are mixed; None, which is not written, as in plans of earlier versions: not at all."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return values if self.mixing is not None else {key: values[key] for key in values if key != "mixing"}


class NoMixing(nn.Module):
    """Features as they are."""

    def forward(self, features: Tensor, layout: SliceLayout | None) -> Tensor:
        """(N, C, ...) unchanged."""
        del layout
        return features


class SliceShift(nn.Module):
    """Takes the first channels from the slice before, and as many next ones from the slice after.

    Args:
        number: Channels that come from each side; of so few channels that it is 0, nothing is moved.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, features: Tensor, layout: SliceLayout | None) -> Tensor:
        """(N, C, h, w) to the same shape, type and layout in memory."""
        if self.number == 0:
            return features
        moved, kept = features.split_with_sizes([2 * self.number, features.shape[1] - 2 * self.number], 1)
        return torch.cat((_changed(moved, layout, self._shift, like=features), kept), 1)

    def _shift(self, slices: Tensor) -> Tensor:
        before, after = slices.chunk(2, 2)
        before = torch.cat((before[:, :1], before[:, :-1]), 1)
        return torch.cat((before, torch.cat((after[:, 1:], after[:, -1:]), 1)), 2)


class SliceConv(nn.Module):
    """Adds a share of the difference to the slice before, and of that to the slice after, channel by channel.

    That is a convolution whose kernel of three sums to 1, and which meets the outermost slice again beyond the ends.

    Args:
        channels: Of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels))
        self.after = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor, layout: SliceLayout | None) -> Tensor:
        """(N, C, h, w) to the same shape, type and layout in memory."""
        return _changed(features, layout, self._convolve, like=features)

    def _convolve(self, slices: Tensor) -> Tensor:
        # Weights in the type of the features: products with float32 would be float32.
        before, after = (weight.to(slices.dtype)[:, None, None] for weight in (self.before, self.after))
        steps = slices[:, 1:] - slices[:, :-1]
        from_after = functional.pad(after * steps, (0, 0, 0, 0, 0, 0, 0, 1))
        from_before = functional.pad(before * steps, (0, 0, 0, 0, 0, 0, 1, 0))
        return slices + from_after - from_before


class SliceAttention(nn.Module):
    """Adds what the slices of a window say of each place in the plane, beyond what each says itself.

    Args:
        channels: Of the features.
        num_heads: Heads, H.
        head_width: Channels of a head, E.
    """

    def __init__(self, channels: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = LayerNorm(channels)
        self.inner = nn.Linear(channels, 3 * num_heads * head_width, bias=False)
        self.outer = nn.Linear(num_heads * head_width, channels, bias=False)
        self.biases = nn.Parameter(torch.zeros(num_heads, 2 * REACH + 1))
        nn.init.zeros_(self.outer.weight)

    def forward(self, features: Tensor, layout: SliceLayout | None) -> Tensor:
        """(N, C, h, w) to the same shape, type and layout in memory."""
        return _changed(features, layout, self._attend, like=features)

    def _attend(self, slices: Tensor) -> Tensor:
        batch, depth, _, height, width = slices.shape
        tokens = self.norm(slices.permute(0, 3, 4, 1, 2).flatten(0, 2))
        # (P, D, 3 H E) to three times (P, H, D, E).
        queries, keys, values = self.inner(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = queries @ (keys * keys.shape[-1] ** -0.5).transpose(-2, -1)
        weights = (scores + self._nearness(depth, scores)).softmax(-1)
        # One slice has a weight of 1, and nothing new to say.
        news = weights @ values - values
        said: Tensor = self.outer(news.transpose(1, 2).flatten(2))
        return slices + said.reshape(batch, height, width, depth, -1).permute(0, 3, 4, 1, 2)

    def _nearness(self, depth: int, like: Tensor) -> Tensor:
        """(H, D, D): minus the distances of slices, times the slope of each head, and the bias of each distance."""
        numbers = torch.arange(1, self.num_heads + 1, device=like.device, dtype=torch.float32)
        slopes = torch.exp2(numbers * (-STEEPEST / self.num_heads))
        places = torch.arange(depth, device=like.device, dtype=torch.float32)
        distances = places - places[:, None]
        # A product with zeros and ones: the gradient of an index adds up in any order on CPUs.
        steps = torch.arange(-REACH, REACH + 1, device=like.device, dtype=torch.float32)
        is_step = (distances.clamp(-REACH, REACH)[..., None] == steps).to(self.biases.dtype)
        biases = (is_step @ self.biases.T).permute(2, 0, 1)
        return (biases - slopes[:, None, None] * distances.abs()).to(like.dtype)


def _changed(features: Tensor, layout: SliceLayout | None, change: Change, like: Tensor) -> Tensor:
    """Change slices where the layout has them, and lay the result out in memory like other features.

    Raises:
        ValueError: If there is no layout.
    """
    if layout is None:
        raise ValueError("a network that mixes slices needs their layout: it has to be lifted to volumes")
    is_last = like.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if is_last else torch.contiguous_format
    return layout(features, change).contiguous(memory_format=order)


def make_mixers(mixing: Mixing | None, inputs: Iterable[tuple[int, int]], num_stages: int) -> nn.ModuleList:
    """Make the mixing layers of what several stages get: each from (N, C, h, w) and the layout to (N, C, h, w).

    Args:
        mixing: The kind; None: nothing happens.
        inputs: For each of them the stage that it comes from by its size, 0 at full size, and its channels.
        num_stages: Of the network.
    """
    return nn.ModuleList(
        NoMixing() if mixing is None else mixing.build(channels, stage, num_stages) for stage, channels in inputs
    )


def _unmixed(features: Tensor) -> Tensor:
    return features


UNMIXED: tuple[Step, ...] = (_unmixed,) * 4
"""Steps of encoders with four inputs that could be mixed, where nobody tells them how."""
