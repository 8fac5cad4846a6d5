"""Views and the network that fuses them as one model, to be trained on together.

Xia et al. 2018 leave this as future work. Letters: B batch, C image channels, V views, M maps per view, K scores, D H W
window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seg25d.data.labels import Labels
from seg25d.representations.base import NetworkOutput


class JointFusion(nn.Module):
    """(B, C, D, H, W) -> every view's probabilities -> fusion -> scores (B, K, D, H, W).

    Gradients of the fused scores reach the networks of the views. Within a window a view sees parts of its slices only.

    Args:
        views: Lifted models of the views, in the order that the fusion takes them.
        fusion: The lifted fusion network, of (B, C + V M, D, H, W).
        labels: Say what the scores of the views mean.
    """

    def __init__(self, views: Sequence[nn.Module], fusion: nn.Module, labels: Labels) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)
        self.fusion = fusion
        self.has_regions = labels.has_regions

    def forward(self, volume: Tensor) -> NetworkOutput:
        """Scores; in training mode a list of (scores, weight) as the fusion network gives it."""
        maps = [self._maps(view(volume)) for view in self.views]
        output: NetworkOutput = self.fusion(torch.cat([volume, *maps], 1))
        return output

    def _maps(self, output: NetworkOutput) -> Tensor:
        """Probabilities (B, M, D, H, W), of the finest scale."""
        scores = (output if isinstance(output, Tensor) else output[0][0]).float()
        return scores.sigmoid() if self.has_regions else scores.softmax(1)[:, 1:]
