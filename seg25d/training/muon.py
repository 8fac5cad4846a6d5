"""Muon: momentum that is orthogonalised, for the weights of convolutions and linear layers; AdamW for all others.

Jordan et al. 2024 (Muon), with step sizes that follow Liu et al. 2025 (arXiv 2502.16982, section 2.2).
`torch.optim.Muon` takes matrices only; here a kernel is the matrix of its first axis (output channels, or input
channels of transposed convolutions) by all others, as both papers' code does it.
"""

from collections.abc import Callable, Iterable, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

MOMENTUM = 0.95
"""Nesterov momentum (Jordan et al.)."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5
"""Steps of the Newton-Schulz iteration: a quintic whose slope at 0 is steep (Jordan et al.)."""
RMS = 1.0
"""Root mean square of the updates of matrices, in learning rates, for singular values of 1. Liu et al. use 0.2, as for
AdamW in language models; here 0.5 to 2 are best (documentation/concepts/choices.md), and AdamW's first updates have
1."""
OTHERS = 5.0
"""Factor on AdamW's learning rate, for parameters that are not matrices: biases, scales, slopes. With 1 short runs are
worse
(documentation/concepts/choices.md)."""
AT_ONCE = 1 << 22
"""Maximum number of values in matrices that are orthogonalised together: 16 MiB."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for groups with `matrices`, AdamW for the others.

    Args:
        groups: Of parameters; `matrices` says whether each is a matrix once all axes but the first are flattened.
        lr: Learning rate.
    """

    # torch wraps these so that its compiler leaves them alone, and the first call loads that compiler: 1 s and 63 MB.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "matrices": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None, "the loss is computed once per update"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrices"]:
                self._update_matrices(parameters, group["lr"], group["weight_decay"])
            elif parameters:
                self._update_others(parameters, group["lr"], group["weight_decay"])

    def _update_matrices(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        for alike in _portions(parameters):
            towards = []
            for weight in alike:
                gradient, state = weight.grad, self.state[weight]
                assert gradient is not None, "those without were left out"
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                towards.append(gradient.lerp(momentum, MOMENTUM).flatten(1))
            for weight, update in zip(alike, orthogonalise(towards), strict=True):
                weight.mul_(1 - lr * weight_decay)
                weight.add_(update.reshape(weight.shape), alpha=-lr * RMS * max(update.shape) ** 0.5)

    def _update_others(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                # Not "step": torch would leave that on the CPU when a state is loaded.
                state["updates"] = torch.zeros((), device=parameter.device)
                state["mean"], state["variance"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        means, variances, steps = (
            [self.state[parameter][name] for parameter in parameters] for name in ("mean", "variance", "updates")
        )
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        adamw(
            parameters,
            gradients,
            means,
            variances,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=OTHERS * lr,
            weight_decay=weight_decay / OTHERS,
            eps=EPSILON,
            maximize=False,
        )


def _portions(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group parameters whose matrices have smaller sides of one size, as many as fit into `AT_ONCE`, at least one."""
    portions: dict[int, list[list[Tensor]]] = {}
    for parameter in parameters:
        alike = portions.setdefault(_smaller_side(parameter), [[]])
        if alike[-1] and sum(each.numel() for each in alike[-1]) + parameter.numel() > AT_ONCE:
            alike.append([])
        alike[-1].append(parameter)
    return [portion for alike in portions.values() for portion in alike]


def _smaller_side(parameter: Tensor) -> int:
    return min(len(parameter), parameter.shape[1:].numel())


def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Approximate the nearest matrices with orthogonal rows (or columns): singular values from 0.7 to 1.2 instead of 1.

    The iteration multiplies a matrix from the left by polynomials in its Gram matrix, which commute; so they are
    gathered first, on the small Gram matrices alone, and applied once. For kernels that is a fifth of the arithmetic.

    Args:
        matrices: At least one, (m, n) each; their smaller sides are of one size.

    Returns:
        (m, n) float32 each.
    """
    wide = [matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T for matrix in matrices]
    wide = [matrix / matrix.norm().clamp(min=EPSILON) for matrix in wide]
    polynomials = _polynomials(torch.stack([matrix @ matrix.T for matrix in wide]))
    results = [polynomial @ matrix for polynomial, matrix in zip(polynomials, wide, strict=True)]
    return [
        result if matrix.shape[0] <= matrix.shape[1] else result.T
        for matrix, result in zip(matrices, results, strict=True)
    ]


def _polynomials(grams: Tensor) -> Tensor:
    """Compute the factors of the whole iteration from Gram matrices: (k, m, m) to the same shape."""
    gathered = factors = _step(grams)
    for _ in range(NUM_STEPS - 1):
        grams = factors @ grams @ factors
        factors = _step(grams)
        gathered = factors @ gathered
    return gathered


def _step(grams: Tensor) -> Tensor:
    """Compute the factors of one step of the iteration: (k, m, m) to the same shape."""
    identity = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    first, second, third = COEFFICIENTS
    return torch.baddbmm(first * identity + second * grams, grams, grams, alpha=third)
