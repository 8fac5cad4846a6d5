"""The names of the checks, which both processes of a self-test know."""

KNOWN = "layers that are known to be trouble"
OTHERS = "norms, PReLU, interpolation, pooling"
NETWORKS = "an update of each network"
TIMING = "speed of updates"


def convolutions_name(dims: int, transposed: bool) -> str:
    """The check of random convolutions of a kind."""
    return f"random {'transposed ' if transposed else ''}{dims}D convolutions"


LAYERS = (KNOWN, *(convolutions_name(dims, transposed) for dims in (3, 2) for transposed in (False, True)), OTHERS)
"""All checks of layers."""
