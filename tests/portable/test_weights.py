"""Weights of graphs in fewer bits, by hand."""

import numpy as np
import pytest

from seg25d.core.errors import ModelError
from seg25d.portable.weights import store_weights

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'seg25d[onnx]'")


def make_graph(kind: str, weight: np.ndarray, inputs: tuple[int, ...]) -> "onnx.ModelProto":
    node = onnx.helper.make_node(kind, ["x", "w"], ["y"])
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(weight, "w")]
    graph = onnx.helper.make_graph([node], "graph", [given], [result], weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def stored(model: "onnx.ModelProto") -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


def restored(model: "onnx.ModelProto") -> np.ndarray:
    """The weight that the node gets, computed by ONNX's own reference."""
    reference = pytest.importorskip("onnx.reference")
    weight = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, None)
    del model.graph.output[:]
    model.graph.output.append(weight)
    del model.graph.node[-1]
    del model.graph.input[:]
    return reference.ReferenceEvaluator(model).run(None, {})[0]


def test_float32_stays_as_it_is():
    model = make_graph("Conv", np.ones((2, 1, 1, 1), np.float32), (1, 1, 2, 2))
    before = model.SerializeToString()
    store_weights(model, "float32")
    assert model.SerializeToString() == before


def test_float16_is_rounded_and_made_float32_again():
    weight = np.array([[[[1.0]]], [[[1 + 2**-12]]]], np.float32)
    model = make_graph("Conv", weight, (1, 1, 2, 2))
    store_weights(model, "float16")
    assert stored(model)["w.float16"].dtype == np.float16
    assert [node.op_type for node in model.graph.node] == ["Cast", "Conv"]
    assert restored(model).dtype == np.float32
    model = make_graph("Conv", weight, (1, 1, 2, 2))
    store_weights(model, "float16")
    assert restored(model).ravel().tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("kind", "axis"), [("Conv", 0), ("ConvTranspose", 1), ("MatMul", 1)])
def test_int8_has_a_scale_for_each_output_channel(kind, axis):
    """The largest weight of a channel is 127 steps: here 1.27 and 127, so that steps are 0.01 and 1; 0 has step 1."""
    weight = np.array([[1.27, -0.014], [127.0, 3.6], [0.0, 0.0]], np.float32)
    weight = weight if axis == 0 else weight.T.copy()
    if kind != "MatMul":
        weight = weight[:, :, None, None]
    model = make_graph(kind, weight, (1, weight.shape[1] if axis == 0 else weight.shape[0], 2, 2)[: weight.ndim])
    store_weights(model, "int8")
    found = stored(model)
    whole = found["w.int8"].reshape(weight.shape[:2])
    assert whole.dtype == np.int8
    assert (whole if axis == 0 else whole.T).tolist() == [[127, -1], [127, 4], [0, 0]]
    np.testing.assert_allclose(found["w.scale"].ravel(), [0.01, 1, 1], rtol=1e-6)
    result = restored(model).reshape(weight.shape[:2])
    wanted = np.array([[1.27, -0.01], [127, 4], [0, 0]])
    np.testing.assert_allclose(result if axis == 0 else result.T, wanted, rtol=1e-6)


def test_weights_too_large_for_float16_are_refused():
    model = make_graph("Conv", np.full((1, 1, 1, 1), 1e5, np.float32), (1, 1, 2, 2))
    with pytest.raises(ModelError, match="expected weights up to 65504 for float16, got 100000 in w"):
        store_weights(model, "float16")
