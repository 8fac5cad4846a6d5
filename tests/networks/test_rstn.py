"""The recurrent saliency transformation network: crops, saliency, gradients, and passes until masks agree.

Networks that say what a test wants stand in place of the coarse or the fine U-Net.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from seg25d.networks.rstn import OUTSIDE, RSTN, RSTNSpec, Saliency, bounding_boxes, differ, extent
from seg25d.networks.specs.unet import UNetSpec

UNET = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2)
PIXELS = UNetSpec(widths=(4,), strides=((1, 1),), kernels=((3, 3),))
HEIGHT, WIDTH = 16, 20


class Says(nn.Module):
    """Scores of an image: foreground, almost certainly, where the last channel is at least a half."""

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        bright = 20 * (images[:, -1:] - 0.5)
        scores = torch.cat([torch.zeros_like(bright), bright], 1)
        return [(scores, 1.0)] if self.training else scores


class Scripted(nn.Module):
    """One mask after the other, whatever it sees; the last one from then on."""

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self.masks = masks
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        mask = self.masks[min(self.passes, len(self.masks) - 1)]
        self.passes += 1
        foreground = torch.where(mask, 10.0, -10.0)
        return torch.stack([torch.zeros_like(foreground), foreground]).expand(len(images), -1, -1, -1)


def make(channels: int = 1, **settings: object) -> RSTN:
    """A network whose coarse part finds what is bright."""
    values = {"network": UNET, "margin": 2, "random_margins": 0} | settings
    network = RSTNSpec.model_validate(values).build(channels, 2)
    network.coarse = Says()
    return network


def bright(*boxes: tuple[slice, slice] | None) -> Tensor:
    """Images (N, 1, h, w), black but for a box; all black for None."""
    images = torch.zeros(len(boxes), 1, HEIGHT, WIDTH)
    for image, box in zip(images, boxes, strict=True):
        if box is not None:
            image[0, box[0], box[1]] = 1
    return images


def first_pixels(number: int) -> Tensor:
    """A mask (h, w) with this many pixels."""
    return (torch.arange(HEIGHT * WIDTH) < number).reshape(HEIGHT, WIDTH)


@pytest.fixture
def seen() -> Callable[[RSTN], list[Tensor]]:
    """Collects what the fine part of a network gets."""

    def collect(network: RSTN) -> list[Tensor]:
        inputs: list[Tensor] = []
        network.fine.register_forward_hook(lambda module, images, output: inputs.append(images[0].detach()))
        return inputs

    return collect


@pytest.mark.parametrize(
    ("first", "last", "size", "divisor", "start", "stop"),
    [
        (3, 10, 32, 4, 3, 11),
        (10, 20, 32, 4, 9, 21),
        (2, 10, 32, 1, 2, 10),
        (-2, 6, 32, 4, 0, 8),
        (27, 40, 32, 4, 24, 32),
        (30, 31, 32, 4, 24, 32),  # two pixels in the coarsest stage
        (-5, 40, 32, 4, 0, 32),
        (1, 2, 4, 4, 0, 4),  # there is only one
    ],
)
def test_ranges_are_cut_off_at_the_border_and_lengthened_to_what_the_network_divides(
    first: int, last: int, size: int, divisor: int, start: int, stop: int
) -> None:
    assert extent(first, last, size, divisor) == slice(start, stop)


def test_boxes_of_masks() -> None:
    masks = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 2:5, 7] = True
    masks[0, 3, 11] = True
    masks[2] = True
    boxes = bounding_boxes(masks)
    assert boxes[0].tolist() == [2, 5, 7, 12]
    assert boxes[1, [1, 3]].tolist() == [0, 0]
    assert boxes[2].tolist() == [0, HEIGHT, 0, WIDTH]


def test_the_dice_of_successive_masks_decides() -> None:
    """By hand: 2 x 98 / 198 = 0.9899, 2 x 99 / 199 = 0.99497."""
    before = torch.stack([first_pixels(100)] * 4)
    after = torch.stack([first_pixels(number) for number in (98, 99, 100, 0)])
    assert differ(before, after, 0.99).tolist() == [True, False, False, True]
    assert not differ(before[:1], after[:1], 0.98)


@pytest.mark.parametrize("training", [True, False])
def test_the_fine_network_sees_the_crop_of_the_image_times_its_saliency(
    training: bool, seen: Callable[[RSTN], list[Tensor]]
) -> None:
    network = make(max_rounds=1).train(training)
    nn.init.zeros_(network.saliency.second.weight)
    nn.init.constant_(network.saliency.second.bias, 1.5)
    images, inputs = bright((slice(4, 7), slice(6, 10))), seen(network)
    images += 0.1 * torch.rand(images.shape)
    network(images)
    # Rows 4 to 6 and 2 more on both sides are 7: one more below, as the network halves.
    (crop,) = inputs
    torch.testing.assert_close(crop, 1.5 * images[:, :, 2:10, 4:12])


def test_each_channel_has_a_saliency_of_its_own_that_follows_the_probabilities() -> None:
    saliency = Saliency(2, 3, (3, 5))
    with torch.no_grad():
        nn.init.normal_(saliency.second.weight)
        one, other = saliency(torch.rand(2, 2, 8, 8))
    assert one.shape == (3, 8, 8)
    assert not torch.allclose(one[0], one[1], atol=0.1)
    assert not torch.allclose(one, other, atol=0.1)


def test_there_is_a_relu_between_the_layers_of_the_saliency() -> None:
    saliency = Saliency(2, 3, (3, 5))
    nn.init.constant_(saliency.first.bias, -100)
    assert (saliency(torch.rand(1, 2, 8, 8)) == 1).all()


def test_the_saliency_begins_as_one() -> None:
    with torch.no_grad():
        weights = Saliency(1, 7, (3, 5))(torch.rand(2, 1, HEIGHT, WIDTH))
    assert (weights - 1).abs().max() < 0.1


@pytest.mark.parametrize("training", [True, False])
def test_outside_the_crop_is_background(training: bool) -> None:
    network = make(max_rounds=1).train(training)
    network.fine = Says()
    output = network(bright((slice(4, 7), slice(6, 10))))
    scores = (output[0][0] if training else output)[0]
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[2:10, 4:12] = True
    assert (scores[0] == 0).all()
    assert (scores[1][~inside] == OUTSIDE).all()
    assert (scores[1] > 0).nonzero().tolist() == [[row, column] for row in range(4, 7) for column in range(6, 10)]


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_crops_of_many_sizes_is_its_images_one_by_one(
    training: bool, seen: Callable[[RSTN], list[Tensor]]
) -> None:
    network = make().train(training)
    images = bright(
        (slice(4, 7), slice(6, 10)),
        (slice(0, 3), slice(0, 18)),
        None,
        (slice(9, 12), slice(13, 17)),
        (slice(15, 16), slice(19, 20)),
    )
    images += 0.3 * torch.rand(images.shape)

    def scores_of(part: Tensor) -> Tensor:
        output = network(part)
        return output[0][0] if training else output

    with torch.no_grad():
        inputs = seen(network)
        together = scores_of(images)
        assert len({crop.shape for crop in inputs}) > 1
        for number in range(len(images)):
            alone = scores_of(images[number : number + 1])
            torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-4, atol=1e-4)
            assert number == 0 or not torch.allclose(together[number], together[0], atol=1e-2)


def test_images_that_have_settled_are_left_out_of_further_passes() -> None:
    """The first of two is the same after every pass, the second one becomes another each time."""

    class Restless(nn.Module):
        batches: ClassVar[list[int]] = []

        def forward(self, images: Tensor) -> Tensor:
            self.batches.append(len(images))
            foreground = 20 * (images[:, 1:] - 0.5)
            restless = images[:, :1].amax((2, 3), keepdim=True) > 0.5
            hidden = torch.arange(WIDTH) < (10 if len(self.batches) % 2 else 4)
            foreground = torch.where(restless & hidden, -10.0, foreground)
            return torch.cat([torch.zeros_like(foreground), foreground], 1)

    network = make(channels=2, margin=20).eval()
    nn.init.zeros_(network.saliency.second.weight)
    network.fine = Restless()
    images = torch.cat([torch.zeros(2, 1, HEIGHT, WIDTH), bright(*[(slice(2, 14), slice(2, 18))] * 2)], 1)
    images[1, 0] = 1
    scores = network(images)
    assert network.fine.batches == [2] + [1] * 9
    assert (scores[0, 1] > 0).sum() == 12 * 16
    assert (scores[1, 1] > 0).sum() == 12 * 14  # after ten passes: columns from 4 on


@pytest.mark.parametrize(
    ("numbers", "passes"),
    [([99], 1), ([98], 2), ([98, 50], 3), ([50, 100] * 5, 10), ([0, 100], 1)],
    ids=["agrees", "agrees then", "agrees in the end", "never", "nothing is found"],
)
def test_passes_end_when_masks_agree_or_after_ten_or_when_nothing_is_found(numbers: list[int], passes: int) -> None:
    """The coarse network finds 100 pixels, passes find these; a Dice of 0.99 is agreement."""
    network = make(margin=20).eval()
    network.fine = Scripted([first_pixels(number) for number in numbers])
    scores = network(first_pixels(100)[None, None].float())
    assert network.fine.passes == passes
    expected = numbers[min(passes, len(numbers)) - 1]
    assert torch.equal(scores[0, 1] > 0, first_pixels(expected))


def test_the_number_of_passes_and_the_bound_are_settings() -> None:
    network = make(margin=20, max_rounds=3).eval()
    network.fine = Scripted([first_pixels(number) for number in [50, 100] * 5])
    network(first_pixels(100)[None, None].float())
    assert network.fine.passes == 3
    network = make(margin=20, stop_dice=0.98).eval()
    network.fine = Scripted([first_pixels(98)])
    network(first_pixels(100)[None, None].float())
    assert network.fine.passes == 1


def test_without_an_object_the_coarse_scores_stand_and_training_sees_the_whole_image(
    seen: Callable[[RSTN], list[Tensor]],
) -> None:
    network, images = make(), bright(None, (slice(4, 7), slice(6, 10)))
    inputs = seen(network)
    with torch.no_grad():
        scores = network.eval()(images)
        assert torch.equal(scores[0], network.coarse(images)[0])
        assert all(len(crop) == 1 for crop in inputs), "of the other image"
        inputs.clear()
        network(images[:1])
        assert inputs == []
        network.train()(images)
    assert sorted(tuple(crop.shape[2:]) for crop in inputs) == [(8, 8), (HEIGHT, WIDTH)]


def test_gradients_of_the_fine_loss_reach_the_saliency_and_the_coarse_network() -> None:
    network = RSTNSpec(network=UNET).build(2, 3).train()
    (fine, fine_weight), (_, coarse_weight) = network(torch.randn(2, 2, HEIGHT, WIDTH))
    assert (fine_weight, coarse_weight) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    fine.square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_the_coarse_loss_is_of_the_coarse_network_alone() -> None:
    network = RSTNSpec(network=UNET).build(1, 2).train()
    _, (coarse, _) = network(torch.randn(2, 1, HEIGHT, WIDTH))
    coarse.square().mean().backward()
    assert all(weight.grad is not None for weight in network.coarse.parameters())
    assert all(weight.grad is None for weight in (*network.saliency.parameters(), *network.fine.parameters()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_its_type_and_finite_gradients(dtype: torch.dtype) -> None:
    network = make()
    network.coarse = UNET.build(1, 2)
    images = bright((slice(4, 7), slice(6, 10)), None) + 0.3 * torch.rand(2, 1, HEIGHT, WIDTH)
    with torch.autocast("cpu", dtype):
        outputs = network.train()(images)
        scores = network.eval()(images)
    assert {each.dtype for each, _ in outputs} | {scores.dtype} == {dtype}
    sum(weight * each.float().square().mean() for each, weight in outputs).backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
    assert scores.isfinite().all()


def test_regions_are_found_where_any_of_them_is(seen: Callable[[RSTN], list[Tensor]]) -> None:
    class SaysRegions(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images - 12, 20 * (images - 0.5)], 1)

    network = make(regions=True, max_rounds=1).eval()
    network.coarse, network.fine = SaysRegions(), SaysRegions()
    inputs = seen(network)
    scores = network(bright((slice(4, 7), slice(6, 10)))).sigmoid()[0]
    assert [tuple(crop.shape[2:]) for crop in inputs] == [(8, 8)]
    assert (scores[1] > 0.5).sum() == 3 * 4
    assert scores[0].max() < 1e-4
    assert scores[1].min() < 1e-4


def test_margins_are_random_in_training_alone(seen: Callable[[RSTN], list[Tensor]]) -> None:
    network = make(network=PIXELS, margin=3, random_margins=1, max_rounds=1)
    images, inputs = bright(*[(slice(7, 9), slice(9, 11))] * 40), seen(network)

    def sizes() -> set[tuple[int, ...]]:
        inputs.clear()
        torch.manual_seed(5)
        with torch.no_grad():
            network(images)
        return {tuple(crop.shape[2:]) for crop in inputs}

    network.train()
    drawn = sizes()
    assert drawn == sizes(), "from torch's generator"
    assert min(min(size) for size in drawn) >= 2
    assert max(max(size) for size in drawn) <= 2 + 2 * 6
    assert len(drawn) > 20
    network.eval()
    assert sizes() == {(8, 8)}
    network.train().spec = network.spec.model_copy(update={"random_margins": 0.0})
    assert sizes() == {(8, 8)}


def test_half_of_the_margins_are_as_they_are(seen: Callable[[RSTN], list[Tensor]]) -> None:
    network = make(network=PIXELS, margin=3, random_margins=0.5).train()
    inputs = seen(network)
    with torch.no_grad():
        network(bright(*[(slice(7, 9), slice(9, 11))] * 200))
    usual = sum(len(crop) for crop in inputs if crop.shape[2:] == (8, 8))
    assert 75 <= usual <= 125


def test_scores_without_foreground_are_refused() -> None:
    spec = RSTNSpec(network=UNET)
    with pytest.raises(ValueError, match="background and foreground, or regions; got 1"):
        spec.build(1, 1)
    assert spec.model_copy(update={"regions": True}).build(1, 1)
