"""Slice by slice, each with its neighbours as channels: the module of `Slices`.

Letters: B batch, C channels, K scores, D H W volume (D slices after the slicing axis is moved to the front), h w image.
"""

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from seg25d.representations.base import NetworkOutput, map_scores
from seg25d.representations.context import apply_network, in_batch, slices_back, slices_first, with_neighbours
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
            images_at_once: Images that the network takes at a time, in eval mode; the scores are the same, in less
                memory. None: all B * D.
        """
        axis, batch = self.representation.axis, volume.shape[0]
        slices = with_neighbours(slices_first(volume, axis), self.representation.context)
        images = slices.transpose(1, 2).flatten(0, 1)
        if images_at_once is None:
            output = apply_network(self.network, images, partial(in_batch, (batch, slices.shape[2])))
        else:
            starts = range(0, len(images), images_at_once)
            output = torch.cat([self.network(images[first : first + images_at_once]) for first in starts])

        def undo(scores: Tensor) -> Tensor:
            volumes = scores.reshape(batch, -1, *scores.shape[1:])
            return slices_back(volumes.transpose(1, 2), axis)

        return map_scores(output, undo)
