"""Weights of torchvision's ResNets in the encoder.

The state dicts are written down from what is published, nothing of them comes from seg25d: blocks, widths and kernels
are those of He et al. 2016, Table 1; names, and the stride in the second convolution of a bottleneck, those of
pytorch/vision, torchvision/models/resnet.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from seg25d.core.errors import ModelError
from seg25d.networks.resnet_unet import ResNetUNet, ResNetUNetSpec
from seg25d.networks.torchvision_weights import (
    TakenOver,
    adapt_first_convolution,
    load_torchvision_encoder,
    read_state_dict,
)

BLOCKS = {
    18: ((3, 3), (2, 2, 2, 2)),
    34: ((3, 3), (3, 4, 6, 3)),
    50: ((1, 3, 1), (3, 4, 6, 3)),
    101: ((1, 3, 1), (3, 4, 23, 3)),
}
"""Per depth the kernels of a block's convolutions, and the blocks of the four layers."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
CLASSIFIER = ("fc.weight", "fc.bias")


def published_convolutions(depth: int) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """Name of a convolution, of its norm, and (channels out, channels in, kernel size)."""
    kernels, layers = BLOCKS[depth]
    yield "conv1", "bn1", (64, 3, 7)
    before = 64
    for layer, num_blocks in enumerate(layers, 1):
        width = 32 * 2**layer
        after = 4 * width if len(kernels) == 3 else width
        for block in range(num_blocks):
            name = f"layer{layer}.{block}"
            widths = [before, *[width] * (len(kernels) - 1), after]
            for number, kernel in enumerate(kernels, 1):
                yield f"{name}.conv{number}", f"{name}.bn{number}", (widths[number], widths[number - 1], kernel)
            if block == 0 and (before != after or layer > 1):
                yield f"{name}.downsample.0", f"{name}.downsample.1", (after, before, 1)
            before = after


def published_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """The shape of every entry of the state dict."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, norm, (outside, inside, kernel) in published_convolutions(depth):
        shapes[f"{conv}.weight"] = (outside, inside, kernel, kernel)
        shapes |= {f"{norm}.{part}": (outside,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | {"fc.weight": (1000, outside), "fc.bias": (1000,)}


def empty_state(depth: int) -> dict[str, Tensor]:
    """Zeros, of which a file keeps one number each."""
    return {name: torch.zeros(()).expand(shape) for name, shape in published_shapes(depth).items()}


def random_state(depth: int) -> dict[str, Tensor]:
    """Weights that keep the size of activations (He's), and norms that are not fresh ones."""
    state = {}
    for name, shape in published_shapes(depth).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) == 4:
            state[name] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:
            state[name] = torch.rand(shape) + (0.5 if name.endswith(("weight", "running_var")) else -0.5)
    return state


def published_features(state: dict[str, Tensor], depth: int, images: Tensor) -> list[Tensor]:
    """What a ResNet computes in eval mode, at 1/2 to 1/32 of the size, from its state dict alone."""
    kernels, layers = BLOCKS[depth]
    strided = 2 if len(kernels) == 3 else 1

    def convolve(features: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        features = functional.conv2d(features, weight, None, stride, weight.shape[-1] // 2)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return functional.batch_norm(features, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])

    result = [convolve(images, "conv1", "bn1", 2).relu()]
    features = functional.max_pool2d(result[0], 3, 2, 1)
    for layer, num_blocks in enumerate(layers, 1):
        for block in range(num_blocks):
            name, step = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            shortcut = features
            for number in range(1, len(kernels) + 1):
                stride = step if number == strided else 1
                features = convolve(features, f"{name}.conv{number}", f"{name}.bn{number}", stride)
                features = features.relu() if number < len(kernels) else features
            if f"{name}.downsample.0.weight" in state:
                shortcut = convolve(shortcut, f"{name}.downsample.0", f"{name}.downsample.1", step)
            features = (features + shortcut).relu()
        result.append(features)
    return result


def make_network(depth: int = 18, channels: int = 3, norm: str = "batch") -> ResNetUNet:
    return ResNetUNetSpec(depth=depth, norm=norm).build(channels, 2).eval()


@pytest.mark.parametrize(
    ("depth", "num_parameters", "num_entries"), [(18, 11_689_512, 122), (34, 21_797_672, 218), (50, 25_557_032, 320)]
)
def test_what_is_written_down_here_is_torchvisions(depth: int, num_parameters: int, num_entries: int) -> None:
    """`num_params` of its documentation; entries of its state dicts."""
    state = empty_state(depth)
    assert len(state) == num_entries
    assert sum(value.numel() for name, value in state.items() if not name.endswith(STATISTICS)) == num_parameters


def load(network: ResNetUNet, path: Path) -> TakenOver:
    return load_torchvision_encoder(network, read_state_dict(path), path)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_the_encoder_has_torchvisions_names_and_shapes(depth: int) -> None:
    with torch.device("meta"):
        encoder = make_network(depth).encoder
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes == {name: shape for name, shape in published_shapes(depth).items() if name not in CLASSIFIER}


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_the_encoder_computes_what_the_published_network_computes(tmp_path: Path, depth: int) -> None:
    torch.manual_seed(0)
    state, network = random_state(depth), make_network(depth)
    torch.save(state, tmp_path / "resnet.pth")
    taken_over = load(network, tmp_path / "resnet.pth")
    assert (set(taken_over.taken), taken_over.adapted) == (set(state) - set(CLASSIFIER), ())
    assert taken_over.ignored == CLASSIFIER
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        seen, wanted = network.encoder(images), published_features(state, depth, images)
    for ours, theirs in zip(seen, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_equal_channels_give_what_a_grey_image_gave(channels: int) -> None:
    kernel, grey = torch.randn(4, 3, 7, 7).double(), torch.randn(1, 1, 9, 9).double()
    adapted = adapt_first_convolution(kernel, channels)
    assert adapted.shape == (4, channels, 7, 7)
    torch.testing.assert_close(adapted.sum(1), kernel.sum(1))
    before, after = (functional.conv2d(grey.expand(-1, each.shape[1], -1, -1), each) for each in (kernel, adapted))
    torch.testing.assert_close(after, before)


def test_adapted_kernels_by_hand() -> None:
    kernel = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    assert adapt_first_convolution(kernel, 1).flatten().tolist() == [9]
    assert adapt_first_convolution(kernel, 2).flatten().tolist() == [4.5, 4.5]
    assert adapt_first_convolution(kernel, 3).flatten().tolist() == [1, 2, 6]


def test_only_the_first_convolution_is_adapted(tmp_path: Path) -> None:
    state, network = random_state(18), make_network(channels=5)
    decoder = {name: value.clone() for name, value in network.decoder.state_dict().items()}
    save_file(state, tmp_path / "resnet.safetensors")
    taken_over = load(network, tmp_path / "resnet.safetensors")
    assert taken_over.adapted == ("conv1.weight",)
    assert {*taken_over.taken, "conv1.weight"} == set(state) - set(CLASSIFIER)
    loaded = network.encoder.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in taken_over.taken)
    torch.testing.assert_close(loaded["conv1.weight"], adapt_first_convolution(state["conv1.weight"], 5))
    assert all(torch.equal(value, decoder[name]) for name, value in network.decoder.state_dict().items())


def test_instance_norm_takes_scales_and_shifts_but_no_statistics(tmp_path: Path) -> None:
    state, network = random_state(18), make_network(norm="instance")
    torch.save(state, tmp_path / "resnet.pth")
    taken_over = load(network, tmp_path / "resnet.pth")
    assert set(taken_over.ignored) == {name for name in state if name.endswith(STATISTICS) or name in CLASSIFIER}
    assert torch.equal(network.encoder.layer1[0].bn1.bias, state["layer1.0.bn1.bias"])


def test_files_of_old_have_parameters_and_no_counters(tmp_path: Path) -> None:
    state = {name: torch.nn.Parameter(value) for name, value in random_state(18).items() if value.ndim}
    torch.save(state, tmp_path / "resnet18-5c106cde.pth", _use_new_zipfile_serialization=False)
    network = make_network()
    load(network, tmp_path / "resnet18-5c106cde.pth")
    assert torch.equal(network.encoder.layer4[1].bn2.running_var, state["layer4.1.bn2.running_var"])


def without(*endings: str) -> dict[str, Tensor]:
    return {name: value for name, value in empty_state(18).items() if not name.endswith(endings)}


def changed(name: str, *shape: int) -> dict[str, Tensor]:
    return empty_state(18) | {name: torch.zeros(()).expand(shape)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (empty_state(34), r"looks like a ResNet-34 and .* depth 18; .* or set network.depth to 34 in plans.json$"),
        (empty_state(50), r"looks like a ResNet-50 .* set network.depth to 50"),
        (empty_state(101), r"looks like a ResNet-101 and the network has depth 18; give weights of a ResNet-18$"),
        (without("conv2.weight"), r"lacks 8 of 120 weights of a ResNet-18 \(layer1.0.conv2.weight, .*, \.\.\.\)"),
        (without("running_mean"), r"lacks 20 of 120 weights"),
        (
            {f"module.{name}": value for name, value in empty_state(18).items()},
            r"lacks 100 of 120 .* it has module.conv1.weight, .* torchvision's names",
        ),
        ({}, r"lacks 100 of 120 .* it has nothing"),
        (changed("layer1.0.se.weight", 4), r"does not have \(layer1.0.se.weight\): .* another kind of network"),
        (changed("layer2.1.conv1.weight", 128, 4, 3, 3), r"has shape \(128, 4, 3, 3\), wanted \(128, 128, 3, 3\)"),
        (changed("conv1.weight", 64, 3, 3, 3), r"has shape \(64, 3, 3, 3\), wanted \(64, 3, 7, 7\)"),
        (changed("conv1.weight", 64), r"has shape \(64,\), wanted \(64, 7, 7\)"),
        ({"epoch": 3, "state_dict": {}}, r"holds a dictionary with epoch, state_dict, wanted a state dict.*torch.save"),
        ({0: torch.zeros(1)}, r"holds a dictionary with 0, wanted a state dict"),
        ([torch.zeros(1)], r"holds a list, wanted a state dict"),
        (torch.zeros(1), r"holds a Tensor, wanted a state dict"),
        (Path("pathlib is code"), r"could run code, such as a whole model.* torch.save\(model.state_dict\(\), FILE\)$"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    network, path = make_network(), tmp_path / "weights.pth"
    torch.save(content, path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match=message) as error:
        load(network, path)
    assert str(error.value).startswith(str(path))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("a.pth", cut, "is damaged or not a file of torch.save .*copy it again"),
        ("a.pth", lambda path: path.write_bytes(b""), "is damaged or not a file of torch.save .*copy it again"),
        ("a.pth", lambda path: path.write_text("<html>"), "is not a file of torch.save, or holds objects"),
        ("a.safetensors", lambda path: None, "is damaged or not a safetensors file .*copy it again"),
        ("a.pth", Path.unlink, "is not a file; give a file with weights"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / name
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    spoil(path)
    with pytest.raises(ModelError, match=message) as error:
        read_state_dict(path)
    assert str(error.value).startswith(str(path))
