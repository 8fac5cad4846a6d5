"""Laws that every representation obeys; a new one is tested by its line in the registry."""

import pytest
import torch
from torch import Tensor, nn

from seg25d.representations import REPRESENTATIONS
from seg25d.representations.base import Representation

WINDOW = (6, 8, 7)
EXAMPLES = [example for representation in REPRESENTATIONS.values() for example in representation.examples()]
each_example = pytest.mark.parametrize("representation", EXAMPLES, ids=str)


class CentreChannels(nn.Module):
    """Identity-like: the channels of the slice itself, of all those that its neighbours bring."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, images: Tensor) -> Tensor:
        before = (images.shape[1] // self.num_channels // 2) * self.num_channels
        return images[:, before : before + self.num_channels]


class Tiny(nn.Module):
    """One convolution; in training mode two outputs, the second at half size."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        conv, self.pool = ((nn.Conv2d, nn.AvgPool2d(2)), (nn.Conv3d, nn.AvgPool3d(2)))[dims - 2]
        self.conv = conv(channels, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        scores = self.conv(images)
        return [(scores, 0.75), (self.pool(scores), 0.25)] if self.training else scores


@each_example
@pytest.mark.parametrize("num_channels", [1, 2])
def test_lifting_and_undoing_gives_the_input_back(representation: Representation, num_channels: int) -> None:
    volume = torch.rand(2, num_channels, *WINDOW)
    assert torch.equal(representation.lift(CentreChannels(num_channels))(volume), volume)


@each_example
def test_the_network_gets_the_promised_channels_and_dimensions(representation: Representation) -> None:
    seen = []

    class Spy(CentreChannels):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    representation.lift(Spy(2))(torch.rand(1, 2, *WINDOW))
    assert seen[0].dim() == 2 + representation.network_dims
    assert seen[0].shape[1] == representation.network_channels(2)


@each_example
def test_a_batch_of_two_equals_two_batches_of_one(representation: Representation) -> None:
    model = representation.lift(Tiny(representation.network_dims, representation.network_channels(1))).eval()
    volume = torch.rand(2, 1, *WINDOW)
    together = model(volume)
    apart = torch.cat([model(volume[:1]), model(volume[1:])])
    assert together.shape == (2, 3, *WINDOW)
    torch.testing.assert_close(together, apart)


@each_example
def test_gradients_reach_every_parameter_from_every_output(representation: Representation) -> None:
    window = (6, 8, 6)
    model = representation.lift(Tiny(representation.network_dims, representation.network_channels(1))).train()
    outputs = model(torch.rand(2, 1, *window))
    assert [weight for _, weight in outputs] == [0.75, 0.25]
    for scores, _ in outputs:
        assert scores.shape[:2] == (2, 3)
        for parameter in model.parameters():
            (gradient,) = torch.autograd.grad(scores.square().sum(), parameter, retain_graph=True)
            assert gradient.abs().sum() > 0


@each_example
def test_records_survive_json(representation: Representation) -> None:
    assert type(representation).model_validate_json(representation.model_dump_json()) == representation


@each_example
def test_lifted_modules_export(representation: Representation) -> None:
    model = representation.lift(Tiny(representation.network_dims, representation.network_channels(1))).eval()
    volume = torch.rand(1, 1, *WINDOW)
    program = torch.export.export(model, (volume,))
    torch.testing.assert_close(program.module()(volume), model(volume))
