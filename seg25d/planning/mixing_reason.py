"""What mixing slices is and what it costs, in words."""

from seg25d.networks.specs.mixing import MixesSlices
from seg25d.planning.memory import GIGABYTE
from seg25d.planning.search import Fit, Limits, without_mixing


def mixing_reason(fit: Fit, limits: Limits) -> dict[str, str]:
    """The reason `mixing` of a configuration; empty where slices are not mixed.

    The cost is that of the traced step beside the same step of the same network without mixing.
    """
    mixing = fit.network.mixing if isinstance(fit.network, MixesSlices) else None
    if mixing is None:
        return {}
    (axis,) = {0, 1, 2} - set(fit.representation.network_axes)
    before, now = without_mixing(fit, limits), fit.memory
    costs = [
        _cost("parameters", now.num_parameters, before.num_parameters, "{:,}"),
        _cost("FLOP per update", now.flops, before.flops, "{:.3g}"),
        f"{(now.total - before.total) / GIGABYTE:.2f} GB of memory",
    ]
    return {
        "mixing": (
            f"{mixing.name}: {mixing.reason}; so the {fit.window[axis]} slices of a window learn of each other, while "
            f"a window of one slice stays as it is; it costs {', '.join(costs)}, beside the same network without it"
        )
    }


def _cost(what: str, now: int, before: int, style: str) -> str:
    """What is added to a number, and its share of what there was."""
    if now == before:
        return f"no {what}"
    share = f" ({(now - before) / before:.2%} more)" if before else ""
    return f"{style.format(now - before)} {what}{share}"
