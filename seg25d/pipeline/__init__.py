"""The former name of `seg25d.api`; it goes with version 0.3."""

import warnings

from seg25d.api import *  # noqa: F403 - the same names

warnings.warn("seg25d.pipeline is called seg25d.api now; version 0.3 has the new name only", DeprecationWarning, 2)
