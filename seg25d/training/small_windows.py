"""Parts of windows, for the first share of a run: more updates in the same time.

What a small part lacks is learnt in the rest of the run, on whole windows: where the object lies in the volume, and
what a norm over a whole volume gives. Letters: b windows of a batch, C channels, D H W window, d h w part.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seg25d.core.errors import InputError
from seg25d.core.types import Shape
from seg25d.data.labels import IGNORE_INDEX
from seg25d.planning.plan import ConfigurationPlan
from seg25d.training.config import TrainingConfig
from seg25d.training.sampling import draw_foreground, place_window

SIDE = 0.6
"""Of a part, as a share of the window's: a fifth to a quarter of its voxels (documentation/measurements.md)."""


def small_share(config: TrainingConfig, plan: ConfigurationPlan, shapes: Sequence[Shape]) -> float:
    """The share of a run in which parts of windows are trained on.

    Args:
        config: Its setting; without one it is the representation's where windows hold a volume of median shape, as in
            what was measured, and 0 elsewhere.
        plan: Window and representation.
        shapes: Of the training cases on the model's grid.

    Raises:
        InputError: If it is set where windows have to be whole.
    """
    usual = plan.representation.small_windows if config.pretext is None else None
    if config.small_windows is None:
        holds_volumes = (np.median(np.array(shapes), axis=0) <= plan.window).all()
        return usual if usual and holds_volumes else 0.0
    if config.small_windows and usual is None:
        raise InputError(
            "small_windows: only 3d and stack learn from parts of windows, and no pretraining does; leave it out"
        )
    return config.small_windows


def small_window(plan: ConfigurationPlan) -> Shape:
    """Voxels (d, h, w) of the parts that a plan's windows are cut to, divisible as its network wants them."""
    divisors = dict(zip(plan.representation.network_axes, plan.network.divisor, strict=True))
    sizes = [-(-round(SIDE * size) // divisors[axis]) * divisors[axis] for axis, size in enumerate(plan.window)]
    return sizes[0], sizes[1], sizes[2]


def cut_windows(
    images: Tensor, labels: Tensor, size: Shape, foreground_share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a part out of every window of a batch.

    Args:
        images: (b, C, D, H, W).
        labels: (b, D, H, W), internal indices.
        size: Of the parts, no larger than the windows along any axis.
        foreground_share: Share of the parts that are centred on a voxel of a class drawn at random.
        rng: Draws where they are.

    Returns:
        (b, C, d, h, w) and (b, d, h, w).
    """
    cut_images, cut_labels = images.new_empty((*images.shape[:2], *size)), labels.new_empty((len(labels), *size))
    for number, (image, truth) in enumerate(zip(images, labels, strict=True)):
        centre = None
        if rng.random() < foreground_share:
            classes = [label for label in torch.unique(truth).tolist() if label != IGNORE_INDEX]
            centre = draw_foreground(rng, {label: np.argwhere(truth.numpy() == label) for label in classes})
        depth, height, width = truth.shape
        starts = place_window(rng, (depth, height, width), size, centre)
        where = tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))
        cut_images[number], cut_labels[number] = image[(slice(None), *where)], truth[where]
    return cut_images, cut_labels
