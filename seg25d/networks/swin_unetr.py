"""The Swin UNETR (Hatamizadeh et al. 2022) by MONAI, which Sobirov et al. 2022 train on volumes and on super images."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seg25d.core.types import Sizes
from seg25d.networks.convolutions import HALF_TYPES, computes_on_cpu, replace_convolutions
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec

PATCH_STEPS = 32
"""Sizes must be divisible by this: patches of 2, then halved four times (MONAI, networks/nets/swin_unetr.py)."""


class SwinUNETR(nn.Module):
    """MONAI's network for images of any size: they are padded with zeros at the end, and the scores cropped.

    Args:
        spec: The settings.
        in_channels: Channels of the input.
        num_outputs: Scores per pixel or voxel.
    """

    def __init__(self, spec: SwinUNETRSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        # Importing MONAI takes seconds, and nothing else in this package needs it.
        from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR  # noqa: PLC0415

        self.spec = spec
        with _PlainLinspace():
            self.network = MonaiSwinUNETR(
                in_channels=in_channels,
                out_channels=num_outputs,
                feature_size=spec.feature_size,
                spatial_dims=spec.dims,
                use_checkpoint=spec.checkpointing,
                norm_layer=LayerNorm,
                use_v2=False,
            )
        replace_convolutions(self.network)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, in_channels, ...) of any size.

        Returns:
            (N, num_outputs, ...) in eval mode; in training mode a list with these scores and the weight 1.
        """
        sizes = images.shape[2:]
        padding = [end for size, full in zip(sizes, padded_sizes(sizes), strict=True) for end in (full - size, 0)]
        scores: Tensor = self.network(functional.pad(images, padding[::-1]))
        for axis, size in enumerate(sizes, 2):
            scores = scores.narrow(axis, 0, size)
        return [(scores, 1.0)] if self.training else scores


def padded_sizes(sizes: Iterable[int]) -> Sizes:
    """Round sizes up to multiples of 32.

    If all of them are then 32, the last becomes 64: otherwise the coarsest features would be a single pixel without
    variance, which instance norm refuses.
    """
    padded = [-(-size // PATCH_STEPS) * PATCH_STEPS for size in sizes]
    if max(padded) == PATCH_STEPS:
        padded[-1] = 2 * PATCH_STEPS
    return tuple(padded)


class LayerNorm(nn.LayerNorm):
    """Layer norm in the type of the input.

    CUDA's autocast would compute in float32, which needs more memory; the kernel's own sums are float32 anyway. Also,
    what checkpointing computes again then has the type of the first time where planning/memory.py traces on CPUs.

    On CPUs torch's kernel adds up the gradients of weight and bias in 16 bits, where sums soon stop growing: that of a
    bias was wrong by 2 % for 1,000 tokens, by 83 % for 12,000 and by 99 % for 200,000 (torch 2.13).
    """

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        with torch.autocast(features.device.type, enabled=False):
            weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
            if features.dtype in HALF_TYPES and computes_on_cpu(features):
                normed = functional.layer_norm(features, self.normalized_shape, eps=self.eps)
                return torch.addcmul(bias, normed, weight)
            return functional.layer_norm(features, self.normalized_shape, weight, bias, self.eps)


class _PlainLinspace(TorchFunctionMode):
    """Returns plain numbers for torch.linspace.

    MONAI's constructor reads rates of stochastic depth with `.item()`, which neither meta tensors nor the fake tensors
    of planning/memory.py have. All rates are 0 here.
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function, unless it is torch.linspace."""
        del types
        return np.linspace(*args) if func is torch.linspace else func(*args, **(kwargs or {}))
