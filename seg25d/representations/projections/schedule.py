"""Schedule of the random 2.5D U-Net over the epochs: the angles of path 1, and the weight of its loss."""

import numpy as np

START = 0.99
"""c(1), and the base of its decay (Angermann & Haltmeier, section 3.2)."""
PAPER_EPOCHS = 30
"""The epoch by which c has all but vanished, c(30) = 0.013 (methods.md 3.7): where a run by progress ends."""


def even_angles(num_views: int) -> tuple[float, ...]:
    """Angles in degrees, evenly spread over half a turn from 0 on: Theta of the paper."""
    return tuple(view * 180 / num_views for view in range(num_views))


def draw_angles(num_views: int, epoch: int, seed: int) -> tuple[float, ...]:
    """The angles of path 1 in an epoch: one whole degree of each of `num_views` equal parts of half a turn.

    With 12 views, part k is {15 k, ..., 15 k + 14}: the paper's {k, ..., k + 14} would leave out all beyond 25 degrees
    (methods.md 3.7). Where the number does not divide 180, parts differ by a degree at most.

    Args:
        num_views: Parts, p, at most 180.
        epoch: From 1 on.
        seed: Of the run, not negative; the same seed and epoch give the same angles, also after resuming.
    """
    ends = [part * 180 // num_views for part in range(num_views + 1)]
    drawn = np.random.default_rng((seed, epoch)).integers(ends[:-1], ends[1:])
    return tuple(float(angle) for angle in drawn)


def path_weight(epoch: float) -> float:
    """c: the weight of path 1 in an epoch counted from 1; path 2 has the rest.

    c(1) = 0.99 and c(n + 1) = c(n) 0.99^n (paper, section 3.2), so c(n) = 0.99^(1 + n (n - 1) / 2).
    """
    return float(START ** (1 + epoch * (epoch - 1) / 2))


def epoch_of_progress(progress: float) -> float:
    """Convert the progress of a run to the paper's epoch: 1 at the beginning, 30 at the end."""
    return 1 + (PAPER_EPOCHS - 1) * progress
