"""Loss and validation of pretraining, in which a network restores all voxels of windows (methods.md 1.8).

Letters: B batch, C channels, D H W window.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.device import Execution
from seg25d.core.files import atomic_path
from seg25d.representations.averaging import averaged_to
from seg25d.training.processes import share, sum_over_processes
from seg25d.training.sampling import Batch

MOST_TILES = 16
"""Maximum number of slices in a picture."""


class ReconstructionLoss(nn.Module):
    """The mean squared error of restored windows, over all voxels and channels."""

    def forward(self, outputs: Sequence[tuple[Tensor, float]], target: Tensor) -> Tensor:
        """The weighted error of all outputs.

        Args:
            outputs: (restored, weight) per scale; restored (B, C, d, h, w), the same size as the target or coarser.
            target: (B, C, D, H, W).
        """
        total = torch.zeros((), device=target.device)
        for restored, weight in outputs:
            wanted = averaged_to(target, restored.shape[2:])
            sums = torch.stack((functional.mse_loss(restored.float(), wanted, reduction="sum"),))
            count = torch.tensor([float(wanted.numel())], device=target.device)
            total = total + weight * (sum_over_processes(sums) / sum_over_processes(count)).squeeze()
        return total


class Restored(NamedTuple):
    """Quality of restored windows."""

    loss: float
    """Mean squared error."""
    loss_of_mean: float
    """Loss of a constant restoration, the mean of the window and channel: the variance."""
    example: tuple[Tensor, Tensor, Tensor] | None
    """Input, output and target of the first window: (C, D, H, W) each, on the CPU."""


def validate_reconstruction(model: nn.Module, batches: Iterable[Batch], execution: Execution) -> Restored:
    """Restore validation windows.

    Args:
        model: Lifted, in eval mode on return.
        batches: Of this process; all processes have the same number.
        execution: Device and precision.

    Returns:
        The errors, the same on every process except for the example.
    """
    model.eval()
    sums, example = [0.0, 0.0, 0.0], None
    with torch.inference_mode():
        for images, wanted in batches:
            if not len(images):
                continue
            target = wanted.to(execution.device)
            with execution.autocast():
                restored = model(images.to(execution.device)).float()
            sums[0] += float(functional.mse_loss(restored, target, reduction="sum"))
            mean = target.mean((2, 3, 4), keepdim=True).expand_as(target)
            sums[1] += float(functional.mse_loss(mean, target, reduction="sum"))
            sums[2] += target.numel()
            if example is None:
                example = images[0], restored[0].cpu(), wanted[0]
    error, variance, count = share(sums, execution.device, combine="sum")
    return Restored(error / max(count, 1.0), variance / max(count, 1.0), example)


def draw_reconstruction(path: Path, example: tuple[Tensor, Tensor, Tensor], axis: int) -> None:
    """Draw input, output and target of the network: tiled slices of the first channel.

    Args:
        path: A PNG.
        example: Of `Restored`.
        axis: The axis (0 D, 1 H, 2 W) that slices are taken along; at most `MOST_TILES`, evenly spaced.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

    figure = Figure(figsize=(15, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    low, high = (float(example[2][0].quantile(at)) for at in (0.005, 0.995))
    names = ("input", "restored", "target")
    for panel, name, volume in zip(figure.subplots(1, 3), names, example, strict=True):
        panel.imshow(_tiled(volume[0].movedim(axis, 0)), cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        panel.set_title(name)
        panel.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _tiled(slices: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Tile slices (D, H, W) into one image, as square as possible."""
    chosen = np.unique(np.linspace(0, len(slices) - 1, MOST_TILES).round().astype(int))
    picked = slices[chosen].float().numpy()
    columns = int(np.ceil(np.sqrt(len(picked))))
    rows = -(-len(picked) // columns)
    height, width = picked.shape[1:]
    image = np.full((rows * height, columns * width), picked.min(), np.float32)
    for number, each in enumerate(picked):
        row, column = divmod(number, columns)
        image[row * height : (row + 1) * height, column * width : (column + 1) * width] = each
    return image
