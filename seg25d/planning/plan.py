"""The plan: all settings of preprocessing, training and prediction that follow from the data, as JSON with reasons."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from seg25d.core.errors import RecordError
from seg25d.core.limits import MAX_CHANNELS, BatchSize, CommonShape, SpacingMm, WindowSize
from seg25d.core.names import CaseName, FileName
from seg25d.core.records import Record
from seg25d.core.types import Shape
from seg25d.networks.base import NetworkSpec
from seg25d.networks.specs.mixing import MixesSlices, Mixing
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.planning.channel_rules import store_name
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME, check_plans_name
from seg25d.representations.base import AnyRepresentation

if TYPE_CHECKING:
    from torch import nn

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Axis: TypeAlias = Annotated[int, Field(ge=0, le=2)]
PlansName: TypeAlias = Annotated[str, AfterValidator(check_plans_name)]


def _check_axes(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError(f"wanted each axis once, got {axes}")
    return axes


Axes: TypeAlias = Annotated[tuple[Axis, ...], Field(max_length=3), AfterValidator(_check_axes)]


class ProjectionCeiling(Record):
    """Best possible result of perfect views on a few training cases, only used for advice."""

    dice: dict[str, Share | None]
    """Mean per class (by its value) or region, see `case_ceilings`; None where none of the cases has it."""
    measured_for: str
    """Digest of axes, spacing and number of views."""


class ConfigurationPlan(Record):
    """One configuration: grid, window, representation, network, batch, and the reasons for them."""

    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm]
    """Of all cases; along axes of a common size the median of what the cases get."""
    common_shape: CommonShape | None = None
    """Voxels that every case is resized to; None, as in plans of earlier versions: all axes go by the spacing."""
    normalization: tuple[ChannelNormalization, ...] = Field(max_length=MAX_CHANNELS)
    store: FileName
    """Name of the folder of preprocessed arrays with this spacing, common size and normalisation."""
    window: tuple[WindowSize, WindowSize, WindowSize]
    batch_size: BatchSize
    representation: AnyRepresentation
    network: NetworkSpec
    mirror_axes: Axes
    """Axes of the volume (0 D, 1 H, 2 W) along which training and prediction may mirror."""
    estimated_memory_gb: float = Field(ge=0)
    """Peak of one training step in mixed precision, traced on fake tensors, and 0.5 GB for CUDA itself."""
    num_parameters: int = Field(ge=0)
    flops_per_update: int = Field(default=0, ge=0)
    """Floating-point operations of an update, see `MemoryUse.flops`; 0 in plans of earlier versions."""
    ceiling: ProjectionCeiling | None = None
    """Best possible result of `mip`; None for other configurations, and where it was not measured."""
    reasons: dict[str, str]
    """Reason for each decision."""

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What decides how images are resampled and normalised: plans with the same can share arrays."""
        return self.spacing_mm, self.common_shape, self.normalization

    @property
    def decisions(self) -> Self:
        """Return the part of the plan that a run depends on, without reasons and advice."""
        return self.model_copy(update={"flops_per_update": 0, "ceiling": None, "reasons": {}})

    @property
    def mixing(self) -> Mixing | None:
        """How the network mixes the slices of a window; None: not at all."""
        return self.network.mixing if isinstance(self.network, MixesSlices) else None

    @property
    def repeated_axis(self) -> int | None:
        """The axis along which windows beyond a volume repeat its end slices, as blank ones would be mixed into others.

        None, where nothing is mixed: they are padded as the representation says.
        """
        if self.mixing is None:
            return None
        (axis,) = {0, 1, 2} - set(self.representation.network_axes)
        return axis

    @property
    def scoring_share(self) -> float:
        """Cost of scoring a window, as a share of an update on it."""
        repeated = self.network.scoring_factor if isinstance(self.network, RSTNSpec) else 1.0
        return repeated * self.representation.scoring_share

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if incomplete := [each.channel for each in self.normalization if not each.is_complete]:
            raise ValueError(f"normalization of {incomplete[0]!r}: numbers of its scheme are missing or contradict")
        if self.network.dims != self.representation.network_dims:
            raise ValueError(
                f"representation {self.representation.name} needs a network of {self.representation.network_dims} "
                f"dimensions, {self.network.name} has {self.network.dims}"
            )
        if self.mixing is not None and not self.representation.mixes_slices:
            raise ValueError(
                f"network.mixing: representation {self.representation.name} does not give its network the slices of a "
                "window side by side, so that there is nothing to mix; leave it out"
            )
        seen = [self.window[axis] for axis in self.representation.network_axes]
        if any(size % divisor for size, divisor in zip(seen, self.network.divisor, strict=True)):
            padded = [-(-size // divisor) * divisor for size, divisor in zip(seen, self.network.divisor, strict=True)]
            raise ValueError(
                f"window {self.window}: the network needs sizes divisible by {self.network.divisor} along axes "
                f"{self.representation.network_axes}, got {seen}; use {padded}"
            )
        self.representation.check(self.window, self.spacing_mm)
        return self

    def step_sizes(self, window: Shape, step_size: float) -> tuple[float, float, float]:
        """Largest distance between windows when a volume is predicted, as a share of the window along (D, H, W).

        Where slices are mixed, those at the ends of a window lack neighbours, so that windows overlap along all axes.

        Args:
            window: Of the prediction.
            step_size: What the user asked for.
        """
        if self.mixing is not None:
            return (step_size, step_size, step_size)
        return self.representation.step_sizes(window, step_size)

    def build_model(self, num_channels: int, num_outputs: int) -> "nn.Module":
        """Make the model with fresh weights from torch's global generator.

        Args:
            num_channels: Image channels, C.
            num_outputs: Scores per voxel, K.

        Returns:
            A module from volumes (B, C, D, H, W) to scores (B, K, D, H, W), see `Representation.lift`.
        """
        channels = self.representation.network_channels(num_channels)
        network = self.network.build(channels, self.representation.network_outputs(num_outputs))
        return self.representation.lift(network)


class Unreadable(NamedTuple):
    """A configuration that this version cannot read: of an unknown method or network, or edited wrongly."""

    value: Any
    """Content of the file, plain JSON values."""
    reason: str
    """File, place and error."""


LEFT_OUT = "left_out"
"""Key of the reason why configurations are not planned for images of one slice."""


class Plans(Record):
    """The plan of a data set: all its configurations."""

    schema_version: Literal[1] = 1
    dataset_name: CaseName
    plans_name: PlansName = DEFAULT_PLANS_NAME
    recipe: FileName = "default"
    gpu_memory_gb: float = Field(gt=0)
    cpu_gflops: float = Field(default=0, ge=0)
    """Speed of the CPUs that the plans are made for, see `Limits.cpu_gflops`; 0: updates may cost anything."""
    time_budget_s: float = Field(default=0, ge=0)
    """Seconds of each training that the plans are made for; 0, which is not written, as in plans of earlier versions:
    any time."""
    planned_from: str = ""
    """Digest of the fingerprint, channels and labels that the plans were made from."""
    slice_axis: int = Field(ge=0, le=2)
    """The axis along which `2d` slices: one with a single voxel, else the one with the coarsest spacing."""
    reasons: dict[str, str]
    """Reason for each decision about the whole data set."""
    configurations: dict[FileName, ConfigurationPlan]
    _unreadable: dict[str, Unreadable] = PrivateAttr(default_factory=dict)

    def run_name(self, configuration: str) -> str:
        """Name of the folder of a run: that of the configuration, with all that differs from the defaults."""
        additions = [self.recipe] if self.recipe != "default" else []
        additions += [self.plans_name] if self.plans_name != DEFAULT_PLANS_NAME else []
        return "__".join([configuration, *additions])

    def with_plan(self, name: str, plan: ConfigurationPlan) -> Self:
        """Return the plans with one configuration added or replaced."""
        return self.model_copy(update={"configurations": {**self.configurations, name: plan}})

    @model_serializer(mode="wrap")
    def _without_any_time(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        return values if self.time_budget_s else {key: values[key] for key in values if key != "time_budget_s"}

    @model_validator(mode="after")
    def _check_stores(self) -> Self:
        """Check that arrays of another spacing, size or normalisation are not mistaken for those of the plan."""
        problems = []
        for name, plan in self.configurations.items():
            wanted = store_name(plan.spacing_mm, plan.normalization, plan.common_shape)
            if plan.store != wanted:
                problems.append(
                    f"configurations.{name}.store is {plan.store!r}, but spacing_mm, common_shape and normalization "
                    f"belong to {wanted!r}; write this name and run plan_and_preprocess, which makes these arrays"
                )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """Configurations of the file that are left out, see `read_plans`."""
        return self._unreadable

    def with_unreadable(self, unreadable: dict[str, Unreadable]) -> Self:
        """Return the plans, with the unreadable configurations of their file."""
        copy = self.model_copy()
        copy._unreadable = unreadable
        return copy

    def check_readable(self, names: Iterable[str]) -> None:
        """Check that configurations, if the file has them, could be read.

        Args:
            names: Own names of configurations, with their networks.

        Raises:
            RecordError: If one could not; the message says why, and what to do.
        """
        for name in names:
            if name in self._unreadable:
                raise RecordError(
                    f"{self._unreadable[name].reason}\nCorrect it, or delete configurations.{name} and run "
                    "plan_and_preprocess, which plans it again"
                )
