"""The mean of the views and what the fusion network adds to it: the module of `FusedViews`.

Letters: B batch, C image channels, V views, M maps per view (foreground classes, or regions), K scores, D H W volume.
"""

import torch
from torch import Tensor, nn

from seg25d.representations.averaging import averaged_to
from seg25d.representations.base import NetworkOutput, map_scores
from seg25d.representations.fused_views import FusedViews

LEAST = 1e-3
"""Lower bound of probabilities before taking their logarithm."""


class LiftedFusion(nn.Module):
    """(B, C + V M, D, H, W) -> scores (B, K, D, H, W)."""

    def __init__(self, network: nn.Module, representation: FusedViews) -> None:
        super().__init__()
        self.network = network
        self.representation = representation

    def forward(self, volume: Tensor) -> NetworkOutput:
        """Scores, see `Representation.lift`."""
        maps = volume[:, -self.representation.num_maps :]
        output: NetworkOutput = self.network(volume if self.representation.image else maps)
        if not self.representation.from_mean:
            return output
        mean = torch.stack(torch.split(maps, self.representation.maps_per_view, 1)).mean(0)
        guess = scores_of(mean, regions=self.representation.regions)
        return map_scores(output, lambda scores: scores + averaged_to(guess, scores.shape[2:]))


def scores_of(probabilities: Tensor, *, regions: bool) -> Tensor:
    """Compute scores whose softmax (or sigmoid, for regions) gives the probabilities back.

    Args:
        probabilities: (B, M, D, H, W), of foreground classes or regions.
        regions: Which of the two they are.

    Returns:
        (B, K, D, H, W): with a background in front of classes.
    """
    if regions:
        return probabilities.clamp(LEAST, 1 - LEAST).logit()
    background = 1 - probabilities.sum(1, keepdim=True)
    return torch.cat([background, probabilities], 1).clamp(min=LEAST).log()
