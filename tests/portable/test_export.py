"""Graphs give the scores of torch, for every configuration and network, at the planned size and at others."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from seg25d.core.errors import ModelError
from seg25d.core.types import Shape
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.networks import PLACES
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.mixing import KINDS
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.planning.memory import prediction_memory
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.portable_model import Graph, PortableModel, Windows, header_of, read_portable
from seg25d.planning.pretext import PretextConfig
from seg25d.portable.export import OPSET, PACKAGES, TOLERANCE, difference, export_graph, free_axes, trace
from seg25d.portable.weights import store_weights
from seg25d.representations import PLACES as CONFIGURATIONS
from seg25d.representations.base import representations
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

for _package in PACKAGES:
    pytest.importorskip(_package, reason="needs ONNX: pip install 'seg25d[onnx]'")

MM = (1.0, 1.0, 1.0)
CHANNELS = ("MRI", "CT")
LABELS = Labels(names={"background": 0, "organ": 1, "lesion": 2})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
SQUARE = {"strides": ((1, 1), (2, 2)), "kernels": ((3, 3), (3, 3))}
SOLID = {"strides": ((1, 1, 1), (1, 2, 2)), "kernels": ((1, 3, 3), (3, 3, 3))}
UNET = UNetSpec(widths=(4, 6), **SQUARE)
MIXING_UNET = UNetSpec(widths=(8, 16), **SQUARE)
UNET_3D = UNetSpec(widths=(4, 6), **SOLID)
VNET_3D = VNetSpec(widths=(4, 6), encoder_blocks=(1, 2), decoder_blocks=(2,), **SOLID)
CASES = {
    "axial": (Slices(axis=0, context=1), UNET, (4, 12, 16)),
    "coronal": (Slices(axis=1), UNET, (8, 3, 12)),
    "sagittal": (Slices(axis=2, context=2), UNET, (8, 12, 5)),
    "si": (SuperImage(grid=(2, 3)), UNET, (5, 8, 12)),
    "si with neighbours": (SuperImage(grid=(2, 2), axis=2, context=1), UNET, (8, 12, 4)),
    "stack": (Stack(stack_size=8, overlap=5, predicted_overlap=2), VNET_3D, (8, 8, 12)),
    "stack along another axis": (Stack(stack_size=4, axis=1), UNET_3D, (5, 4, 12)),
    "mip": (Projections(axis=0, spacing_mm=MM, num_training_views=4, num_views=6, num_classes=2), UNET, (8, 10, 12)),
    "mip of means": (
        Projections(
            axis=1,
            detector_axis=0,
            spacing_mm=(1, 3, 1.5),
            num_training_views=3,
            num_views=4,
            projection="mean",
            inversion=True,
            normalization="batch",
            num_classes=2,
        ),
        UNET,
        (8, 6, 10),
    ),
    "mv": (FusedViews(maps_per_view=2), FusionNetSpec(width=2, norm="instance"), (8, 16, 8)),
    "mv of the paper": (FusedViews(maps_per_view=2, from_mean=False, image=False), FusionNetSpec(width=2), (8, 8, 16)),
    "3d": (Volume(), UNET_3D, (3, 8, 12)),
    "unet, residual": (Volume(), UNetSpec(widths=(4, 6), residual=True, num_supervised=1, **SOLID), (3, 8, 8)),
    "unet of the papers": (
        Slices(axis=0),
        UNetSpec(
            widths=(4, 6), norm="batch", activation="relu", downsampling="max_pool", upsampling="transposed_3", **SQUARE
        ),
        (3, 8, 12),
    ),
    "se_unet": (Slices(axis=0), SEUNetSpec(width=4, **SQUARE), (3, 8, 12)),
    "se_unet, three stages in 3D": (
        Volume(),
        SEUNetSpec(width=4, strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)), kernels=((3, 3, 3),) * 3),
        (4, 8, 12),
    ),
    **{
        f"axial, {name}": (Slices(axis=0, context=1), MIXING_UNET.model_copy(update={"mixing": kind()}), (4, 12, 16))
        for name, kind in KINDS.items()
    },
    **{
        f"si, {name}": (SuperImage(grid=(2, 3)), MIXING_UNET.model_copy(update={"mixing": kind()}), (5, 8, 12))
        for name, kind in KINDS.items()
    },
    "vnet": (
        SuperImage(grid=(2, 2)),
        VNetSpec(widths=(4, 6), encoder_blocks=(1, 2), decoder_blocks=(2,), norm="instance", **SQUARE),
        (4, 8, 12),
    ),
}
QUICK = ("axial", "si", "stack", "3d")
"""One case of each configuration whose trace takes a few seconds."""
LARGE = {
    "resnet_unet": (Slices(axis=0, context=1), ResNetUNetSpec(depth=18), (2, 32, 64)),
    "resnet_unet of bottlenecks": (Slices(axis=0), ResNetUNetSpec(depth=50, norm="instance"), (2, 96, 96)),
    "xception_cbam_unet": (SuperImage(grid=(1, 2)), XceptionCBAMUNetSpec(), (2, 32, 64)),
    "xception_cbam_unet, skips": (Slices(axis=2), XceptionCBAMUNetSpec(attention="skips"), (32, 64, 2)),
    "swin_unetr": (Slices(axis=0), SwinUNETRSpec(dims=2, feature_size=12), (2, 40, 30)),
    "swin_unetr, super image": (SuperImage(grid=(2, 2)), SwinUNETRSpec(dims=2, feature_size=12), (4, 32, 20)),
    "swin_unetr 3D": (Volume(), SwinUNETRSpec(dims=3, feature_size=12), (32, 32, 32)),
}

SIZES = {"num_parameters": 1, "window_bytes": 1}
"""Of records that are not read."""


def make_header(representation, network, window, labels: Labels = LABELS, **settings) -> ModelHeader:
    spacing = representation.spacing_mm if isinstance(representation, Projections) else MM
    plan = ConfigurationPlan(
        spacing_mm=spacing,
        normalization=tuple(ChannelNormalization(channel=name, scheme="zscore") for name in CHANNELS),
        store="store",
        window=window,
        batch_size=1,
        representation=representation,
        network=network,
        mirror_axes=(0,),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(channel_names=CHANNELS, labels=labels, file_ending=".nii.gz", num_training=1)
    return ModelHeader(
        dataset_name="Dataset007_Tiny", configuration="any", fold=0, plan=plan, description=description, **settings
    )


def make_model(header: ModelHeader) -> torch.nn.Module:
    """The model with weights of which none is 0 or 1, as after a training."""
    torch.manual_seed(0)
    model = header.build_model().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "gain" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, statistics in model.named_buffers():
            if "running" in name:
                statistics.add_(0.1 * torch.rand_like(statistics))
    return model


def make_images(header: ModelHeader, graph: Graph, batch: int, size: Shape) -> torch.Tensor:
    """Noise (B, C, D, H, W); the maps of views are probabilities."""
    images = torch.randn(batch, graph.channels, *size, generator=torch.Generator().manual_seed(batch))
    if header.plan.representation.fuses_views:
        images[:, len(CHANNELS) :] = images[:, len(CHANNELS) :].sigmoid() / 2
    return images


def check_scores(header: ModelHeader) -> None:
    graph = Graph.of(header, free_axes(header.plan), "float32", OPSET)
    record = PortableModel(header=header, graph=graph, windows=Windows.of(header.plan, 1), **SIZES)
    model = make_model(header)
    proto = trace(model, graph)
    assert {each.domain for each in proto.opset_import} == {""}, "operators of ONNX alone"
    assert [each.name for each in proto.graph.input] == ["volume"] + ["grid"] * (graph.grid is not None)
    assert [each.name for each in proto.graph.output] == ["scores"]
    sizes = [graph.window]
    for times in (2, 3):
        sizes.append(
            tuple(
                (times * divisor if divisor > 1 else times - 1) if axis in graph.free_axes else size
                for axis, (size, divisor) in enumerate(zip(graph.window, graph.divisors, strict=True))
            )
        )
    sizes.append(tuple(size * (1 + (axis in graph.free_axes)) for axis, size in enumerate(graph.window)))
    for batch, size in enumerate(sizes, 1):
        images = make_images(header, graph, batch, size)
        with torch.inference_mode():
            expected = model(images)
        assert expected.shape == (batch, graph.outputs, *size)
        assert difference(proto, images, expected, record.grid_for(size)) < TOLERANCE


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_scores_are_those_of_torch(name):
    check_scores(make_header(*CASES[name]))


@pytest.mark.parametrize("name", ["mip", "mip of means", "mv"])
def test_what_exports_compute_in_their_own_way_has_the_usual_scores(name, monkeypatch):
    """Of those whose trace is slow, quickly: by torch alone."""
    header = make_header(*CASES[name])
    model = make_model(header)
    graph = Graph.of(header, free_axes(header.plan), "float32", OPSET)
    images = make_images(header, graph, 2, graph.window)
    with torch.inference_mode():
        expected = model(images)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        found = model(images)
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_scores_of_large_networks_are_those_of_torch(name):
    check_scores(make_header(*LARGE[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "representation",
    [
        FusedViews(maps_per_view=2, regions=True),
        Projections(axis=2, spacing_mm=MM, num_training_views=3, num_views=4, num_classes=2, background=False),
    ],
)
def test_scores_of_regions_are_those_of_torch(representation):
    network = FusionNetSpec(width=2, norm="instance") if representation.fuses_views else UNET
    check_scores(make_header(representation, network, (8, 8, 8), REGIONS))


def test_every_representation_and_network_is_tested():
    cases = [*CASES.values(), *LARGE.values()]
    assert {representation.name for representation, _, _ in cases} == set(representations())
    assert {network.name for _, network, _ in cases} == set(PLACES) - {"rstn"}
    assert len(CONFIGURATIONS) == 8, "a new configuration has a line above"


def test_more_slices_than_planned_have_their_own_grid():
    header = make_header(*CASES["si"])
    record = PortableModel(
        header=header,
        graph=Graph.of(header, (0, 1, 2), "float32", OPSET),
        windows=Windows.of(header.plan, 1),
        **SIZES,
    )
    assert record.graph.grid.model_dump() == {"input": "grid", "rows": 2, "columns": 3, "axis": 0}
    assert [record.grid_for((depth, 8, 12)) for depth in (1, 6, 7)] == [(2, 3), (2, 3), (4, 2)]
    fixed = make_header(*LARGE["swin_unetr, super image"])
    assert free_axes(fixed.plan) == ()
    assert Graph.of(fixed, (), "float32", OPSET).grid is None


def test_the_way_of_exports_is_left_again():
    header = make_header(*CASES["3d"])
    model = make_model(header)
    images = torch.randn(1, 2, *header.plan.window)
    with torch.inference_mode():
        before = model(images)
        trace(model, Graph.of(header, free_axes(header.plan), "float32", OPSET))
        assert not torch.compiler.is_exporting()
        assert torch.equal(model(images), before)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    header, path = make_header(*CASES["axial"]), tmp_path_factory.mktemp("model") / "model_final.safetensors"
    save_model(path, make_model(header).state_dict(), header)
    return path


@pytest.fixture(scope="module")
def graph_file(model_file) -> Path:
    """Not to be changed."""
    path = model_file.parent / "graphs" / "model_final.onnx"
    export_graph(model_file, path, "float32")
    return path


def test_a_graph_has_a_record_beside_it_and_nothing_of_this_machine(model_file, graph_file, tmp_path):
    target, written = graph_file, read_portable(graph_file)
    assert header_of(target) == header_of(model_file)
    assert written.graph.model_dump() == {
        "input": "volume",
        "output": "scores",
        "channels": 2,
        "outputs": 3,
        "window": (4, 12, 16),
        "divisors": (1, 2, 2),
        "free_axes": (0, 1, 2),
        "batch": True,
        "grid": None,
        "weights": "float32",
        "opset": 20,
    }
    assert written.windows.model_dump() == {
        "mirror_axes": (0,),
        "step_size": (0.5, 0.5, 0.5),
        "free_axis": 0,
        "context": 1,
        "regular": None,
        "padded_with_lowest": False,
        "batch_size": 2,
    }
    build = written.header.build_model
    assert written.num_parameters == sum(each.numel() for each in build().parameters())
    assert written.window_bytes == prediction_memory(build, (1, 2, 4, 12, 16)) > 4 * (2 + 3) * 4 * 12 * 16
    content = target.read_bytes()
    for place in (Path(torch.__file__).parents[1], Path(__file__).parents[2], model_file.parent):
        assert str(place).encode() not in content
    assert b"site-packages" not in content
    again = tmp_path / "again" / "model_final.onnx"
    assert export_graph(model_file, again, "float32") == written
    assert again.read_bytes() == content


def test_weights_in_fewer_bits_hardly_change_scores():
    header = make_header(Volume(), UNetSpec(widths=(16, 32), **SOLID), (3, 8, 8))
    model = make_model(header)
    proto = trace(model, Graph.of(header, free_axes(header.plan), "float32", OPSET))
    images = torch.randn(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(images)
    for weights, least, most, share in (("float16", 1e-5, 0.01, 0.6), ("int8", 1e-3, 0.1, 0.4)):
        smaller = type(proto)()
        smaller.CopyFrom(proto)
        store_weights(smaller, weights)
        assert least < difference(smaller, images, expected) < most
        assert smaller.ByteSize() < share * proto.ByteSize()


def test_how_weights_are_stored_is_in_the_record(model_file, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        written = export_graph(model_file, tmp_path / "model_final.onnx", "int8")
    assert written.graph.weights == "int8"
    assert "with weights in int8, scores of noise differ by" in caplog.text


def test_models_without_a_graph_are_refused(tmp_path):
    rstn = make_header(Slices(axis=0), RSTNSpec(network=UNET), (3, 8, 12))
    pretext = make_header(*CASES["axial"], pretext=PretextConfig(task="inpainting"))
    for number, (header, message) in enumerate(((rstn, "rstn looks at crops"), (pretext, "a pretrained model"))):
        source, target = tmp_path / f"{number}.safetensors", tmp_path / "out" / f"{number}.onnx"
        save_model(source, header.build_model().state_dict(), header)
        with pytest.raises(ModelError, match=message):
            export_graph(source, target, "float32")
    assert not (tmp_path / "out").exists()


def test_windows_of_networks_that_mix_slices_overlap_and_are_as_deep_as_in_training():
    representation, network, window = CASES["axial, shift"]
    mixed = Windows.of(make_header(representation, network, window).plan, 1)
    plain = Windows.of(make_header(representation, UNET, window).plan, 1)
    assert (mixed.free_axis, plain.free_axis) == (None, 0)
    assert (mixed.context, plain.context) == (0, 1)
    assert mixed.step_size == (0.5, 0.5, 0.5)


def test_what_a_record_says_twice_must_agree(graph_file):
    written = read_portable(graph_file).model_dump(mode="json")
    for part, field, value in (("graph", "window", [4, 12, 32]), ("windows", "context", 0), ("graph", "outputs", 2)):
        wrong = written | {part: written[part] | {field: value}}
        with pytest.raises(ValueError, match=rf"{part}\.{field} is not what header\.plan says"):
            PortableModel.model_validate(wrong)


def test_a_graph_without_its_record_is_refused(graph_file, tmp_path):
    target = tmp_path / "model_final.onnx"
    with pytest.raises(ModelError, match=r"model_final\.onnx does not exist"):
        read_portable(target)
    shutil.copy(graph_file, target)
    target.with_suffix(".json").write_text("{}")
    with pytest.raises(ModelError, match="get the models again"):
        read_portable(target)
    target.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="get the models again"):
        read_portable(target)


def test_a_graph_that_gives_other_scores_is_not_written(model_file, tmp_path, monkeypatch):
    monkeypatch.setattr("seg25d.portable.export.difference", lambda *_: 0.5)
    with pytest.raises(ModelError, match=r"expected .* torch's scores to 0\.001 of the largest, got 0\.5"):
        export_graph(model_file, tmp_path / "model_final.onnx", "float32")
    assert not (tmp_path / "model_final.onnx").exists()
