"""Parts of windows, for the first share of a run: more updates in the same time.

What a small part lacks is learnt in the rest of the run, on whole windows: where the object lies in the volume, and
what a norm over a whole volume gives. Letters: b windows of a batch, C channels, D H W window, d h w part.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.errors import InputError
from seg25d.core.grids import count_voxels
from seg25d.core.types import Shape
from seg25d.data.labels import IGNORE_INDEX
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.training.config import TrainingConfig
from seg25d.training.labelled import NOWHERE, is_partly_labelled, labelled_part, place_to_show
from seg25d.training.sampling import place_window

logger = logging.getLogger(__name__)
SIDE = 0.6
"""Side of a part, as a share of the window's: a fifth to a quarter of its voxels
(documentation/concepts/choices.md)."""


class SmallWindows:
    """Cuts the windows of a run to parts during the first share of it.

    Args:
        config: Of the run.
        plan: Window, batch size and representation.
        store: Of the cases.
        cases: All of them, in any fold.

    Raises:
        InputError: If parts are set where windows have to be whole.
    """

    def __init__(self, config: TrainingConfig, plan: ConfigurationPlan, store: Store, cases: Sequence[str]) -> None:
        self.config, self.batch_size, self.size = config, plan.batch_size, small_window(plan)
        records = [store.record(case) for case in cases]
        self.share = small_share(config, plan, [record.grid.shape for record in records])
        self.partly_labelled = any(map(is_partly_labelled, records))
        if self.share:
            parts, windows = _text(self.size), _text(plan.window)
            logger.info("parts of %s of windows of %s in the first %g of the run", parts, windows, self.share)

    def cut(
        self, images: Tensor, labels: Tensor, progress: float, iteration: int, process: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Cut a part of each window; when the share of the run is over, return whole windows.

        The first update has whole windows, to test whether they fit into the memory.

        Args:
            images: (b, C, D, H, W).
            labels: (b, D, H, W), internal indices.
            progress: Share of the run that is over.
            iteration: Updates so far.
            process: (rank, number of processes), as in `WindowSource`.
        """
        if progress >= self.share or iteration == 0:
            return images, labels
        rank, num_processes = process
        numbers = (iteration * self.batch_size + rank + index * num_processes for index in range(len(images)))
        generators = [np.random.default_rng([self.config.seed, 3, number]) for number in numbers]
        share = self.config.foreground_share
        return cut_windows(images, labels, self.size, share, generators, partly_labelled=self.partly_labelled)


def check_small_windows(config: TrainingConfig, plan: ConfigurationPlan) -> None:
    """Check that a run can be trained on parts of windows, if these are set.

    Raises:
        InputError: If it cannot; the message says why.
    """
    if not config.small_windows or config.pretext is not None:
        return
    if plan.representation.small_windows is None:
        raise InputError("small_windows: only 3d and stack can learn from parts of windows; leave it out")
    if small_window(plan) == plan.window:
        raise InputError(
            f"small_windows: parts of windows of {_text(plan.window)} would be as large, as the network divides them "
            f"by {_text(plan.network.divisor)}; leave it out"
        )


def small_share(config: TrainingConfig, plan: ConfigurationPlan, shapes: Sequence[Shape]) -> float:
    """Choose the share of a run in which parts of windows are trained on.

    Args:
        config: Its setting; null is the representation's own share in a run with a time budget whose windows hold a
            volume of median shape, as in what was measured, and 0 in others.
        plan: Window and representation.
        shapes: Of all cases on the model's grid.

    Raises:
        InputError: If it is set where windows have to be whole.
    """
    check_small_windows(config, plan)
    if config.pretext is not None:
        return 0.0
    if config.small_windows is not None:
        return config.small_windows
    holds_volumes = (np.median(np.array(shapes), axis=0) <= plan.window).all()
    helps = config.time_budget_seconds is not None and holds_volumes and small_window(plan) != plan.window
    return plan.representation.small_windows or 0.0 if helps else 0.0


def small_window(plan: ConfigurationPlan) -> Shape:
    """Voxels (d, h, w) of the parts that a plan's windows are cut to, rounded up to what its network divides."""
    divisors = dict(zip(plan.representation.network_axes, plan.network.divisor, strict=True))
    depth, height, width = (
        -(-round(SIDE * size) // divisors.get(axis, 1)) * divisors.get(axis, 1) for axis, size in enumerate(plan.window)
    )
    return depth, height, width


def cut_windows(
    images: Tensor,
    labels: Tensor,
    size: Shape,
    foreground_share: float,
    generators: Sequence[np.random.Generator],
    *,
    partly_labelled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut a part out of every window of a batch.

    Args:
        images: (b, C, D, H, W).
        labels: (b, D, H, W), internal indices.
        size: Of the parts, no larger than the windows along any axis.
        foreground_share: Share of the parts that are centred on a voxel of a class drawn at random.
        generators: One for each window, which draw where the parts are.
        partly_labelled: Whether windows may have ignored voxels: parts show some that are labelled.

    Returns:
        (b, C, d, h, w) and (b, d, h, w).
    """
    pinned = images.is_pinned()
    cut_images = images.new_empty((*images.shape[:2], *size), pin_memory=pinned)
    cut_labels = labels.new_empty((len(labels), *size), pin_memory=pinned)
    for number, (image, truth, rng) in enumerate(zip(images, labels, generators, strict=True)):
        centre = _draw_centre(truth.cpu().numpy(), rng) if rng.random() < foreground_share else None
        depth, height, width = truth.shape
        loose = NOWHERE
        if partly_labelled:
            values, whole = truth.cpu().numpy(), ((0, depth), (0, height), (0, width))
            centre, loose = place_to_show(rng, values, labelled_part(values), centre, whole)
        starts = place_window(rng, (depth, height, width), size, centre, loose=loose)
        where = tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))
        cut_images[number], cut_labels[number] = image[(slice(None), *where)], truth[where]
    return cut_images, cut_labels


def _draw_centre(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.integer[Any]] | None:
    """Draw a class of the window, then one of its voxels; None if there is no foreground."""
    counts = count_voxels(labels)
    classes = [label for label in np.flatnonzero(counts) if label not in (0, IGNORE_INDEX)]
    if not classes:
        return None
    voxels = np.flatnonzero(labels == classes[int(rng.integers(len(classes)))])
    return np.array(np.unravel_index(voxels[int(rng.integers(len(voxels)))], labels.shape))


def _text(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
