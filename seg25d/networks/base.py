"""Networks as plans know them: frozen records of settings that can build them."""

from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, TypeAlias

from seg25d.core.records import ByName
from seg25d.core.registry import Registry
from seg25d.core.types import Sizes
from seg25d.networks import PLACES

if TYPE_CHECKING:
    from torch import nn


class Network(Protocol):
    """The settings of a network: a `Record` with at least these members."""

    @property
    def name(self) -> str:
        """Name of the network in plans, a literal in each record."""

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis."""

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator.

        Args:
            in_channels: Channels of the input.
            num_outputs: Scores per pixel or voxel.
        """

    def __hash__(self) -> int:
        """Make records usable as keys."""

    def model_dump(self) -> dict[str, Any]:
        """All settings by name, see pydantic."""

    def model_copy(self, *, update: dict[str, Any] | None = None) -> Self:
        """A copy with other settings, see pydantic."""


NETWORKS: Registry[type[Network]] = Registry(PLACES)
"""Networks by name."""

NetworkSpec: TypeAlias = Annotated[Network, ByName("network", lambda: NETWORKS)]
"""Any network, as a field of a record; its `name` says which."""
