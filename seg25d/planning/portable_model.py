"""A model that runs without torch: its graph, `NAME.onnx`, and what one has to know to use it, `NAME.json` beside it.

The graph is the whole lifted network: from windows (batch, C, D, H, W) in float32 to their scores (batch, K, D, H, W).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from seg25d.core.errors import ModelError, RecordError
from seg25d.core.limits import BatchSize, WindowSize
from seg25d.core.records import Record, read_record
from seg25d.core.types import Shape
from seg25d.planning.model_file import ModelHeader, load_header
from seg25d.planning.model_formats import StoredWeights
from seg25d.planning.plan import Axes, Axis, ConfigurationPlan, Share
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage

GRAPH_SUFFIX = ".onnx"
USUAL_STEP = 0.5
"""Largest step between windows as a share of the window (nnU-Net, predict_from_raw_data.py: `tile_step_size`)."""
Sizes: TypeAlias = tuple[WindowSize, WindowSize, WindowSize]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1 << 20)]


class Grid(Record):
    """The second input of a graph that takes super images of any number of slices: its grid.

    Only the shape of the input counts, (rows, columns); it is float32, zeros for instance. As many slices as the
    planned grid has places, or fewer, are in that; more are in the grid of `super_image.choose_grid`.
    """

    input: Literal["grid"] = "grid"
    """Name of the input."""
    rows: WindowSize
    columns: WindowSize
    """Of the planned grid."""
    axis: Axis
    """The slicing axis."""


class Graph(Record):
    """Input and output of a graph."""

    input: Literal["volume"] = "volume"
    """Name of the input: windows (batch, C, D, H, W) in float32."""
    output: Literal["scores"] = "scores"
    """Name of the output: scores (batch, K, D, H, W) in float32, before softmax or sigmoid."""
    channels: Count
    """C: of the image; where views are fused, their maps follow."""
    outputs: Count
    """K."""
    window: Sizes
    """The planned window (D, H, W)."""
    divisors: Sizes
    """What sizes of windows must be multiples of."""
    free_axes: Axes
    """Axes along which windows may have other sizes than `window`."""
    batch: Literal[True] = True
    """Whether there may be any number of windows."""
    grid: Grid | None
    """The second input of super images, see `PortableModel.grid_for`; None: there is only one input."""
    weights: StoredWeights
    """How weights are stored."""
    opset: Annotated[int, Field(ge=1, le=1000)]
    """Version of ONNX's operators."""

    @classmethod
    def of(cls, header: ModelHeader, free_axes: tuple[int, ...], weights: StoredWeights, opset: int) -> Self:
        """The graph of a model."""
        plan, representation = header.plan, header.plan.representation
        grid = None
        if isinstance(representation, SuperImage) and representation.axis in free_axes:
            rows, columns = representation.grid
            grid = Grid(rows=rows, columns=columns, axis=representation.axis)
        divisors = dict(zip(representation.network_axes, plan.network.divisor, strict=True))
        return cls(
            channels=representation.input_channels(len(header.description.channel_names)),
            outputs=header.num_outputs,
            window=plan.window,
            divisors=(divisors.get(0, 1), divisors.get(1, 1), divisors.get(2, 1)),
            free_axes=free_axes,
            grid=grid,
            weights=weights,
            opset=opset,
        )


class Regular(Record):
    """Windows at multiples of a step along one axis, see `RegularSteps`."""

    axis: Axis
    step: WindowSize
    flush: bool


class Windows(Record):
    """What the sliding window needs to know, for readers that do not know our representations; the plan says it too."""

    mirror_axes: Axes
    """Axes along which windows are mirrored; scores are averaged over all combinations."""
    step_size: tuple[Share, Share, Share]
    """Largest steps between windows as shares of the planned window."""
    free_axis: Axis | None
    """The axis along which windows may be as deep as the volume, as slices do not see each other; None: there is none.
    Along it the step is at least 1 - 2 `context` / the number of slices of the window that is used."""
    context: Annotated[int, Field(ge=0)]
    """Neighbours per side of a slice along `free_axis`; 0 where that is None."""
    regular: Regular | None
    """Windows at regular places along one axis; None: spread evenly along all axes."""
    padded_with_lowest: bool
    """Whether volumes are padded with the lowest value of each channel instead of 0."""
    repeated_axis: Axis | None = None
    """The axis along which volumes that are shorter than the window are padded with their end slices, where slices are
    mixed; along the others as ever. None, which is not written, as in records of earlier versions: there is none."""
    batch_size: BatchSize
    """Windows at a time, of the planned size."""

    @classmethod
    def of(cls, plan: ConfigurationPlan, batch_size: int) -> Self:
        """The windows of a plan."""
        representation = plan.representation
        regular = representation.regular_steps
        return cls(
            mirror_axes=plan.mirror_axes,
            step_size=plan.step_sizes(plan.window, USUAL_STEP),
            # Mixed slices see each other as far as the window goes: its depth is that of training.
            free_axis=representation.free_axis if plan.mixing is None else None,
            context=representation.context if isinstance(representation, Slices) and plan.mixing is None else 0,
            regular=None if regular is None else Regular(axis=regular.axis, step=regular.step, flush=regular.flush),
            padded_with_lowest=representation.padded_with_lowest,
            repeated_axis=plan.repeated_axis,
            batch_size=batch_size,
        )

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {key: value for key, value in values.items() if key != "repeated_axis" or value is not None}


class PortableModel(Record):
    """Everything about a model except its graph."""

    schema_version: Literal[1] = 1
    header: ModelHeader
    graph: Graph
    windows: Windows
    num_parameters: Annotated[int, Field(ge=0)]
    """Weights of the network, without the statistics of its norms."""
    window_bytes: Annotated[int, Field(ge=0)]
    """Memory that a window of the planned size takes, weights included: of torch's way, at the export."""

    def grid_for(self, window: Shape) -> tuple[int, int] | None:
        """The shape of the second input for windows of a size (D, H, W); None: there is none."""
        representation = self.header.plan.representation
        if self.graph.grid is None or not isinstance(representation, SuperImage):
            return None
        return representation.grid_for(window)

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        """Check that what is told twice is the same."""
        graph = Graph.of(self.header, self.graph.free_axes, self.graph.weights, self.graph.opset)
        windows = Windows.of(self.header.plan, self.windows.batch_size)
        for name, told, planned in (("graph", self.graph, graph), ("windows", self.windows, windows)):
            if told != planned:
                wrong = [field for field, value in planned if getattr(told, field) != value]
                raise ValueError(f"{name}.{wrong[0]} is not what header.plan says; export the model again")
        return self


def read_portable(path: Path) -> PortableModel:
    """Read what is known about a graph.

    Args:
        path: The graph, `NAME.onnx`.

    Raises:
        ModelError: If the graph or the record beside it is missing, or the record is damaged; names the file.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; expected a graph ({GRAPH_SUFFIX})")
    try:
        model = read_record(path.with_suffix(".json"), PortableModel)
    except RecordError as error:
        raise ModelError(f"{error}\n{path} cannot be used without it; get the models again") from None
    return model


def header_of(path: Path) -> ModelHeader:
    """Read the header of a model with or without torch: of a graph, or of a model file.

    Raises:
        ModelError: If the file is missing, damaged, or not one of ours; names the file.
    """
    return read_portable(path).header if path.suffix == GRAPH_SUFFIX else load_header(path)
