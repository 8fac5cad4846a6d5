"""Volumes in the size of coarser scores.

Letters: B batch, C channels, D H W volume, d h w the coarser one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def averaged_to(volumes: Tensor, size: Sequence[int]) -> Tensor:
    """Average over equal parts, one for each voxel of a coarser volume.

    Args:
        volumes: (B, C, D, H, W).
        size: (d, h, w).

    Returns:
        (B, C, d, h, w).
    """
    depth, height, width = size
    if torch.compiler.is_exporting() and tuple(volumes.shape[2:]) == (depth, height, width):
        return volumes  # ONNX knows parts of fixed sizes alone
    factors = [fine // coarse for fine, coarse in zip(volumes.shape[2:], size, strict=True)]
    even = all(fine == factor * coarse for fine, factor, coarse in zip(volumes.shape[2:], factors, size, strict=True))
    if volumes.device.type == "mps" and even:
        # torch 2.13 has no kernel for parts of any size there (native_functions.yaml, _adaptive_avg_pool3d).
        return functional.avg_pool3d(volumes, factors)
    return functional.adaptive_avg_pool3d(volumes, (depth, height, width))
