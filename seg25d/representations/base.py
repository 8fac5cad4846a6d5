"""The base class of representations, which make a 2D (or 3D) network a function of volumes.

Letters: B batch, C channels, K scores per voxel, D H W volume, h w image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.grids import AXIS_NAMES, slicing_axis
from seg25d.core.limits import CommonShape
from seg25d.core.records import ByName, Record
from seg25d.core.registry import Registry
from seg25d.core.types import Shape, Spacing
from seg25d.representations import ALIAS, ANATOMICAL, PLACES

if TYPE_CHECKING:
    from torch import Tensor, nn

NetworkOutput: TypeAlias = "Tensor | list[tuple[Tensor, float]]"
CeilingMeter: TypeAlias = Callable[[NDArray[np.uint8], Mapping[str, Sequence[int]]], dict[str, float]]
"""From internal labels (D, H, W) at the spacing of a plan, and the indices of each class (`Labels.foreground`), to the
Dice of each class that the labels have."""
FEW_SLICES = 8
"""Voxels of an axis below which no network halves it, as nnU-Net's rule keeps 4 (`planning/geometry.py`): there is
little to learn along it."""


class VolumeGeometry(Record):
    """Properties of a data set that the planner passes to a representation."""

    shape: Shape
    """Median shape (D, H, W) at the target spacing, in voxels."""
    spacing_mm: Spacing
    """Target spacing (D, H, W)."""
    enough_voxels: int | None = None
    """Number of voxels beyond which a larger window only makes updates rarer; windows that lose nothing by being
    smaller stay below it."""
    num_outputs: int = 2
    """Required number of scores per voxel, K."""
    has_regions: bool = False
    """Whether all scores are regions (sigmoid); otherwise the first is the background's (softmax)."""
    common_shape: CommonShape | None = None
    """What a recipe resizes every case to; None: nothing, all axes go by the spacing."""
    sliced_along: int | None = None
    """Slicing axis that a recipe fixes; None: it follows from shape and spacing."""
    least_slices: int = 1
    """Slices that a window has at least, if there are so many: more than one where networks mix slices."""

    @property
    def slice_axis(self) -> int:
        """The slicing axis: the recipe's, else one with a single voxel, else the one with the coarsest spacing."""
        if self.sliced_along is not None:
            return self.sliced_along
        return self.shape.index(1) if 1 in self.shape else slicing_axis(self.spacing_mm)

    @property
    def thin_axis(self) -> int | None:
        """The axis with the fewest voxels, if these are fewer than `FEW_SLICES`; None if all have more."""
        fewest = min(self.shape)
        return self.shape.index(fewest) if fewest < FEW_SLICES else None

    def at_most(self, axis: int, num_slices: int | None) -> Self:
        """Return the geometry with at most `num_slices` slices along an axis; None leaves it unchanged."""
        if num_slices is None:
            return self
        sizes: list[int] = list(self.shape)
        sizes[axis] = min(sizes[axis], num_slices)
        return self.model_copy(update={"shape": tuple(sizes)})


class ConfigurationRules(Record):
    """Settings of one configuration that a recipe fixes; None leaves a setting to the planner."""

    network: str | None = None
    """Name of the network; None: the representation's default."""
    batch_size: int | None = Field(default=None, ge=1)
    """Windows per batch."""
    context: int | None = Field(default=None, ge=0)
    """Neighbours per side of a slice."""
    num_slices: int | None = Field(default=None, ge=1)
    """Maximum number of slices of a slice-wise window; number of slices of a stack."""
    settings: dict[str, str | bool | int | tuple[int, int]] = Field(default_factory=dict)
    """Fields of the representation, see `Representation.with_settings`."""


class RegularSteps(NamedTuple):
    """Windows that start at whole multiples of a step along one axis, from the first voxel of a volume on.

    The last one may reach beyond the end; where windows overlap, their scores are averaged with equal weights.
    """

    axis: int
    """0 D, 1 H, 2 W."""
    training_step: int
    """Voxels between windows that are trained on."""
    step: int
    """Voxels between windows when a volume is predicted."""
    flush: bool = False
    """Whether the last of several windows ends with the volume when it is predicted."""


class Representation(Record):
    """A frozen record whose fields are what the plan stores.

    Laws, which the tests check for every entry of the registry: with an identity-like network, lifting and undoing
    gives the input back; every voxel gets scores; gradients reach every parameter; a batch of n equals n batches of 1.
    """

    name: str
    """Name of the representation in plans, a literal in each class."""
    network_dims: ClassVar[int]
    default_network: ClassVar[str] = "unet"
    """The network that is planned by default."""
    deep_supervision: ClassVar[bool] = True
    """Whether the planned network gives scores at several scales while training."""
    mirrored: ClassVar[bool] = True
    """Whether windows may be mirrored, where labels and recipe allow it."""
    small_windows: ClassVar[float | None] = None
    """Share of a run in which parts of windows are trained on where that helps (see
    `training/small_windows.py`); None where windows cannot be cut to any size that the network takes."""
    padded_with_lowest: ClassVar[bool] = False
    """Whether windows are padded with the lowest value of each channel instead of 0."""
    fuses_views: ClassVar[bool] = False
    """Whether the input includes the probabilities of other models beside the image, see `FusedViews`."""
    can_be_fine: ClassVar[bool] = False
    """Whether a fine model can be trained on crops around the object that another model found (`fine`)."""
    mixes_slices: ClassVar[bool] = False
    """Whether it tells networks where the slices of a window are, so that they can mix them (networks/mixing.py)."""
    keeps_scores: ClassVar[bool] = False
    """Whether scores of volumes are those of the network, in another arrangement at most."""
    needs_third_dimension: ClassVar[bool] = False
    """Whether it has nothing to offer for volumes of a single slice."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Configurations that are planned with it because their predictions are its input."""
    ceiling_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that decide how much lifting and undoing alone lose, see `ceiling_meter`; empty: they lose nothing."""
    network_note: ClassVar[str] = ""
    """Note that `--explain` adds to the choice of the network's stages."""

    @property
    def summary(self) -> str:
        """Name for tables, in a few characters."""
        return self.name.replace("_", " ")

    @property
    def cost_factor(self) -> float:
        """Activations per voxel, relative to other instances of the class, for the planner's search; 1: all alike."""
        return 1.0

    @property
    def scoring_share(self) -> float:
        """Cost of scoring a window by a network that passes once, as a share of an update; usually a pass of three."""
        return 1 / 3

    @property
    def network_axes(self) -> tuple[int, ...]:
        """The axes of the window (0 D, 1 H, 2 W) whose extent the network sees unchanged, in the network's order."""
        raise NotImplementedError

    @property
    def free_axis(self) -> int | None:
        """The axis along which the extent of a window makes no difference to a slice; None if there is none."""
        return None

    @property
    def piece_axes(self) -> tuple[int, ...] | None:
        """The axes along which pretraining cuts pieces; None where the network does not see the image itself."""
        return None

    @property
    def stacking_axis(self) -> int | None:
        """The axis along which the network sees several slices at once; None if it sees single ones, or no slices."""
        return None

    @property
    def resizable_axes(self) -> tuple[int, ...]:
        """The axes along which a graph without torch takes windows of other sizes than the planned one."""
        return (0, 1, 2)

    @property
    def regular_steps(self) -> RegularSteps | None:
        """Regular positions of the windows along one axis; None if windows can be anywhere."""
        return None

    def input_channels(self, num_channels: int) -> int:
        """Channels of the volumes that the lifted module takes, for images with `num_channels` channels."""
        return num_channels

    def network_channels(self, num_channels: int) -> int:
        """Channels that the network gets from a volume with `num_channels` channels."""
        return num_channels

    def network_outputs(self, num_outputs: int) -> int:
        """Scores per pixel that the network must give for `num_outputs` scores per voxel of the volume."""
        return num_outputs

    def check(self, window: Shape, spacing_mm: Spacing) -> None:
        """Check that the record fits a plan's window and spacing.

        Raises:
            ValueError: If it does not; the message says what would fit.
        """
        del window, spacing_mm

    def refit(self, window: Shape) -> Self:
        """Return the representation for another window, with the fields that depend on the window adapted."""
        del window
        return self

    def with_settings(self, settings: Mapping[str, Any], window: Shape) -> Self:
        """Return the representation with the fields that a recipe fixes, as far as they suit a window."""
        del window
        return type(self).model_validate(self.model_dump() | dict(settings))

    def step_sizes(self, window: Shape, step_size: float) -> tuple[float, float, float]:
        """Largest distance between windows when a volume is predicted, as a share of the window along (D, H, W).

        Args:
            window: Of the plan.
            step_size: What the user asked for.
        """
        del window
        return (step_size, step_size, step_size)

    def network_settings(self, network: str) -> dict[str, Any]:
        """Settings for a network of this name, where the planner chooses them; empty: the network's own rule."""
        del network
        return {}

    def needed_voxels(self, geometry: VolumeGeometry) -> float:
        """Voxels up to which a method that is to see all of a volume needs its windows to grow."""
        del geometry
        return 0

    def map_images(self, window: "Tensor", change: "Callable[[Tensor], Tensor]") -> "Tensor":
        """Change a window image by image, as the network sees them.

        Args:
            window: (C, D, H, W).
            change: From and to (C, h, w), or (C, D, H, W) where the network sees the window as a whole.
        """
        others = [axis for axis in range(3) if axis not in (self.piece_axes or ())]
        if not others:
            return change(window)
        from torch import stack  # noqa: PLC0415 - heavy

        # Each slice by itself, as the network sees one at a time.
        (along,) = others
        return stack([change(each) for each in window.unbind(1 + along)], 1 + along)

    def lift(self, network: "nn.Module") -> "nn.Module":
        """Make a network of images a module of volumes.

        Returns:
            A module from (B, C, D, H, W) to scores (B, K, D, H, W) in eval mode; in training mode to a list of
            (scores, weight), where coarser scores (deep supervision) may be smaller than the window.
        """
        raise NotImplementedError

    @classmethod
    def suits_single_slices(cls, configuration: str, axis: int) -> bool:
        """Whether a configuration is of use for images that have one slice.

        Args:
            configuration: Its name, without a network.
            axis: The axis along which all images have one voxel.
        """
        del configuration, axis
        return not cls.needs_third_dimension

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, **options: int) -> Iterator[tuple[Self, Shape]]:
        """Representations with their windows, from the best to the cheapest."""
        raise NotImplementedError

    @classmethod
    def from_rules(
        cls, configuration: str, geometry: VolumeGeometry, rules: ConfigurationRules
    ) -> Iterator[tuple[Self, Shape]]:
        """The candidates for a configuration, with the settings that a recipe fixes.

        Args:
            configuration: Its name, without a network.
            geometry: Of the data set.
            rules: Of the recipe; the search handles `network`, `batch_size` and `settings`.
        """
        del configuration, rules
        return cls.candidates(geometry)

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Explain the choice of the representation's fields, for `--explain`.

        Args:
            geometry: Of the data set.
            rules: Settings that the recipe fixes.
        """
        raise NotImplementedError

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Describe in one clause what the network sees and why, for the first lines of `--explain`.

        Args:
            geometry: Of the data set.
            rules: What the recipe fixes.
        """
        return self.reason(geometry, rules)

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """Describe what speaks against the method on such volumes, or in such windows; None: nothing.

        Args:
            window: Of the plan.
            geometry: Of the data set.
        """
        del window
        thin = geometry.thin_axis
        if not self.needs_third_dimension or thin is None:
            return None
        # Not always `2d`, which goes by the spacing.
        flat = f"{ALIAS} ({ANATOMICAL[thin]})" if thin == geometry.slice_axis else ANATOMICAL[thin]
        if geometry.shape[thin] == 1:
            return f"the volumes have a single slice and no third dimension, which this method is for; take {flat}"
        return (
            f"the volumes have only {geometry.shape[thin]} slices along {AXIS_NAMES[thin]}, little of a third "
            f"dimension, which this method is for; compare it with {flat}"
        )

    def window_reason(self, window: Shape, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Explain the window where the first candidate fits into the memory."""
        del rules
        whole = all(size >= full for size, full in zip(window, geometry.shape, strict=True))
        return "the whole median volume fits" if whole else "the best of its windows fits"

    def window_warning(self, window: Shape) -> str | None:
        """Warning about a window that the user chose, shown with a new ceiling; None: the window is fine."""
        del window
        return None

    def ceiling_meter(self) -> CeilingMeter:
        """A function that measures the best Dice that lifting and undoing allow, if `ceiling_fields` are not empty.

        It is called in workers: it has to be picklable, and should load no torch.
        """
        raise NotImplementedError

    @classmethod
    def ceiling_reason(cls, dice: Mapping[str, float | None] | None, caution: str | None = None) -> str:
        """Explain the ceiling to the user, for `--explain`.

        Args:
            dice: Means over cases, by the names that users know; None for what no case has. None: not measured.
            caution: What speaks against the method whatever the ceiling, see `caution`.
        """
        raise NotImplementedError

    @classmethod
    def examples(cls) -> list[Self]:
        """Instances on which the tests check the laws."""
        raise NotImplementedError


CONFIGURATIONS: Registry[type[Representation]] = Registry(PLACES)
"""The representation of each configuration by name; several may have the same."""


def representations() -> dict[str, type[Representation]]:
    """Representations by the name that plans have for them."""
    return {each.model_fields["name"].default: each for each in CONFIGURATIONS.values()}


AnyRepresentation: TypeAlias = Annotated[Representation, ByName("representation", representations)]
"""Any representation, as a field of a record; its `name` says which."""


def map_scores(output: NetworkOutput, undo: "Callable[[Tensor], Tensor]") -> NetworkOutput:
    """Apply `undo` to every score map of a network's output."""
    if isinstance(output, list):
        return [(undo(scores), weight) for scores, weight in output]
    return undo(output)


def shrink(size: int, step: int, steps: int, smallest: int) -> int:
    """Shorten `size` by `step` of `steps` equal parts, never below `smallest` (or `size`, if that is smaller)."""
    return max(min(size, smallest), round(size * (steps - step) / steps))
