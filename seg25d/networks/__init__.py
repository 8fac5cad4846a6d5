"""The networks, one file each.

To add one: a file with a `Spec` record (a literal `name`, `dims`, `divisor`, `summary`, `build(in_channels,
num_outputs)`), one line in `AnyNetwork` and `NETWORKS`, and its rule in seg25d/planning/network_rules.py.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from seg25d.networks.fusion_net import FusionNetSpec
from seg25d.networks.resnet_unet import ResNetUNetSpec
from seg25d.networks.se_unet import SEUNetSpec
from seg25d.networks.swin_unetr import SwinUNETRSpec
from seg25d.networks.unet import UNetSpec
from seg25d.networks.vnet import VNetSpec
from seg25d.networks.xception_cbam_unet import XceptionCBAMUNetSpec

AnyNetwork: TypeAlias = (
    UNetSpec | SEUNetSpec | SwinUNETRSpec | VNetSpec | XceptionCBAMUNetSpec | ResNetUNetSpec | FusionNetSpec
)
"""The settings of any network."""

NetworkSpec: TypeAlias = Annotated[AnyNetwork, Field(discriminator="name")]
"""The same for fields of records; `name` tells them apart."""

NETWORKS: dict[str, type[AnyNetwork]] = {
    "unet": UNetSpec,
    "se_unet": SEUNetSpec,
    "swin_unetr": SwinUNETRSpec,
    "vnet": VNetSpec,
    "xception_cbam_unet": XceptionCBAMUNetSpec,
    "resnet_unet": ResNetUNetSpec,
    "fusion_net": FusionNetSpec,
}
"""Networks by name."""
