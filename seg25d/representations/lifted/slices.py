"""Slice by slice, each with its neighbours as channels: the module of `Slices`.

Letters: B batch, C channels, K scores, D H W volume (D slices after the slicing axis is moved to the front), h w image.
"""

from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from seg25d.core.grids import even_parts
from seg25d.representations.base import NetworkOutput, map_scores
from seg25d.representations.context import (
    apply_network,
    as_channels,
    beyond_ends,
    in_batch,
    slices_back,
    slices_first,
    with_neighbours,
)
from seg25d.representations.slices import Slices


class LiftedSlices(nn.Module):
    """(B, C, D, H, W) -> (B * D, C * (2k + 1), h, w) -> network -> (B, K, D, H, W)."""

    arranges_scores: ClassVar[bool] = True
    """Whether scores are those of the network in another arrangement, see `inference/scoring.py`."""

    def __init__(self, network: nn.Module, representation: Slices) -> None:
        super().__init__()
        self.network = network
        self.representation = representation

    @property
    def takes_images_at_once(self) -> bool:
        """Whether `forward` takes `images_at_once`: a network that mixes slices needs all of them."""
        return not getattr(self.network, "mixes_slices", False)

    def forward(self, volume: Tensor, images_at_once: int | None = None) -> NetworkOutput:
        """Scores of volumes, see `Representation.lift`.

        Args:
            volume: (B, C, D, H, W).
            images_at_once: The most images that the network takes at a time, in eval mode; the scores are the same, in
                less memory. None: all B * D.
        """
        axis, batch = self.representation.axis, volume.shape[0]
        slices = slices_first(volume, axis)
        if images_at_once is not None:
            return slices_back(self._in_parts(slices, max(1, images_at_once // batch)), axis)
        slices = with_neighbours(slices, self.representation.context)
        images = slices.transpose(1, 2).flatten(0, 1)
        output = apply_network(self.network, images, partial(in_batch, (batch, slices.shape[2])))

        def undo(scores: Tensor) -> Tensor:
            volumes = scores.reshape(batch, -1, *scores.shape[1:])
            return slices_back(volumes.transpose(1, 2), axis)

        return map_scores(output, undo)

    def _in_parts(self, slices: Tensor, number: int) -> Tensor:
        """Scores (B, K, D, h, w) of slices (B, C, D, h, w), at most a number of each volume at a time."""
        batch, depth, context = slices.shape[0], slices.shape[2], self.representation.context
        padded = beyond_ends(slices, context)
        scores = slices.new_empty(0)
        for part in even_parts(depth, number):
            images = as_channels(padded[:, :, part.start : part.stop + 2 * context], context)
            output = self.network(images.transpose(1, 2).flatten(0, 1))
            if part.start == 0:
                scores = output.new_empty(batch, output.shape[1], depth, *output.shape[2:])
            scores[:, :, part] = output.unflatten(0, (batch, -1)).transpose(1, 2)
        return scores
