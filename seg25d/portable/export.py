"""A trained model as a graph in the format ONNX, which runs without torch.

Letters: B windows in a batch, C channels, K scores per voxel, D H W window.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seg25d.core.errors import InputError, ModelError
from seg25d.core.files import atomic_path
from seg25d.core.records import write_record
from seg25d.core.types import Shape
from seg25d.inference.windows import default_batch_size
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.planning.memory import prediction_memory
from seg25d.planning.model_file import ModelHeader, load_model
from seg25d.planning.model_formats import StoredWeights
from seg25d.planning.model_size import check_weights
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.portable_model import Graph, PortableModel, Windows
from seg25d.portable.weights import store_weights

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `onnx` brings."""
OPSET = 20
"""Version of the operators: torch's default, which onnxruntime and onnxruntime-web have."""
TOLERANCE = 1e-3
"""Largest difference of scores to torch's, as a share of the largest score: sums in another order give 5e-5."""
FOLDED = 1 << 13
"""Numbers of a result up to which it is written instead of its computation, as onnxscript has it for operands; tables
of a geometry have millions."""
_EXAMPLE_BATCH = 2
"""Windows of the example that is traced: as few as no axis of it has voxels."""
_EXAMPLE_GRID = (6, 7)
"""Its rows and columns."""


def check_packages() -> None:
    """Check that graphs can be written.

    Raises:
        InputError: If a package is not installed.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise InputError(
            f"--format onnx needs {', '.join(missing)}, which is not installed; run `pip install 'seg25d[onnx]'`"
        )


def check_exportable(path: Path, header: ModelHeader) -> None:
    """Check that there can be a graph of a model.

    Raises:
        ModelError: If not; names the file.
    """
    if header.pretext is not None:
        raise ModelError(f"{path} is a pretrained model, which restores images and segments nothing; export a fold")
    if isinstance(header.plan.network, RSTNSpec):
        raise ModelError(
            f"{path}: rstn looks at crops that it chooses itself, again and again, which a graph of ONNX cannot; "
            "export it without --format, or another network"
        )


def export_graph(source: Path, target: Path, weights: StoredWeights) -> PortableModel:
    """Write the graph of a model file, and the record of what it is beside it.

    Args:
        source: The model file.
        target: The graph, `NAME.onnx`; the record is `NAME.json`.
        weights: How weights are stored.

    Returns:
        The record.

    Raises:
        ModelError: If the model cannot be used, has no graph, or the graph gives other scores than torch.
    """
    header, state = load_model(source)
    check_exportable(source, header)
    check_weights(source, header, state)
    model = header.build_model()
    model.load_state_dict(state)
    model.eval()
    graph = Graph.of(header, free_axes(header.plan), weights, OPSET)
    record = PortableModel(
        header=header,
        graph=graph,
        windows=Windows.of(header.plan, default_batch_size(header)),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        window_bytes=prediction_memory(header.build_model, (1, graph.channels, *graph.window)),
    )
    proto = trace(model, graph)
    largest = max(_difference_of_noise(proto, model, record, size) for size in _sizes(record.graph))
    if not largest <= TOLERANCE:  # also if it is no number
        raise ModelError(
            f"{source}: expected the graph to give torch's scores to {TOLERANCE:g} of the largest, got {largest:.2g}; "
            "report this with the plan of the model, and export it without --format"
        )
    if weights != "float32":
        store_weights(proto, weights)
        share = _difference_of_noise(proto, model, record, record.graph.window)
        logger.info("%s: with weights in %s, scores of noise differ by %.2g of the largest", source, weights, share)
    with atomic_path(target) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    write_record(target.with_suffix(".json"), record)
    return record


def free_axes(plan: ConfigurationPlan) -> tuple[int, ...]:
    """The axes (0 D, 1 H, 2 W) along which windows of a graph may have other sizes than the planned one."""
    representation = plan.representation
    if isinstance(plan.network, SwinUNETRSpec):  # its attention is between parts of images of one size
        return () if representation.free_axis is None else (representation.free_axis,)
    return representation.resizable_axes


def trace(model: nn.Module, graph: Graph) -> "ModelProto":
    """Trace a lifted network.

    Args:
        model: From (B, C, D, H, W) to scores (B, K, D, H, W), in eval mode, on the CPU.
        graph: What goes in and out.

    Returns:
        The graph with float32 weights, without what says where and how it was made.
    """
    from onnxscript import optimizer  # noqa: PLC0415 - of the extra

    shapes = [{0: torch.export.Dim("batch")}]
    for axis, (name, divisor) in enumerate(zip(("depth", "height", "width"), graph.divisors, strict=True)):
        if axis in graph.free_axes:
            shapes[0][2 + axis] = torch.export.Dim(name) if divisor == 1 else divisor * torch.export.Dim(name)
    examples: list[Tensor] = [torch.zeros(_EXAMPLE_BATCH, graph.channels, *_sizes(graph)[1])]
    names: list[str] = [graph.input]
    if graph.grid is not None:
        examples.append(torch.zeros(_EXAMPLE_GRID))
        names.append(graph.grid.input)
        shapes.append({0: torch.export.Dim("rows"), 1: torch.export.Dim("columns")})
    with torch.no_grad(), _only_errors("torch.onnx"):
        # Not strict: our convolutions then see tensors without data, as on a GPU, and take torch's own way.
        program = torch.export.export(
            model,
            tuple(examples),
            dynamic_shapes=tuple(shapes),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        exported = torch.onnx.export(
            program,
            input_names=names,
            output_names=[graph.output],
            opset_version=graph.opset,
            optimize=False,
            verbose=False,
        )
    assert exported is not None, "always so with torch.export"
    optimizer.optimize(exported.model, output_size_limit=FOLDED)
    proto: ModelProto = exported.model_proto
    _forget_origin(proto)
    return proto


@contextmanager
def _only_errors(name: str) -> Iterator[None]:
    """Keep a logger from telling more than errors: what else torch lacks is of no use here."""
    other = logging.getLogger(name)
    before = other.level
    other.setLevel(logging.ERROR)
    try:
        yield
    finally:
        other.setLevel(before)


def _forget_origin(proto: "ModelProto") -> None:
    """Remove what tells of the machine: places in the source code, above all."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    proto.ClearField("doc_string")
    proto.graph.ClearField("doc_string")
    for each in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        del each.metadata_props[:]
        each.ClearField("doc_string")
    # Shapes of what lies between input and output are for readers of the graph, and take their place.
    del proto.graph.value_info[:]


def _sizes(graph: Graph) -> tuple[Shape, Shape]:
    """The planned window (D, H, W), and a small one.

    Sizes that are 1, or those of other axes, count as constants; norms of few pixels make more of differences.
    """
    depth, height, width = (
        divisor * (3 + axis) if axis in graph.free_axes else size
        for axis, (size, divisor) in enumerate(zip(graph.window, graph.divisors, strict=True))
    )
    return graph.window, (depth, height, width)


def _difference_of_noise(proto: "ModelProto", model: nn.Module, record: PortableModel, size: Shape) -> float:
    """The `difference` of scores of one window (D, H, W) of noise."""
    noise = torch.randn(1, record.graph.channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return difference(proto, noise, model(noise), record.grid_for(size))


def difference(proto: "ModelProto", images: Tensor, expected: Tensor, grid: tuple[int, int] | None = None) -> float:
    """The largest difference between a graph's scores and expected ones, as a share of the largest of these.

    Args:
        proto: The graph.
        images: (B, C, D, H, W).
        expected: (B, K, D, H, W).
        grid: See `run_graph`.
    """
    scores = run_graph(proto.SerializeToString(), images.numpy(), grid)
    wanted = expected.numpy()
    largest = float(np.abs(wanted).max())
    return float(np.abs(scores - wanted).max()) / max(largest, float(np.finfo(np.float32).tiny))


def run_graph(content: bytes, images: NDArray[np.float32], grid: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Compute scores by onnxruntime, on the CPU with as many threads as torch has.

    Args:
        content: Of the file of a graph.
        images: (B, C, D, H, W).
        grid: Shape of the second input, see `PortableModel.grid_for`.

    Returns:
        (B, K, D, H, W).
    """
    from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415 - of the extra

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = {"volume": images} | ({} if grid is None else {"grid": np.zeros(grid, np.float32)})
    scores: NDArray[np.float32] = session.run(None, given)[0]
    return scores
