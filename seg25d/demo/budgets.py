"""The kinds of demo by name, with their training time; loads nothing heavy, so that `--help` can say it."""

from collections.abc import Mapping

TIME_BUDGETS_S: Mapping[str, float] = {"phantom": 80.0, "vessels": 900.0}
"""Seconds of training per configuration, if nothing else is asked for (documentation/reference/measurements.md)."""
