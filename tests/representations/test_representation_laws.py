"""Laws that every representation obeys; a new one is tested by its line in the registry.

They run with a network of one layer and with one of two layers with 16 channels in between: what a representation does
to the features inside of a network, such as shifting an eighth of the channels, does nothing to a few of them.
"""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.representations.base import Representation, representations
from seg25d.representations.projections.ceiling import ceiling
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices

WINDOW = (6, 8, 7)
EXAMPLES = [example for representation in representations().values() for example in representation.examples()]
PROJECTIONS = [example for example in EXAMPLES if isinstance(example, Projections)]
each_width = pytest.mark.parametrize("hidden", [0, 16], ids=["one layer", "two layers"])
each_example = pytest.mark.parametrize("representation", EXAMPLES, ids=str)
each_invertible = pytest.mark.parametrize(
    "representation", [example for example in EXAMPLES if example not in PROJECTIONS], ids=str
)
each_projections = pytest.mark.parametrize("representation", PROJECTIONS, ids=str)
HULL_DICE = 0.95
"""The ceiling of two solid bodies of some 15 voxels in the examples' views (measured: 0.976 to 0.99)."""


class Tiny(nn.Module):
    """One convolution, or two with so many channels in between; in training mode two outputs, one at half size."""

    def __init__(self, dims: int, channels: int, num_outputs: int, hidden: int, kernel: int = 3) -> None:
        super().__init__()
        conv, self.pool = ((nn.Conv2d, nn.AvgPool2d(2)), (nn.Conv3d, nn.AvgPool3d(2)))[dims - 2]
        widths = [channels, hidden, num_outputs] if hidden else [channels, num_outputs]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [conv(before, after, kernel, padding=kernel // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        scores = self.layers(images)
        return [(scores, 0.75), (self.pool(scores), 0.25)] if self.training else scores


def lifted(representation: Representation, hidden: int, num_channels: int = 1) -> nn.Module:
    """A small network, lifted, that gives three scores per voxel."""
    channels, outputs = representation.network_channels(num_channels), representation.network_outputs(3)
    return representation.lift(Tiny(representation.network_dims, channels, outputs, hidden))


def lifted_identity(representation: Representation, hidden: int, num_channels: int) -> nn.Module:
    """A network, lifted, that gives the channels of the slice itself, of all those that its neighbours bring."""
    channels, wanted = representation.network_channels(num_channels), representation.input_channels(num_channels)
    network = Tiny(representation.network_dims, channels, wanted, hidden, kernel=1).eval()
    before = (channels // wanted // 2) * wanted
    choices = torch.eye(channels)[before : before + wanted]
    weights = [choices]
    if hidden:
        weights = [torch.eye(hidden, channels), functional.pad(choices, (0, hidden - channels))]
    for layer, weight in zip(network.layers[::2], weights, strict=True):
        layer.weight = nn.Parameter(weight.reshape(layer.weight.shape))
        nn.init.zeros_(layer.bias)
    return representation.lift(network)


@each_width
@each_invertible
@pytest.mark.parametrize("num_channels", [1, 2])
def test_lifting_and_undoing_gives_the_input_back(
    representation: Representation, num_channels: int, hidden: int
) -> None:
    volume = torch.rand(2, representation.input_channels(num_channels), *WINDOW)
    model = lifted_identity(representation, hidden, num_channels)
    assert torch.equal(model(volume), volume)


@each_width
@each_example
def test_the_network_gets_the_promised_channels_and_dimensions(representation: Representation, hidden: int) -> None:
    seen = []

    model = lifted(representation, hidden, 2).eval()
    (network,) = [module for module in model.modules() if isinstance(module, Tiny)]
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.rand(1, representation.input_channels(2), *WINDOW))
    assert seen[0].dim() == 2 + representation.network_dims
    assert seen[0].shape[1] == representation.network_channels(2)


@each_width
@each_example
def test_a_batch_of_two_equals_two_batches_of_one(representation: Representation, hidden: int) -> None:
    model = lifted(representation, hidden).eval()
    volume = torch.rand(2, representation.input_channels(1), *WINDOW)
    together = model(volume)
    apart = torch.cat([model(volume[:1]), model(volume[1:])])
    assert together.shape == (2, 3, *WINDOW)
    torch.testing.assert_close(together, apart)


@each_width
@each_invertible
def test_gradients_reach_every_parameter_from_every_output(representation: Representation, hidden: int) -> None:
    window = (6, 8, 6)
    model = lifted(representation, hidden).train()
    outputs = model(torch.rand(2, representation.input_channels(1), *window))
    assert [weight for _, weight in outputs] == [0.75, 0.25]
    for scores, _ in outputs:
        assert scores.shape[:2] == (2, 3)
        for parameter in model.parameters():
            (gradient,) = torch.autograd.grad(scores.square().sum(), parameter, retain_graph=True)
            assert gradient.abs().sum() > 0


@each_width
@each_projections
def test_gradients_reach_every_parameter_from_the_paths_of_projections(
    representation: Projections, hidden: int
) -> None:
    model = lifted(representation, hidden).train()
    outputs = model(torch.rand(2, representation.input_channels(1), *WINDOW))
    # Coarser scales go through path 1 as well; c(1) is 0.99.
    assert [weight for _, weight in outputs] == pytest.approx([0.99 * 0.75, 0.99 * 0.25, 0.01])
    for number, (scores, _) in enumerate(outputs):
        assert scores.shape == (2, 3, *WINDOW)
        own = "path_2." if number == 2 else ("network.", "path_1.")
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(scores.square().sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            assert (gradient is not None and bool(gradient.abs().sum() > 0)) == name.startswith(own), name


@each_projections
def test_perfect_views_decode_to_the_hull_above_the_ceiling(representation: Projections) -> None:
    d, h, w = torch.meshgrid(*(torch.arange(size) for size in (24, 22, 20)), indexing="ij")
    ball = (d - 8) ** 2 + (h - 8) ** 2 + (w - 9) ** 2 < 36
    other = (d - 18) ** 2 + (h - 15) ** 2 / 2 + (w - 12) ** 2 < 10
    assert HULL_DICE < ceiling((ball | other).numpy(), representation.geometry, representation.num_views).dice < 1


@each_example
def test_records_survive_json(representation: Representation) -> None:
    assert type(representation).model_validate_json(representation.model_dump_json()) == representation


@pytest.mark.slow
@each_example
def test_lifted_modules_export(representation: Representation) -> None:
    model = lifted(representation, 16).eval()
    volume = torch.rand(1, representation.input_channels(1), *WINDOW)
    program = torch.export.export(model, (volume,))
    torch.testing.assert_close(program.module()(volume), model(volume))


class Leaking(Slices):
    """Slices whose networks move an eighth of all features on to the next slice, and so to the next volume."""

    def lift(self, network: nn.Module) -> nn.Module:
        def move(_: nn.Module, __: tuple[Tensor, ...], features: Tensor) -> Tensor:
            number = features.shape[1] // 8
            return torch.cat([features[:, :number].roll(1, 0), features[:, number:]], 1)

        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(move)
        return super().lift(network)


def test_the_laws_see_features_that_leak_from_volume_to_volume() -> None:
    for law in (
        test_a_batch_of_two_equals_two_batches_of_one,
        partial(test_lifting_and_undoing_gives_the_input_back, num_channels=2),
    ):
        law(Leaking(axis=0), hidden=0)
        with pytest.raises(AssertionError):
            law(Leaking(axis=0), hidden=16)
