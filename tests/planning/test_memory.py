import resource
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from seg25d.core import parts
from seg25d.core.device import flop_counter
from seg25d.networks.base import Network
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.se_unet import SEUNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.networks.specs.xception_cbam_unet import XceptionCBAMUNetSpec
from seg25d.planning import memory
from seg25d.planning.memory import (
    GIGABYTE,
    CudaPrecision,
    StorageTracker,
    prediction_memory,
    trace_training_step,
    training_memory,
)
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

FLOAT32, BFLOAT16 = 4, 2


def small_unet(dims: int, *, norm: str = "instance") -> UNetSpec:
    ones, twos, threes = (1,) * dims, (2,) * dims, (3,) * dims
    return UNetSpec(widths=(8, 16), strides=(ones, twos), kernels=(threes, threes), norm=norm)


class Chain(nn.Module):
    """`depth` 1 x 1 x 1 convolutions one after the other."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Conv3d(channels, channels, 1, bias=False) for _ in range(depth)])

    def forward(self, volume: Tensor) -> list[tuple[Tensor, float]]:
        return [(self.layers(volume), 1.0)]


def test_tracker_counts_each_storage_once_and_lets_it_go() -> None:
    with FakeTensorMode(), StorageTracker() as tracker:
        first = torch.empty(100)
        tracker.label("kept", [first])
        second = first * 2
        second.view(10, 10).add_(1)
        third = torch.empty(50)
        del second
        fourth = torch.empty(75)
        del third, fourth
        peak = tracker.peak()
    # 100 + 100 + 50 numbers before `second` goes, 100 + 50 + 75 after it.
    assert peak == {"kept": 100 * FLOAT32, "": 150 * FLOAT32}


def test_tracker_knows_the_largest_tensor_without_what_repeats_it() -> None:
    with FakeTensorMode(), StorageTracker() as tracker:
        small = torch.empty(100, dtype=torch.bfloat16)
        small.expand(50, 100)
        (small * 2).float()
        torch.empty(70, dtype=torch.float64)
    assert tracker.largest_tensor == 100


def test_tracker_follows_what_autograd_saves() -> None:
    with FakeTensorMode(), StorageTracker() as tracker:
        weight = torch.empty(100, requires_grad=True)
        result = weight.exp().exp().sum()
        del weight
        at_the_end = tracker.peak()
        result.backward()
    # Weight, both results of exp (saved) and the sum.
    assert at_the_end == {"": 300 * FLOAT32 + FLOAT32}


def test_parameters_gradients_and_optimizer_are_counted_exactly() -> None:
    use = trace_training_step(lambda: Chain(2, 4), (1, 4, 16, 16, 16), 4)
    assert use.num_parameters == 2 * 16
    # Weights and their running mean; gradients; two moments and one step count per tensor.
    assert use.parameters == 2 * 32 * FLOAT32
    assert use.optimizer == 2 * 32 * FLOAT32 + 2 * FLOAT32
    assert use.total == use.parameters + use.gradients + use.optimizer + use.activations


def test_arithmetic_is_counted_forward_and_backward() -> None:
    """By hand: two layers of 4 x 4 products and sums per voxel; the first passes no gradient on to the image."""
    use = trace_training_step(lambda: Chain(2, 4), (1, 4, 16, 16, 16), 4)
    assert use.flops == (2 + 2 + 1) * 2 * 4 * 4 * 16**3


def test_arithmetic_is_what_torch_counts_of_a_real_update() -> None:
    representation = SuperImage(grid=(2, 2))
    use = training_memory(small_unet(2), representation, (4, 16, 16), 2, num_channels=1, num_outputs=3)
    model = representation.lift(small_unet(2).build(1, 3)).train()
    with flop_counter() as counter:
        torch.stack([scores.mean() for scores, _ in model(torch.zeros(2, 1, 4, 16, 16))]).sum().backward()
    assert use.flops == counter.get_total_flops()


def test_an_additional_layer_costs_its_half_precision_input_and_weights() -> None:
    channels, voxels = 4, 16**3
    deep, shallow = (
        trace_training_step(lambda depth=depth: Chain(depth, channels), (2, channels, 16, 16, 16), channels)
        for depth in (3, 2)
    )
    kept = 2 * channels * voxels * BFLOAT16
    assert deep.activations - shallow.activations == kept + channels**2 * BFLOAT16


def test_memory_is_affine_in_the_batch() -> None:
    uses = [
        training_memory(small_unet(2), SuperImage(grid=(2, 2)), (4, 16, 16), batch, num_channels=1, num_outputs=3)
        for batch in (2, 4, 6)
    ]
    first, second, third = (use.activations for use in uses)
    assert third - second == pytest.approx(second - first, rel=1e-3)
    assert len({use.parameters for use in uses}) == 1


def test_group_norm_runs_in_float32_as_on_cuda() -> None:
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16), CudaPrecision():
        images = nn.Conv2d(1, 4, 3)(torch.empty(1, 1, 8, 8))
        assert images.dtype == torch.bfloat16
        assert nn.GroupNorm(4, 4)(images).dtype == torch.float32
        with torch.autocast("cpu", enabled=False):
            assert images.softmax(1).dtype == torch.bfloat16


def small_vnet() -> VNetSpec:
    return VNetSpec(
        widths=(8, 16),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3), (3, 3, 3)),
        encoder_blocks=(3, 3),
        decoder_blocks=(2,),
    )


@pytest.mark.parametrize(
    "network",
    [small_vnet(), pytest.param(SwinUNETRSpec(dims=3, feature_size=12), marks=pytest.mark.slow)],
    ids=lambda spec: spec.name,
)
def test_checkpointing_needs_less_memory(network: Network) -> None:
    uses = [
        training_memory(spec, Volume(), (32, 32, 64), 2, num_channels=1, num_outputs=2)
        for spec in (network, network.model_copy(update={"checkpointing": True}))
    ]
    assert uses[1].activations < 0.9 * uses[0].activations
    assert uses[1].num_parameters == uses[0].num_parameters


@pytest.mark.parametrize(
    "network",
    [
        SEUNetSpec(width=8, strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3))),
        pytest.param(XceptionCBAMUNetSpec(), marks=pytest.mark.slow),
        pytest.param(ResNetUNetSpec(depth=18), marks=pytest.mark.slow),
        RSTNSpec(network=UNetSpec(widths=(8, 16), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2)),
    ],
    ids=lambda spec: spec.name,
)
def test_other_networks_can_be_traced(network: Network) -> None:
    use = training_memory(network, Slices(axis=0, context=1), (2, 64, 32), 2, num_channels=1, num_outputs=2)
    with torch.device("meta"):
        parameters = list(network.build(3, 2).parameters())
    assert use.num_parameters == sum(parameter.numel() for parameter in parameters)
    assert use.activations > 2 * 2 * 64 * 32 * 3 * FLOAT32


def test_the_largest_crops_are_planned_for() -> None:
    """Without data a crop is the whole image: by hand, one pass of each of two networks and the saliency between."""
    unet, window, channels = small_unet(2), (4, 32, 32), 3
    one, both = (
        training_memory(network, Slices(axis=0, context=1), window, 2, num_channels=1, num_outputs=2)
        for network in (unet, RSTNSpec(network=unet))
    )
    pixels = 2 * 4 * 32 * 32
    # Forward, backward for weights, backward for what goes in; the image needs no gradient, so that the first layer of
    # one network has two of three, and the same layer of the fine one all.
    first_layer = 2 * pixels * channels * unet.widths[0] * 3 * 3
    saliency = 3 * 2 * pixels * (1 * channels * 3 * 3 + channels * channels * 5 * 5)
    assert both.flops == 2 * one.flops + first_layer + saliency
    kept = one.activations - FLOAT32 * pixels * channels
    assert 2 * kept < both.activations < 3.5 * kept


def test_what_is_planned_for_the_rstn_is_what_torch_counts_of_a_real_update() -> None:
    """The coarse network finds nothing: the crop is the whole image."""
    spec, representation = RSTNSpec(network=small_unet(2)), Slices(axis=0, context=1)
    use = training_memory(spec, representation, (4, 32, 32), 2, num_channels=1, num_outputs=2)
    network = spec.build(3, 2)
    assert network.coarse.heads[0].bias is not None
    nn.init.zeros_(network.coarse.heads[0].weight)
    network.coarse.heads[0].bias.data[:] = torch.tensor([9.0, -9.0])
    model = representation.lift(network).train()
    with flop_counter() as counter:
        torch.stack([scores.mean() for scores, _ in model(torch.randn(2, 1, 4, 32, 32))]).sum().backward()
    assert use.flops == counter.get_total_flops()


def test_the_memory_of_predicting_with_crops_can_be_told() -> None:
    spec, representation = RSTNSpec(network=small_unet(2)), Slices(axis=0)
    bytes_ = prediction_memory(lambda: representation.lift(spec.build(1, 2)), (2, 1, 4, 32, 32))
    weights = sum(weight.numel() for weight in spec.build(1, 2).parameters())
    assert bytes_ > FLOAT32 * (weights + 2 * 4 * 32 * 32 * 16)


@pytest.mark.parametrize(
    ("network", "representation", "window"),
    [
        (small_unet(2), Slices(axis=0), (9, 96, 80)),
        (small_unet(3), Volume(), (18, 64, 48)),
        (small_unet(2, norm="batch"), SuperImage(grid=(4, 4)), (13, 48, 64)),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_first_parts_of_the_loss_take_what_all_of_them_take(
    network: UNetSpec, representation: Any, window: tuple[int, ...], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.sums_in_parts, "__defaults__", (1 << 18,))
    results = []
    for most in (memory.TRACED_PARTS, None):
        monkeypatch.setattr(memory, "TRACED_PARTS", most)
        results.append(
            training_memory.__wrapped__(network, representation, window, batch_size, num_channels=1, num_outputs=40)
        )
    assert results[0] == results[1]


def test_nothing_is_allocated() -> None:
    # Warm up what PyTorch loads on the first trace.
    training_memory(small_unet(3), Volume(), (8, 8, 8), 1, num_channels=1, num_outputs=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use = training_memory(small_unet(3), Volume(), (512, 512, 512), 8, num_channels=1, num_outputs=2)
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert use.total > 80 * GIGABYTE
    assert grown_bytes < 200 << 20


def test_tracing_leaves_no_trace() -> None:
    training_memory(small_unet(2, norm="none"), SuperImage(grid=(1, 1)), (1, 8, 8), 1, num_channels=1, num_outputs=2)
    assert not torch.is_autocast_enabled("cpu")
    assert type(torch.empty(1) + 1) is Tensor
