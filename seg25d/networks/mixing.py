"""Mixing between slices: features of a slice reach its neighbours in the same window, inside of a 2D network.

The representation says where the slices of a window are among the images (`SliceLayout`), a network has a mixing layer
at the input of each of its stages. Whatever the kind, equal slices are left as they are, and so is a window of one
slice; a fresh network with any kind but `shift` is the network without.

A 2D convolution that jumps by one tile of a super image is not among the kinds: along a row it joins the slices that
`conv` joins, with a kernel for each pair of channels where that has one for each channel, but is blind at the ends of
rows; along a column it joins slices that lie a row apart, which differs from grid to grid.

Letters: B windows, D slices, C channels, h w image, N images in a batch, P places in the planes of a batch, H heads, E
channels of a head.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from seg25d.networks.convolutions import Conv2d
from seg25d.networks.specs.mixing import Mixing
from seg25d.networks.swin_unetr import LayerNorm

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
        first, second = slices.chunk(2, 2)
        return torch.cat((_before(first), _after(second)), 2)


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
        return slices + before * (_before(slices) - slices) + after * (_after(slices) - slices)


class PlaneConv(nn.Module):
    """Adds to some channels what kernels of three slices and three pixels see of all of them.

    The kernels lie in the two planes across the slices: for one half of these channels along columns (3 x 1 x 3 voxels
    of D, h, w), for the other along rows (3 x 3 x 1). Their weights of the slice itself are minus the sum of those of
    the slice before and after, so that equal slices add nothing. Each is made of 2D convolutions within the slices, a
    kernel of three pixels for the slice before and one for the slice after: these are the fast and the safe ones.

    Args:
        channels: Of the features.
        number: Channels that each of the two planes adds to; of so few channels that it is 0, nothing is added.
    """

    def __init__(self, channels: int, number: int) -> None:
        super().__init__()
        self.number = number
        if number:
            self.along_columns = Conv2d(channels, 2 * number, (1, 3), padding=(0, 1), bias=False)
            self.along_rows = Conv2d(channels, 2 * number, (3, 1), padding=(1, 0), bias=False)
            nn.init.zeros_(self.along_columns.weight)
            nn.init.zeros_(self.along_rows.weight)

    def forward(self, features: Tensor, layout: SliceLayout | None) -> Tensor:
        """(N, C, h, w) to the same shape, type and layout in memory."""
        return _changed(features, layout, self._convolve, like=features) if self.number else features

    def _convolve(self, slices: Tensor) -> Tensor:
        images = slices.flatten(0, 1)
        news = [self._news(conv(images), slices) for conv in (self.along_columns, self.along_rows)]
        changed, kept = slices.split_with_sizes([2 * self.number, slices.shape[2] - 2 * self.number], 2)
        # The sum in the type of the features: under autocast what convolutions give has another one.
        return torch.cat((changed + torch.cat(news, 2).to(slices.dtype), kept), 2)

    def _news(self, seen: Tensor, slices: Tensor) -> Tensor:
        """What the slices beside each one show, less what it shows itself: (B * D, 2 n, h, w) to (B, D, n, h, w)."""
        before, after = seen.reshape(*slices.shape[:2], *seen.shape[1:]).chunk(2, 2)
        return _before(before) - before + _after(after) - after


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


def _before(slices: Tensor) -> Tensor:
    """(B, D, ...) with the slice before in place of each, and the first twice."""
    return torch.cat((slices[:, :1], slices[:, :-1]), 1)


def _after(slices: Tensor) -> Tensor:
    """(B, D, ...) with the slice after in place of each, and the last twice."""
    return torch.cat((slices[:, 1:], slices[:, -1:]), 1)


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
