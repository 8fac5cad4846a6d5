"""Weights of a graph in fewer bits: stored as float16 or int8, and made float32 again where the graph begins.

Runtimes do this once, when they load the graph, as constants are folded; all arithmetic stays float32, on any machine.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import ModelError
from seg25d.planning.model_formats import StoredWeights

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LARGEST_INT8 = 127
"""Weights are symmetric around 0: -128 is not used (onnxruntime.ai, "Quantize ONNX models", signed weights)."""
_OUTPUT_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
"""Axis of the output channels in the weights of each operator (ONNX's list of operators)."""


def store_weights(model: "ModelProto", weights: StoredWeights) -> None:
    """Store the weights of convolutions and matrix products in fewer bits; biases and norms stay as they are.

    Args:
        model: The graph, with float32 weights; changed in place.
        weights: `float16`: rounded; `int8`: multiples of a 127th of the largest weight of each output channel.

    Raises:
        ModelError: If weights are too large for float16.
    """
    if weights == "float32":
        return
    axes = _weight_axes(model)
    restored: list[NodeProto] = []
    for tensor in list(model.graph.initializer):
        if tensor.name in axes:
            restored += _restore(model, tensor, axes[tensor.name], weights)
    nodes = [*restored, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _weight_axes(model: "ModelProto") -> dict[str, int]:
    """The axis of the output channels of each weight, by its name."""
    axes = {}
    for node in model.graph.node:
        if node.op_type in _OUTPUT_AXES and len(node.input) > 1:
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            axes[node.input[1]] = 0 if transposed else _OUTPUT_AXES[node.op_type]
    return axes


def _restore(model: "ModelProto", tensor: "TensorProto", axis: int, weights: StoredWeights) -> "list[NodeProto]":
    """Replace a tensor of the graph by one of fewer bits; give the nodes that make it again, under its name."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - of the extra

    values = numpy_helper.to_array(tensor)
    if values.dtype != np.float32 or values.ndim < 2:
        return []
    name, stored = tensor.name, f"{tensor.name}.{weights}"
    if weights == "float16":
        tensor.CopyFrom(numpy_helper.from_array(_as_float16(values, name), stored))
        return [helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT)]
    whole, scale = _as_int8(values, axis)
    tensor.CopyFrom(numpy_helper.from_array(whole, stored))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    return [
        helper.make_node("Cast", [stored], [f"{name}.whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]),
    ]


def _as_float16(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise ModelError(f"expected weights up to 65504 for float16, got {largest:g} in {name}; export as float32")
    return values.astype(np.float16)


def _as_int8(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers, and the scale of each output channel, in a shape that both can be multiplied in."""
    others = tuple(other for other in range(values.ndim) if other != axis % values.ndim)
    largest = np.abs(values).max(axis=others, keepdims=True, initial=0)
    scale = np.where(largest > 0, largest / LARGEST_INT8, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale
