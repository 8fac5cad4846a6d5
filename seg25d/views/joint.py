"""Views and the network that fuses them as one model, for joint training.

Xia et al. 2018 leave this as future work. Letters: B batch, C image channels, V views, M maps per view, K scores, D H W
window.
"""

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.errors import InputError
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.planning.memory import GIGABYTE, trace_training_step
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.search import CARD_SHARE, OVERHEAD_BYTES
from seg25d.representations.base import NetworkOutput


class JointFusion(nn.Module):
    """(B, C, D, H, W) -> every view's probabilities -> fusion -> scores (B, K, D, H, W).

    Gradients of the fused scores reach the networks of the views. In a window, a view sees only parts of its slices.

    Args:
        views: Lifted models of the views, in the order that the fusion takes them.
        fusion: The lifted fusion network, of (B, C + V M, D, H, W).
        labels: Meaning of the scores of the views.
    """

    def __init__(self, views: Sequence[nn.Module], fusion: nn.Module, labels: Labels) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)
        self.fusion = fusion
        self.has_regions = labels.has_regions

    def forward(self, volume: Tensor) -> NetworkOutput:
        """Compute scores; in training mode a list of (scores, weight), as the fusion network returns it."""
        maps = [self._to_probabilities(view(volume)) for view in self.views]
        output: NetworkOutput = self.fusion(torch.cat([volume, *maps], 1))
        return output

    def _to_probabilities(self, output: NetworkOutput) -> Tensor:
        """Probabilities (B, M, D, H, W) of the finest scale."""
        scores = (output if isinstance(output, Tensor) else output[0][0]).float()
        return scores.sigmoid() if self.has_regions else scores.softmax(1)[:, 1:]


class PaddedView(nn.Module):
    """A view on windows of any size: padded at the end to multiples of its network's divisors, scores cropped back.

    Args:
        model: The lifted model.
        divisors: Divisors of the input size along (D, H, W).
    """

    def __init__(self, model: nn.Module, divisors: tuple[int, int, int]) -> None:
        super().__init__()
        self.model = model
        self.divisors = divisors

    @classmethod
    def of(cls, model: nn.Module, plan: ConfigurationPlan) -> Self:
        """The view with the divisors of its plan."""
        divisors = dict(zip(plan.representation.network_axes, plan.network.divisor, strict=True))
        return cls(model, (divisors.get(0, 1), divisors.get(1, 1), divisors.get(2, 1)))

    def forward(self, volume: Tensor) -> Tensor:
        """Scores (B, K, D, H, W) of the finest scale."""
        sizes = volume.shape[2:]
        ends = [-size % divisor for size, divisor in zip(sizes, self.divisors, strict=True)]
        output: NetworkOutput = self.model(functional.pad(volume, [part for end in ends[::-1] for part in (0, end)]))
        scores = output if isinstance(output, Tensor) else output[0][0]
        for axis, size in enumerate(sizes, 2):
            scores = scores.narrow(axis, 0, size)
        return scores


def build_joint(
    fusion: ConfigurationPlan, views: Sequence[ConfigurationPlan], description: DatasetDescription
) -> JointFusion:
    """Make views and fusion as one model with fresh weights, from their plans."""
    num_channels, labels = len(description.channel_names), description.labels
    models = [PaddedView.of(view.build_model(num_channels, labels.num_outputs), view) for view in views]
    return JointFusion(models, fusion.build_model(num_channels, labels.num_outputs), labels)


def joint_plan(
    fusion: ConfigurationPlan,
    views: Sequence[ConfigurationPlan],
    description: DatasetDescription,
    gpu_memory_gb: float,
) -> ConfigurationPlan:
    """The plan of joint training: that of the fusion, with the largest batch size for which all models fit into memory.

    Mirroring is that of the views, whose training continues.

    Args:
        fusion: Plan of the fusion.
        views: Plans of the views.
        description: Channels and labels.
        gpu_memory_gb: Memory that a training step may take.

    Raises:
        InputError: If not even one window fits; names the memory that is needed.
    """
    num_channels, labels = len(description.channel_names), description.labels
    build = partial(build_joint, fusion, views, description)
    batch_size = fusion.batch_size
    while True:
        memory = trace_training_step(build, (batch_size, num_channels, *fusion.window), labels.num_outputs)
        needed = (memory.total + OVERHEAD_BYTES) / GIGABYTE
        if needed <= CARD_SHARE * gpu_memory_gb:
            break
        if batch_size == 1:
            raise InputError(
                f"views and fusion together need {needed:.2f} GB with one window of "
                f"{'x'.join(map(str, fusion.window))}; plan it under another name with --gpu-memory-gb "
                f"{needed / CARD_SHARE + 0.05:.1f} or more, or with a smaller window"
            )
        batch_size //= 2
    # Only axes along which every view may be mirrored.
    mirror_axes = tuple(axis for axis in range(3) if all(axis in view.mirror_axes for view in views))
    return fusion.model_copy(
        update={
            "batch_size": batch_size,
            "mirror_axes": mirror_axes,
            "estimated_memory_gb": round(needed, 3),
            "flops_per_update": memory.flops,
        }
    )
