"""Settings of the recurrent saliency transformation network."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from seg25d.core.limits import Margin
from seg25d.core.records import Record
from seg25d.core.types import Sizes
from seg25d.networks.specs.topology import MAX_SIZE
from seg25d.networks.specs.unet import UNetSpec

if TYPE_CHECKING:
    from torch import nn


class RSTNSpec(Record):
    """All settings of a recurrent saliency transformation network."""

    name: Literal["rstn"] = "rstn"
    network: UNetSpec
    """The coarse and the fine network, alike: of images, with scores at full size alone."""
    regions: bool = False
    """Whether scores are regions, each with a sigmoid, instead of classes with a softmax, the background first."""
    margin: Margin = 20
    """Pixels around the object on each side."""
    random_margins: float = Field(default=0.5, ge=0, le=1)
    """Share of the images in training whose four margins are drawn from 0 to twice the margin."""
    coarse_weight: float = Field(default=1 / 3, gt=0, lt=1)
    """Weight of the coarse network's loss; the rest is the fine one's."""
    max_rounds: int = Field(default=10, ge=1, le=1000)
    """Most passes of the fine network over an image in prediction."""
    stop_dice: float = Field(default=0.99, gt=0, le=1)
    """Dice of the masks before and after a pass that ends them."""
    saliency_kernels: tuple[int, int] = (3, 5)
    """Sizes of the two convolutions from probabilities to saliency."""
    scoring_factor: ClassVar[float] = 1.5
    """Cost of scoring a window, relative to networks that pass once: half of an update instead of a third, as the fine
    network passes again until slices settle. Processor time of one thread after 30 updates on slices of 56 x 40 pixels,
    an object in two of three (a throw-away script): 0.47 of an update; by the U-Net alone 0.31."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.network.dims != 2 or self.network.num_supervised != 1:
            raise ValueError(
                "network must be of 2 dimensions with num_supervised 1, got "
                f"{self.network.dims} and {self.network.num_supervised}"
            )
        if self.network.mixing is not None:
            raise ValueError("network.mixing: crops differ from slice to slice and cannot be mixed; leave it out")
        if any(size % 2 == 0 or not 1 <= size <= MAX_SIZE for size in self.saliency_kernels):
            raise ValueError(f"saliency_kernels must be odd, from 1 to {MAX_SIZE}, got {self.saliency_kernels}")
        return self

    @property
    def dims(self) -> int:
        """2 spatial axes."""
        return 2

    @property
    def divisor(self) -> Sizes:
        """Divisors of the input's size, one per axis; crops are rounded up to them."""
        return self.network.divisor

    @property
    def summary(self) -> str:
        """The settings that distinguish such networks, in a few characters for tables."""
        return f"twice {self.network.summary}"

    def build(self, in_channels: int, num_outputs: int) -> "nn.Module":
        """Make the network with fresh weights from torch's global generator.

        Raises:
            ValueError: If there is no foreground among the scores.
        """
        from seg25d.networks.rstn import RSTN  # noqa: PLC0415 - loads torch

        return RSTN(self, in_channels, num_outputs)
