"""Graphs as functions of windows, by graphs that are written down here."""

import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.errors import InputError, ModelError
from seg25d.core.execution import HostExecution
from seg25d.core.records import write_record
from seg25d.inference.graph_model import GraphModel
from seg25d.inference.model_reading import read_model
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning import model_memory
from seg25d.planning.model_memory import check_graph_memory
from seg25d.planning.portable_model import Graph, PortableModel, Windows
from seg25d.representations.slices import Slices


@pytest.fixture
def record(header) -> PortableModel:
    """Two channels in, three scores out."""
    return PortableModel(
        header=header,
        graph=Graph.of(header, (0, 1), "float32", 20),
        windows=Windows.of(header.plan, batch_size=4),
        num_parameters=3,
        window_bytes=1 << 20,
    )


def write_graph(path: Path, record: PortableModel, outputs: int = 3, name: str = "volume") -> Path:
    """A graph whose scores are sums over the channels, times 0, 1, 2 ...; and the record beside it."""
    onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'seg25d[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs ONNX: pip install 'seg25d[onnx]'")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    sizes = ["batch", "channels", "depth", "height", "width"]
    weights = np.arange(outputs, dtype=np.float32).reshape(1, outputs, 1, 1, 1)
    constants = [onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")]
    constants.append(onnx.numpy_helper.from_array(weights, "weights"))
    nodes = [
        helper.make_node("ReduceSum", [name, "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "weights"], ["scores"]),
    ]
    places = [helper.make_tensor_value_info(each, kind, sizes) for each in (name, "scores")]
    graph = helper.make_graph(nodes, "sums", places[:1], places[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    write_record(path.with_suffix(".json"), record)
    return path


def test_windows_of_any_number_and_layout_get_their_scores(record, tmp_path):
    header, model = read_model(write_graph(tmp_path / "a.onnx", record), [], fuses_views=False, on_cpu=True)
    assert header == record.header
    assert model.free_axes == {0, 1}
    assert Predictor([model, model], header, HostExecution()).num_parameters == 6
    images = np.random.default_rng(0).normal(size=(2, 2, 4, 6, 5)).astype(np.float32)
    for given in (images, images[:1], images[:, :, ::-1], images.transpose(0, 1, 4, 2, 3)):
        scores = model(given)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, given.sum(1, keepdims=True) * np.arange(3).reshape(3, 1, 1, 1), rtol=1e-5)


class Counted:
    """A session that notes how many slices along an axis it gets."""

    def __init__(self, session, axis: int) -> None:
        self.session, self.axis = session, axis
        self.depths: list[int] = []

    def run(self, outputs, inputs):
        self.depths.append(inputs["volume"].shape[2 + self.axis])
        return self.session.run(outputs, inputs)


@pytest.fixture
def model_of_slices(header, tmp_path):
    """A function that makes a graph of slices along an axis, each of which sees one neighbour on both sides."""
    onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'seg25d[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs ONNX: pip install 'seg25d[onnx]'")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def make(axis: int) -> GraphModel:
        network = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))
        change = {"representation": Slices(axis=axis, context=1), "network": network}
        changed = header.model_copy(update={"plan": header.plan.model_copy(update=change)})
        record = PortableModel(
            header=changed,
            graph=Graph.of(changed, (0, 1, 2), "float32", 20),
            windows=Windows.of(changed.plan, batch_size=4),
            num_parameters=18,
            window_bytes=1 << 20,
        )
        pads, kernel = np.zeros((2, 5), np.int64), [1, 1, 1]
        pads[:, 2 + axis], kernel[axis] = 1, 3
        weights = np.random.default_rng(axis).normal(size=(3, 2, *kernel)).astype(np.float32)
        constants = [onnx.numpy_helper.from_array(pads.reshape(-1), "pads")]
        constants.append(onnx.numpy_helper.from_array(weights, "weights"))
        nodes = [
            helper.make_node("Pad", ["volume", "pads"], ["padded"], mode="edge"),
            helper.make_node("Conv", ["padded", "weights"], ["scores"]),
        ]
        sizes = ["depth", "height", "width"]
        places = [
            helper.make_tensor_value_info(name, kind, ["batch", channels, *sizes])
            for name, channels in (("volume", 2), ("scores", 3))
        ]
        graph = helper.make_graph(nodes, "slices", places[:1], places[1:], constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = tmp_path / f"{axis}.onnx"
        path.write_bytes(proto.SerializeToString())
        model = GraphModel(path, record)
        model._session = Counted(model._session, axis)
        return model

    return make


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_in_parts_have_the_scores_of_all_at_once(model_of_slices, axis):
    """With their neighbours; parts are no smaller than a window of the planned size, which has 8 slices."""
    model, shape = model_of_slices(axis), [6, 6, 6]
    shape[axis] = 30
    images = np.random.default_rng(0).normal(size=(2, 2, *shape)).astype(np.float32)
    expected = model(images)
    assert model._session.depths == [30]
    for number, depths in ((1, [7, 8, 8, 8, 7]), (20, [11, 12, 11]), (56, [30])):
        model._session.depths.clear()
        np.testing.assert_allclose(model(images, images_at_once=number), expected, rtol=1e-5, atol=1e-6)
        assert model._session.depths == depths


def test_a_deep_window_of_slices_is_computed_in_parts(model_of_slices, monkeypatch):
    model = model_of_slices(0)
    monkeypatch.setattr("seg25d.inference.predictor.CPU_BATCH_VOXELS", 8**3)
    predictor = Predictor([model], model.record.header, HostExecution(), PredictorOptions(mirroring=False))
    image = np.random.default_rng(0).normal(size=(2, 40, 8, 8)).astype(np.float32)
    found = predictor.predict_array(image, (1.0, 1.0, 1.0))
    assert model._session.depths == [9, 10, 10, 10, 9]
    np.testing.assert_array_equal(found, model(image[None])[0].argmax(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": 2}, r"gives other scores than \(1, 3, 4, 6, 5\)"),
        ({"name": "image"}, "takes image, expected volume and the output scores, as a.json says"),
    ],
)
def test_other_graphs_than_the_record_says_are_refused(record, tmp_path, change, message):
    path = write_graph(tmp_path / "a.onnx", record, **change)
    with pytest.raises(ModelError, match=message):
        GraphModel(path, record)(np.zeros((1, 2, 4, 6, 5), np.float32))


def test_damaged_graphs_are_named(record, tmp_path):
    path = write_graph(tmp_path / "a.onnx", record)
    path.write_bytes(path.read_bytes()[:-40] + b"\xff" * 40)
    with pytest.raises(ModelError, match=r"a\.onnx is no graph that onnxruntime can compute"):
        GraphModel(path, record)


def test_graphs_read_no_other_files(record, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'seg25d[onnx]'")
    path = write_graph(tmp_path / "a.onnx", record)
    model = onnx.load_model_from_string(path.read_bytes())
    weights = next(each for each in model.graph.initializer if each.name == "weights")
    content = weights.raw_data
    for folder in (tmp_path, tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / "weights.bin").write_bytes(content)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    weights.external_data.add(key="length", value=str(len(content)))
    path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"a\.onnx is no graph that onnxruntime can compute"):
        GraphModel(path, record)


def test_without_onnxruntime_it_is_said_what_to_install(record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"a\.onnx is a graph, which onnxruntime computes"):
        GraphModel(tmp_path / "a.onnx", record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_parameters": 1 << 50}, r"a\.onnx: its network of 1,125,899,906,842,624 numbers takes .* are free"),
        ({"window_bytes": 1 << 50}, r"a\.onnx: in its network, a window of 8 x 8 x 8 voxels takes 1,048,576\.0 GB"),
    ],
)
def test_graphs_that_take_more_memory_than_is_free_are_refused_before_they_are_read(record, tmp_path, change, message):
    write_record(tmp_path / "a.json", record.model_copy(update=change))
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=f"{message}.* stop other programs, or use a machine with more memory"):
        read_model(tmp_path / "a.onnx", [], fuses_views=False, on_cpu=True)


@pytest.mark.parametrize(("free", "fits"), [(10_200, False), (10_240, True)])
def test_what_goes_in_and_out_of_a_window_counts_whatever_a_record_says(record, tmp_path, monkeypatch, free, fits):
    """Two channels and three scores of 512 voxels."""
    monkeypatch.setattr(model_memory, "available_memory_bytes", lambda: free)
    told = record.model_copy(update={"window_bytes": 0})
    with nullcontext() if fits else pytest.raises(ModelError, match="enough for about 510 voxels"):
        check_graph_memory(tmp_path / "a.onnx", told)


def test_models_of_another_kind_are_refused(record, tmp_path):
    path = write_graph(tmp_path / "a.onnx", record)
    with pytest.raises(ModelError, match="does not belong here"):
        read_model(path, [], fuses_views=True, on_cpu=True)
