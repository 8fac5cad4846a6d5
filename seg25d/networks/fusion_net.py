"""The Volumetric Fusion Net of Xia et al. 2018: a small 3D network that fuses the predictions of several views.

Letters: N windows in a batch, C channels (of the image and of the views' predictions), K scores per voxel.
"""

import torch
from torch import Tensor, nn

from seg25d.networks.blocks import ConvBlock, initialise, make_activation, make_norm
from seg25d.networks.convolutions import Conv3d, ConvTranspose3d
from seg25d.networks.specs.fusion_net import STAGES, FusionNetSpec
from seg25d.networks.specs.topology import NormName


class FusionNet(nn.Module):
    """(N, C, D, H, W) -> scores (N, K, D, H, W); in training mode `[(scores, 1.0)]`.

    A voxel sees 44 or 52 voxels along each axis, by its place modulo 8; the usual formula says 50, the paper's figure.
    """

    def __init__(self, spec: FusionNetSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        widths = [spec.width * 2**stage for stage in range(STAGES)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(before, width, spec.norm), _block(width, width, spec.norm))
            for before, width in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.up = nn.ModuleList(
            _Up(before, width, spec.norm)
            for before, width in zip([widths[-1], *reversed(widths)], reversed(widths), strict=False)
        )
        self.head = Conv3d(widths[0], num_outputs, 1)
        initialise(self, slope=0.0)
        if spec.initial_weights == "ones":
            for module in self.modules():
                if isinstance(module, Conv3d | ConvTranspose3d):
                    nn.init.ones_(module.weight)
        if spec.zero_scores:
            nn.init.zeros_(self.head.weight)

    def forward(self, volumes: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of volumes whose sizes are divisible by 8."""
        highways = []
        features = volumes
        for stage in self.down:
            features = stage(features)
            highways.append(features)
            features = self.pool(features)
        for stage, highway in zip(self.up, reversed(highways), strict=True):
            features = stage(features) + highway
        scores: Tensor = self.head(features)
        return [(scores, 1.0)] if self.training else scores


class _Up(nn.Module):
    """Upsampling by 2: transposed convolution of size 4, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: NormName) -> None:
        super().__init__()
        self.conv = ConvTranspose3d(in_channels, out_channels, 4, 2, 1)
        self.norm = make_norm(norm, out_channels, 3)
        self.activation = make_activation("relu")

    def forward(self, features: Tensor) -> Tensor:
        return torch.as_tensor(self.activation(self.norm(self.conv(features))))


def _block(in_channels: int, out_channels: int, norm: NormName) -> ConvBlock:
    return ConvBlock(in_channels, out_channels, (3, 3, 3), None, norm, "relu")
