"""Coarse-to-fine segmentation: its settings, and the window of a plan for models that see crops only.

A first (coarse) model finds the object in the whole volume; a second (fine) one, trained on crops around the true
object, predicts a crop around the found object, repeatedly while that still changes (Zhou et al. 2017, the views of
Xia et al. 2018; methods.md 4.1).
"""

from collections.abc import Sequence

from pydantic import Field

from seg25d.core.limits import Margin
from seg25d.core.records import Record
from seg25d.core.types import Shape
from seg25d.planning.geometry import SMALLEST_FEATURE_MAP, round_up
from seg25d.planning.plan import ConfigurationPlan


class FineConfig(Record):
    """Settings of fine models; margins are in voxels of the finest axis, and as many millimetres along the others."""

    margin: Margin = 20
    """Margin around the object on each side (4.1)."""
    random_margin: Margin = 40
    """Maximum of the random margins in training, drawn from 0 to this for each of the six sides (4.1, which has the
    four sides of a slice)."""
    random_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the training windows with random margins (4.1)."""
    max_rounds: int = Field(default=10, ge=1, le=1000)
    """Maximum number of predictions by the fine model (4.1)."""
    stop_dice: float = Field(default=0.95, ge=0, le=1)
    """Dice between the foreground before and after a round from which on no further round follows (4.1)."""
    large_components: bool = False
    """Whether after each round components of a class with less than half of the voxels of its largest one become
    background, and with three views also those without a voxel on which the views agree (4.1). For organs that consist
    of one piece."""


def fine_plan(plan: ConfigurationPlan, crops: Sequence[Shape]) -> ConfigurationPlan:
    """The plan of the fine model: a window no larger than the median crop needs.

    The planned window is for whole slices and would be padded with zeros around a crop, which costs time and changes
    the mean that an instance norm sees. The network stays, and with it the divisors of the window; its deepest feature
    map keeps at least 4 voxels per axis, as in nnU-Net.

    Args:
        plan: Of the coarse model.
        crops: Shapes of crops on the plan's grid; none: the plan stays as it is.
    """
    if not crops:
        return plan
    axes, divisor = plan.representation.network_axes, plan.network.divisor
    typical = [sorted(sizes)[len(crops) // 2] for sizes in zip(*crops, strict=True)]
    sizes = list(typical)
    for axis, step in zip(axes, divisor, strict=True):
        sizes[axis] = max(sizes[axis], SMALLEST_FEATURE_MAP * step)
    wanted = round_up((sizes[0], sizes[1], sizes[2]), axes, divisor)
    depth, height, width = (min(size, planned) for size, planned in zip(wanted, plan.window, strict=True))
    reason = f"{plan.reasons.get('window', '')} Coarse-to-fine: no larger than for the median crop, {typical}.".strip()
    return plan.model_copy(update={"window": (depth, height, width), "reasons": {**plan.reasons, "window": reason}})
