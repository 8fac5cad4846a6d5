"""The networks, one file each.

To add one: a file with a `Spec` record (a literal `name`, `dims`, `divisor`, `build(in_channels, num_outputs)`), and
one line in `NetworkSpec` and `NETWORKS`.
"""

from typing import TypeAlias

from seg25d.networks.unet import UNetSpec

NetworkSpec: TypeAlias = UNetSpec
"""Any network's settings; `name` tells them apart."""

NETWORKS: dict[str, type[NetworkSpec]] = {"unet": UNetSpec}
"""Networks by name."""
