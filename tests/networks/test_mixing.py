"""Laws of mixing between slices, for every kind, every network that can mix, and both layouts of slices."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from seg25d.core.device import Execution, flop_counter
from seg25d.networks import MIXINGS
from seg25d.networks.base import Network
from seg25d.networks.mixing import REACH, NoMixing, SliceAttention, SliceLayout, make_mixers
from seg25d.networks.specs.mixing import ACS, KINDS, Attention, Conv, Mixing, Shift
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.planning.memory import training_memory
from seg25d.planning.network_rules import NETWORK_RULES, networks_that_mix
from seg25d.representations.base import Representation
from seg25d.representations.context import in_batch
from seg25d.representations.lifted.super_image import from_super_image, in_tiles, to_super_image
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage

SQUARE = {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3}
WIDTHS = (8, 16, 24)
UNET = UNetSpec(widths=WIDTHS, num_supervised=2, **SQUARE)
EXAMPLES: dict[str, tuple[Network, tuple[int, int]]] = {
    "unet": (UNET, (8, 12)),
    "se_unet": (SEUNetSpec(width=8, **SQUARE), (8, 12)),
    "vnet": (VNetSpec(widths=WIDTHS, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1), **SQUARE), (8, 12)),
    "resnet_unet": (ResNetUNetSpec(depth=18, norm="instance"), (64, 64)),
    "xception_cbam_unet": (XceptionCBAMUNetSpec(dropout=0), (32, 64)),
}
"""A small instance of every network that can mix, and a size that it takes."""
SLOW = {"resnet_unet", "xception_cbam_unet"}
DEPTH = 5
LAYOUTS: list[Representation] = [Slices(axis=0), SuperImage(grid=(2, 3))]
"""The grid has one empty place."""
each_kind = pytest.mark.parametrize("mixing", [kind() for kind in KINDS.values()], ids=list(KINDS))
each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in EXAMPLES]
)
each_layout = pytest.mark.parametrize("representation", LAYOUTS, ids=lambda each: each.name)


def lifted(
    network: Network, mixing: Mixing | None, representation: Representation, *, fresh: bool = False
) -> nn.Module:
    """A lifted network with weights from a fixed seed; unless fresh, those of its mixing are of any size."""
    torch.manual_seed(0)
    model = representation.lift(network.model_copy(update={"mixing": mixing}).build(1, 2)).eval()
    if not fresh:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".mix_" in name:
                    weight.copy_(random(weight, torch.Generator().manual_seed(1)))
    return model


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of any size, in kernels smaller the more of them are summed."""
    summed = weight[0].numel() if weight.dim() == 4 else 1
    return torch.randn(weight.shape, generator=generator) / (4 * summed**0.5)


def volume(depth: int = DEPTH, sizes: tuple[int, int] = (8, 12), batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, depth, *sizes, generator=torch.Generator().manual_seed(2))


def test_the_names_of_kinds_are_those_of_configurations() -> None:
    assert tuple(KINDS) == MIXINGS
    assert all(kind().name == name for name, kind in KINDS.items())


def test_every_network_that_mixes_has_an_example() -> None:
    assert {NETWORK_RULES[name].network for name in networks_that_mix()} == set(EXAMPLES)


# What is equal.


@each_kind
@each_network
@each_layout
@torch.no_grad()
def test_a_window_of_one_slice_is_left_as_it_is(name: str, mixing: Mixing, representation: Representation) -> None:
    network, sizes = EXAMPLES[name]
    one = volume(1, sizes)
    assert torch.equal(lifted(network, mixing, representation)(one), lifted(network, None, representation)(one))


@pytest.mark.parametrize("mixing", [Attention(), Conv(), ACS()], ids=lambda each: each.name)
@each_network
@each_layout
@torch.no_grad()
def test_a_fresh_network_is_the_one_without_mixing(name: str, mixing: Mixing, representation: Representation) -> None:
    network, sizes = EXAMPLES[name]
    images = volume(3, sizes)
    mixed = lifted(network, mixing, representation, fresh=True)
    assert torch.equal(mixed(images), lifted(network, None, representation)(images))


@each_kind
@each_network
def test_all_other_weights_begin_as_without_mixing(name: str, mixing: Mixing) -> None:
    network, _ = EXAMPLES[name]
    weights = lifted(network, mixing, LAYOUTS[0], fresh=True).state_dict()
    for key, value in lifted(network, None, LAYOUTS[0]).state_dict().items():
        assert torch.equal(weights[key], value), key


@each_kind
@torch.no_grad()
def test_equal_slices_are_left_as_they_are(mixing: Mixing) -> None:
    images = volume(1).expand(-1, -1, DEPTH, -1, -1)
    mixed, plain = (lifted(UNET, each, LAYOUTS[0])(images) for each in (mixing, None))
    torch.testing.assert_close(mixed, plain)


@each_kind
@each_layout
@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one(mixing: Mixing, representation: Representation) -> None:
    model, images = lifted(UNET, mixing, representation), volume(batch=2)
    torch.testing.assert_close(model(images), torch.cat([model(images[:1]), model(images[1:])]))


@each_kind
@torch.no_grad()
def test_tiles_are_mixed_like_slices_of_a_batch(mixing: Mixing) -> None:
    """The same features in both layouts, with an empty place behind the last tile, which stays as it is."""
    (layer,) = random_layers(mixing, 16)
    slices = torch.randn(2, 16, DEPTH, 4, 6)
    in_images = layer(slices.transpose(1, 2).flatten(0, 1), partial(in_batch, (2, DEPTH)))
    image = to_super_image(slices, (2, 3))
    image[:, :, 4:, 12:] = 7
    mixed = layer(image, partial(in_tiles, (2, 3), DEPTH))
    tiles = from_super_image(mixed, (2, 3), DEPTH)
    torch.testing.assert_close(tiles.transpose(1, 2).flatten(0, 1), in_images)
    assert mixed[:, :, 4:, 12:].unique().tolist() == [7]


def random_layers(mixing: Mixing, *channels: int) -> list[nn.Module]:
    """Mixing layers whose weights are of any size."""
    layers = list(make_mixers(mixing, [(3, each) for each in channels], 4))
    generator = torch.Generator().manual_seed(3)
    for layer in layers:
        for weight in layer.parameters():
            weight.data = random(weight, generator)
    return layers


# What differs.


@each_kind
@each_network
@torch.no_grad()
def test_the_order_of_slices_matters(name: str, mixing: Mixing) -> None:
    """With the batch norms of training: in a fresh network those of prediction leave little of any slice."""
    network, sizes = EXAMPLES[name]
    images, order = volume(DEPTH, sizes), torch.tensor([2, 0, 3, 1, 4])
    differences = []
    for kind in (mixing, None):
        model = lifted(network, kind, LAYOUTS[0]).train()
        (shuffled, _), *_ = model(images[:, :, order])
        (scores, _), *_ = model(images)
        differences.append(float((shuffled - scores[:, :, order]).abs().max()))
    assert differences[0] > 1e-2
    assert differences[1] < 1e-3


@each_kind
@each_network
def test_gradients_reach_both_neighbours(name: str, mixing: Mixing) -> None:
    network, sizes = EXAMPLES[name]
    for kind, reached in ((mixing, True), (None, False)):
        images = volume(3, sizes).requires_grad_()
        scores = lifted(network, kind, LAYOUTS[0])(images)
        (gradient,) = torch.autograd.grad(scores[:, :, 1].square().sum(), images)
        assert [bool(gradient[:, :, other].any()) for other in (0, 1, 2)] == [reached, True, reached]


@each_kind
def test_gradients_reach_the_neighbouring_tiles_and_not_the_others(mixing: Mixing) -> None:
    """Of the last tile of a row and the first of the next: the middle of each, which no convolution carries so far."""
    (layer,) = random_layers(mixing, 16)
    image = torch.randn(1, 16, 8, 18).requires_grad_()
    mixed = layer(image, partial(in_tiles, (2, 3), DEPTH))
    (gradient,) = torch.autograd.grad(from_super_image(mixed, (2, 3), DEPTH)[:, :, 2].square().sum(), image)
    seen = [bool(each.any()) for each in from_super_image(gradient, (2, 3), 6)[0].unbind(1)]
    assert seen == ([True] * 5 if isinstance(mixing, Attention) else [False, True, True, True, False]) + [False]


@each_kind
@each_network
def test_gradients_reach_every_weight_of_the_mixing(name: str, mixing: Mixing) -> None:
    network, sizes = EXAMPLES[name]
    model = lifted(network, mixing, LAYOUTS[0])
    model(volume(3, sizes)).square().mean().backward()
    without = [key for key, weight in model.named_parameters() if ".mix_" in key and not weight.grad.any()]
    assert without == []
    assert any(".mix_" in key for key, _ in model.named_parameters()) == (mixing.name != "shift")


# By hand.


def test_a_shift_by_hand() -> None:
    """Of 8 channels the first comes from the slice before, the second from the one after; the ends keep their own."""
    (layer,) = make_mixers(Shift(), [(0, 8)], 1)
    slices = torch.arange(3.0)[:, None, None, None] + torch.zeros(3, 8, 1, 1)
    shifted = layer(slices, partial(in_batch, (1, 3)))[:, :, 0, 0]
    assert shifted.T.tolist() == [[0, 0, 1], [1, 2, 2]] + [[0, 1, 2]] * 6


def test_more_channels_are_shifted_where_that_is_set_and_none_of_too_few() -> None:
    layers = make_mixers(Shift(share=1), [(0, 4)], 1)
    slices = torch.arange(2.0)[:, None, None, None] + torch.zeros(2, 4, 1, 1)
    assert layers[0](slices, partial(in_batch, (1, 2)))[:, :, 0, 0].T.tolist() == [[0, 0]] * 2 + [[1, 1]] * 2
    (few,) = make_mixers(Shift(), [(0, 7)], 1)
    images = torch.rand(2, 7, 1, 1)
    assert few(images, partial(in_batch, (1, 2))) is images


def test_a_convolution_by_hand() -> None:
    """The kernel (0.25, 0.25, 0.5), which meets the outermost slices twice."""
    (layer,) = make_mixers(Conv(), [(0, 1)], 1)
    layer.before.data[:], layer.after.data[:] = 0.25, 0.5
    slices = torch.tensor([0.0, 4.0, 16.0])[:, None, None, None]
    mixed = layer(slices, partial(in_batch, (1, 3))).flatten().tolist()
    assert mixed == [0.75 * 0 + 0.5 * 4 - 0.25 * 0, 0.25 * 0 + 0.25 * 4 + 0.5 * 16, 0.25 * 4 + 0.75 * 16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_planes_across_the_slices_by_hand(dtype: torch.dtype) -> None:
    """Of four channels the first sees slices and columns, the second slices and rows, the others nothing but their own.

    Values are small whole numbers, which both types hold.
    """
    (layer,) = make_mixers(ACS(), [(0, 4)], 1)
    # The slice before comes first, then the one after: pixels on the left and right in channel 2, above in channel 3.
    layer.along_columns.weight[0, 2, 0, 0] = 1
    layer.along_columns.weight[1, 2, 0, 2] = 2
    layer.along_rows.weight[1, 3, 0, 0] = 3
    slices = torch.zeros(3, 4, 3, 3)
    slices[0, 2, 1, 0], slices[2, 2, 1, 2], slices[1, 3, 0, 1] = 5, 7, 1
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        mixed = layer(slices.to(dtype), partial(in_batch, (1, 3))).float()
    added = mixed - slices
    expected = torch.zeros(3, 4, 3, 3)
    # The middle slice has nothing of its own: 5 on the left in the slice before, 7 on the right in the one after.
    expected[1, 0, 1, 1] = 1 * 5 + 2 * 7
    # The 1 above is in the slice after the first one, and in the middle slice itself, but not after it.
    expected[0, 1, 1, 1], expected[1, 1, 1, 1] = 3, -3
    # Beyond the ends the outermost slice is met again, so that nothing is new there.
    assert torch.equal(added, expected)


def test_planes_of_too_few_channels_add_nothing() -> None:
    (few,) = make_mixers(ACS(), [(0, 3)], 1)
    images = torch.rand(2, 3, 4, 4)
    assert few(images, partial(in_batch, (1, 2))) is images
    assert not list(few.parameters())


@torch.no_grad()
def test_attention_by_hand() -> None:
    """One head of one channel without weights of its own: means of the values, nearer slices first."""
    (layer,) = make_mixers(Attention(first_stage=0, num_heads=1, head_width=1), [(0, 2)], 1)
    layer.inner.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    layer.outer.weight.copy_(torch.tensor([[0.0], [1.0]]))
    # After the norm the first channel is 1, -1 or 1.
    slices = torch.tensor([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0]])[:, :, None, None]
    mixed = layer(slices, partial(in_batch, (1, 3)))[:, :, 0, 0]
    slope = 2.0**-8
    near, far = torch.exp(torch.tensor([-slope, -2 * slope])).tolist()
    outer = (1 - near + far) / (1 + near + far) - 1
    middle = (near - 1 + near) / (1 + 2 * near) + 1
    torch.testing.assert_close(mixed[:, 0], slices[:, 0, 0, 0])
    added = mixed[:, 1] - slices[:, 1, 0, 0]
    torch.testing.assert_close(added, torch.tensor([outer, middle, outer]), rtol=1e-4, atol=0)


@torch.no_grad()
def test_each_distance_has_its_bias_and_far_ones_share_one() -> None:
    layer = SliceAttention(8, 1, 4)
    layer.biases.copy_(torch.arange(2.0 * REACH + 1))
    found = layer._nearness(REACH + 3, torch.zeros(()))[0]
    slices = range(REACH + 3)
    steps = [[there - here for there in slices] for here in slices]
    expected = [[REACH + max(-REACH, min(step, REACH)) - abs(step) / 256 for step in row] for row in steps]
    assert found.tolist() == expected


def test_attention_is_for_the_coarse_stages() -> None:
    def kinds(first_stage: int, num_stages: int) -> list[bool]:
        inputs = [(stage, 8) for stage in range(num_stages)]
        layers = make_mixers(Attention(first_stage=first_stage), inputs, num_stages)
        return [not isinstance(layer, NoMixing) for layer in layers]

    assert kinds(3, 6) == [False, False, False, True, True, True]
    assert kinds(3, 3) == [False, False, True]
    assert kinds(0, 2) == [True, True]


# What it costs.


def counted(network: Network, representation: Representation, mixing: Mixing | None, depth: int = 6) -> Any:
    spec = network.model_copy(update={"mixing": mixing})
    return training_memory(spec, representation, (depth, 16, 16), 2, num_channels=1, num_outputs=2)


@pytest.mark.parametrize("representation", [Slices(axis=0), SuperImage(grid=(2, 3))], ids=lambda each: each.name)
def test_parameters_and_arithmetic_by_hand(representation: Representation) -> None:
    """Three stages: the inputs of two on the way down and of two on the way up, attention at the coarsest."""
    plain = counted(UNET, representation, None)
    points = [WIDTHS[0], WIDTHS[1], WIDTHS[1], WIDTHS[2]]
    kinds = (Shift(), Conv(), ACS(), Attention())
    shift, conv, acs, attention = (counted(UNET, representation, each) for each in kinds)
    assert (shift.num_parameters, shift.flops) == (plain.num_parameters, plain.flops)
    assert (conv.num_parameters - plain.num_parameters, conv.flops) == (2 * sum(points), plain.flops)
    # A quarter of the channels in each plane, two taps each, of three pixels of all channels.
    kernels = [2 * 2 * (width // 4) * width * 3 for width in points]
    assert acs.num_parameters - plain.num_parameters == sum(kernels)
    pixels = [2 * 6 * size * size for size in (16, 8, 8, 4)]
    once = sum(2 * kernel * number for kernel, number in zip(kernels, pixels, strict=True))
    assert acs.flops - plain.flops == 3 * once
    channels, inner, depth = WIDTHS[2], 4 * 32, 6
    num_biases = 4 * (2 * REACH + 1)
    assert attention.num_parameters - plain.num_parameters == 2 * channels + 4 * channels * inner + num_biases
    places = 2 * 4 * 4
    linear = depth * (2 * channels * 3 * inner + 2 * inner * channels)
    between = 2 * (2 * depth * depth * inner)
    # The biases, and their gradient.
    of_biases = 2 * (2 * depth * depth * num_biases)
    assert attention.flops - plain.flops == 3 * places * (linear + between) + of_biases


@each_kind
@each_layout
def test_arithmetic_is_what_torch_counts_of_a_real_update(mixing: Mixing, representation: Representation) -> None:
    use = counted(UNET, representation, mixing)
    model = lifted(UNET, mixing, representation).train()
    with flop_counter() as counter:
        outputs = model(torch.zeros(2, 1, 6, 16, 16))
        torch.stack([scores.mean() for scores, _ in outputs]).sum().backward()
    assert use.flops == counter.get_total_flops()


@pytest.mark.parametrize("representation", [Slices(axis=0), SuperImage(grid=(2, 3))], ids=lambda each: each.name)
def test_planned_memory_has_the_mixed_features(representation: Representation) -> None:
    """By hand: the next stage keeps mixed features in half precision beside those that the skip connection keeps."""
    plain, shift = (counted(UNET, representation, each).activations for each in (None, Shift()))
    numbers = 2 * 6 * (8 * 16 * 16 + 16 * 8 * 8 + 16 * 8 * 8 + 24 * 4 * 4)
    assert 0.5 * 2 * numbers <= shift - plain <= 1.5 * 2 * numbers


@each_kind
def test_planned_memory_grows_with_the_batch_as_ever(mixing: Mixing) -> None:
    spec = UNET.model_copy(update={"mixing": mixing})
    uses = [
        training_memory(spec, SuperImage(grid=(2, 2)), (4, 16, 16), batch, num_channels=1, num_outputs=3).activations
        for batch in (2, 4, 6)
    ]
    assert uses[2] - uses[1] == pytest.approx(uses[1] - uses[0], rel=1e-3)


# Types and layouts.


@each_kind
@each_layout
def test_bfloat16_is_about_float32(mixing: Mixing, representation: Representation) -> None:
    images, found = volume(), []
    for dtype in (torch.float32, torch.bfloat16):
        model = lifted(UNET, mixing, representation)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            scores = model(images)
        assert scores.dtype == dtype
        scores.float().square().mean().backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        found.append((scores.detach().float(), gradient))
    (exact, exact_gradient), (half, half_gradient) = found
    assert (half - exact).norm() < 0.1 * exact.norm()
    assert torch.cosine_similarity(half_gradient, exact_gradient, dim=0) > 0.98


@pytest.mark.parametrize("mixing", [Attention(), Conv(), ACS()], ids=lambda each: each.name)
def test_gradients_of_the_weights_are_sums_over_many_places_in_bfloat16_too(mixing: Mixing) -> None:
    """In 16 bits sums stop growing early; here they are of 40,000 numbers. Those of the bias cancel, but for a rest."""
    features = torch.randn(10, 16, 64, 64, generator=torch.Generator().manual_seed(4))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        (layer,) = random_layers(mixing, 16)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            mixed = layer(features.to(dtype), partial(in_batch, (2, 5)))
        (mixed.float() * features).sum().backward()
        found.append({name: weight.grad for name, weight in layer.named_parameters()})
    for name, exact in found[0].items():
        assert (found[1][name] - exact).norm() < 0.2 * exact.norm(), name


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_shape_type_and_layout_in_memory_are_kept(
    mixing: Mixing, dtype: torch.dtype, order: torch.memory_format
) -> None:
    (layer,) = random_layers(mixing, 16)
    layouts: list[tuple[SliceLayout, tuple[int, ...]]] = [
        (partial(in_batch, (2, 3)), (6, 16, 4, 6)),
        (partial(in_tiles, (2, 2), 3), (2, 16, 8, 12)),
    ]
    for layout, shape in layouts:
        features = torch.randn(shape).to(dtype).contiguous(memory_format=order)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            mixed = layer(features, layout)
        assert (mixed.shape, mixed.dtype) == (features.shape, dtype)
        assert mixed.is_contiguous(memory_format=order)


@each_kind
def test_channels_last_models_give_the_same_scores(mixing: Mixing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg25d.core.device.computes_with_avx2", lambda: False)
    plain = lifted(UNET, mixing, LAYOUTS[0])
    placed = Execution(torch.device("cpu"), torch.float32).place(copy.deepcopy(plain))
    assert placed.get_submodule("network.encoder.1.0.conv").weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(placed(volume()), plain(volume()), rtol=1e-4, atol=1e-5)


@each_kind
def test_the_same_seed_gives_the_same_bits(mixing: Mixing) -> None:
    gradients = []
    for _ in range(2):
        model = lifted(UNET, mixing, LAYOUTS[1]).train()
        sum(scores.square().mean() for scores, _ in model(volume(batch=2))).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@each_kind
def test_copies_have_weights_of_their_own(mixing: Mixing) -> None:
    """Of the running mean of the weights, and of fused models."""
    model = lifted(UNET, mixing, LAYOUTS[0])
    copied, before = copy.deepcopy(model), model(volume())
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert torch.equal(copied(volume()), before)


@pytest.mark.slow
@each_kind
@each_layout
def test_mixing_can_be_exported(mixing: Mixing, representation: Representation) -> None:
    model, images = lifted(UNET, mixing, representation), volume()
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images))


# Settings.


@pytest.mark.parametrize(
    "mixing",
    [None, Shift(share=0.5), Attention(first_stage=2, num_heads=2, head_width=16), Conv(), ACS(share=1)],
    ids=str,
)
@each_network
def test_settings_survive_json_and_none_is_not_written(name: str, mixing: Mixing | None) -> None:
    spec = EXAMPLES[name][0].model_copy(update={"mixing": mixing})
    written = spec.model_dump_json()
    assert type(spec).model_validate_json(written) == spec
    assert ("mixing" in written) == (mixing is not None)
    assert hash(type(spec).model_validate_json(written)) == hash(spec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNetSpec(widths=(4, 8), mixing={"name": "tile"}, **SQUARE), "'shift', 'attention', 'conv'"),
        (lambda: UNetSpec(widths=(4, 8), mixing={"name": "conv", "share": 0.5}, **SQUARE), "Extra inputs"),
        (lambda: UNetSpec(widths=(4, 8), mixing={"name": "shift", "share": 0}, **SQUARE), "greater than 0"),
        (lambda: UNetSpec(widths=(4, 8), mixing={"name": "acs", "share": 2}, **SQUARE), "less than or equal to 1"),
        (lambda: RSTNSpec(network=UNetSpec(widths=WIDTHS, mixing=Shift(), **SQUARE)), "crops differ from slice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


@each_kind
def test_without_a_layout_nothing_is_mixed_in_silence(mixing: Mixing) -> None:
    network = UNET.model_copy(update={"mixing": mixing}).build(1, 2)
    with pytest.raises(ValueError, match="it has to be lifted to volumes"):
        network(torch.zeros(2, 1, 8, 8))
