"""Networks as plans know them: frozen records of settings that can build them."""

from typing import Annotated, Any, Protocol, Self, TypeAlias

from torch import nn

from seg25d.core.records import ByName
from seg25d.core.registry import Registry
from seg25d.networks import PLACES
from seg25d.networks.convolutions import Sizes


class Network(Protocol):
    """The settings of a network: a `Record` with these; all else is its own."""

    @property
    def name(self) -> str:
        """Literal in each record: what plans know it by."""

    @property
    def dims(self) -> int:
        """2 or 3 spatial axes."""

    @property
    def divisor(self) -> Sizes:
        """What the size of the input must be divisible by, per axis."""

    @property
    def summary(self) -> str:
        """The settings that tell such networks apart, in a few characters for tables."""

    def build(self, in_channels: int, num_outputs: int) -> nn.Module:
        """Make the network with fresh weights from torch's global generator.

        Args:
            in_channels: Channels of the input.
            num_outputs: Scores per pixel or voxel.
        """

    def __hash__(self) -> int:
        """Records can be keys."""

    def model_dump(self) -> dict[str, Any]:
        """All settings by name, see pydantic."""

    def model_copy(self, *, update: dict[str, Any] | None = None) -> Self:
        """The same with other settings, see pydantic."""


NETWORKS: Registry[type[Network]] = Registry(PLACES)
"""Networks by name."""

NetworkSpec: TypeAlias = Annotated[Network, ByName("network", lambda: NETWORKS)]
"""Any network, as a field of a record; its `name` says which."""
