"""Fusion of the predictions of slice-wise models along several axes by a 3D network (Xia et al. 2018).

Letters: B batch, C image channels, V views, M maps per view (foreground classes, or regions), K scores, D H W volume.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from seg25d.core.grids import ANISOTROPY, AXIS_NAMES, alike_axes
from seg25d.core.limits import NumChannels
from seg25d.core.names import FileName
from seg25d.core.types import Shape
from seg25d.representations import ANATOMICAL
from seg25d.representations.base import (
    ConfigurationRules,
    Representation,
    VolumeGeometry,
)

if TYPE_CHECKING:
    from torch import nn

EDGE, SMALLEST_EDGE, EDGE_STEP = 64, 16, 8
"""Edge of the windows in voxels (methods.md 4.3), the smallest edge that is tried, and the step between edges."""
ROI_MARGIN = 32
"""Voxels around the object on each side within which views are fused (methods.md 4.3)."""


class FusedViews(Representation):
    """The image and the probabilities of the views as channels of one volume: (B, C + V M, D, H, W)."""

    network_dims: ClassVar[int] = 3
    needs_third_dimension: ClassVar[bool] = True
    default_network: ClassVar[str] = "fusion_net"
    fuses_views: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ANATOMICAL
    mirrored: ClassVar[bool] = False
    """Windows are rotated like cubes instead; the paper has no reflections (methods.md 4.3)."""
    name: Literal["fused_views"] = "fused_views"
    views: tuple[FileName, ...] = Field(default=ANATOMICAL, min_length=1, max_length=16)
    """Configurations whose probabilities are fused, in the order of their channels."""
    maps_per_view: NumChannels
    """Foreground classes, or regions."""
    regions: bool = False
    """Whether the maps are regions, which may overlap, instead of classes, which exclude each other."""
    image: bool = True
    """Whether the network also sees the image; false is the paper's ablation."""
    from_mean: bool = True
    """Whether scores are the logarithm of the views' mean probability plus what the network adds to it (ours), instead
    of the network's alone (the paper's)."""

    @property
    def summary(self) -> str:
        """How many views."""
        return f"{len(self.views)} views fused"

    @property
    def network_axes(self) -> tuple[int, ...]:
        """All three."""
        return (0, 1, 2)

    @property
    def num_maps(self) -> int:
        """Number of channels that come from the views."""
        return len(self.views) * self.maps_per_view

    def input_channels(self, num_channels: int) -> int:
        """The image's channels and those of the views."""
        return num_channels + self.num_maps

    def network_channels(self, num_channels: int) -> int:
        """All channels, or only those of the views if the network does not see the image."""
        return self.num_maps + (num_channels if self.image else 0)

    def lift(self, network: "nn.Module") -> "nn.Module":
        """The network on all channels or on those of the views; with `from_mean`, added to the views' mean."""
        from seg25d.representations.lifted.fused_views import LiftedFusion  # noqa: PLC0415 - loads torch

        return network if self.image and not self.from_mean else LiftedFusion(network, self)

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, **_: int) -> Iterator[tuple[Self, Shape]]:
        """Cubes of 64 voxels, then smaller ones; no larger than the volume, and of equal size along alike axes."""
        maps = geometry.num_outputs if geometry.has_regions else geometry.num_outputs - 1
        representation = cls(maps_per_view=maps, regions=geometry.has_regions)
        groups = alike_axes(geometry.spacing_mm)
        longest = [
            max(size for size, other in zip(geometry.shape, groups, strict=True) if other == group) for group in groups
        ]
        for edge in range(EDGE, SMALLEST_EDGE - 1, -EDGE_STEP):
            depth, height, width = (min(edge, -(-size // EDGE_STEP) * EDGE_STEP) for size in longest)
            yield representation, (depth, height, width)

    @classmethod
    def of(cls, representation: Representation) -> Self:
        """Narrow the type of a representation whose `fuses_views` is true."""
        assert isinstance(representation, cls), "the caller has looked"
        return representation

    def network_settings(self, network: str) -> dict[str, Any]:
        """Instance norm, as small batches do not suit the paper's batch norm, and first scores of 0."""
        return {"norm": "instance", "zero_scores": True} if self.from_mean and network == "fusion_net" else {}

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Channels, and the first scores."""
        del geometry, rules
        start = (
            "scores begin as the mean of the views, and the network learns what to add"
            if self.from_mean
            else "scores are the network's alone, as in Xia et al. 2018"
        )
        return (
            f"the image and the probabilities of {', '.join(self.views)} ({self.maps_per_view} each) as channels, "
            f"within the box of what they find and {ROI_MARGIN} voxels around (Xia et al. 2018); {start}"
        )

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Views beside the image."""
        del geometry, rules
        return (
            f"what 2D models of {', '.join(self.views)} find, beside the image, through a small 3D network that fuses "
            "it, as each view sees what others miss"
        )

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """Cubes may be larger than the volumes, and views coarse."""
        told = super().caution(window, geometry)
        cautions = [told] if told else []
        if max(geometry.spacing_mm) > ANISOTROPY * min(geometry.spacing_mm):
            cautions.append(
                f"voxels of {' x '.join(f'{step:.4g}' for step in geometry.spacing_mm)} mm give all but one of its "
                "views oblong pixels, which show shapes coarsely"
            )
        larger = [name for name, size, full in zip(AXIS_NAMES, window, geometry.shape, strict=True) if size > full]
        if larger:
            cautions.append(
                f"its cubes of {' x '.join(map(str, window))} voxels are larger than the median volume "
                f"({' x '.join(map(str, geometry.shape))}) along {', '.join(larger)}: what lies outside is empty"
            )
        return "; ".join(cautions) or None

    def window_reason(self, window: Shape, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Cubes, but no larger than needed."""
        del geometry, rules
        if min(window) >= EDGE:
            return f"cubes of {EDGE} voxels (Xia et al. 2018) fit"
        return (
            f"cubes of {EDGE} voxels (Xia et al. 2018), no longer than the volume along the longest of axes with like "
            f"spacing, rounded up to multiples of {EDGE_STEP}, fit"
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """An instance that returns its input with an identity network."""
        return [cls(maps_per_view=1, from_mean=False)]
