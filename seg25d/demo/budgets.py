"""Training time of each kind of demo; imports nothing heavy, so that `--help` can show it."""

from collections.abc import Mapping

TIME_BUDGETS_S: Mapping[str, float] = {"phantom": 80.0, "vessels": 900.0}
"""Default seconds of training per configuration (documentation/reference/measurements.md)."""
