"""One update of the weights: forward pass, loss, backward pass, optimizer."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.training.state import TrainingState


class Update(NamedTuple):
    """What an update came to."""

    loss: float
    """Before it."""
    gradient_norm: float
    """Before it was clipped."""


def make_update(
    state: TrainingState,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss_function: nn.Module,
    execution: Execution,
    gradient_clip: float | None,
) -> Update:
    """Update the weights with a batch.

    Args:
        state: Has weights, optimizer and scaler, which change.
        model: The state's model, or what spreads it over processes.
        batch: Images (B, C, D, H, W) and target (B, D, H, W).
        loss_function: From outputs and target to a loss.
        execution: Device and precision.
        gradient_clip: Largest norm of the gradient; None: any.
    """
    # Only CUDA keeps the tensor on the CPU until its copy is done (docs.pytorch.org, pinmem_nonblock tutorial).
    ahead = execution.device.type == "cuda"
    images, target = (each.to(execution.device, non_blocking=ahead) for each in batch)
    with execution.autocast():
        outputs = model(images)
    loss = loss_function(outputs, target)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), gradient_clip or math.inf)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    # The only wait for a GPU, when the whole update is in its queue. float16 with Muon has one more: torch's
    # GradScaler looks for infinities before the step of an optimizer that is not fused.
    return Update(*map(float, torch.stack((loss.detach(), norm.to(loss))).tolist()))
