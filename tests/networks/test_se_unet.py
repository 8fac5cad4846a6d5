"""The SE-norm U-Net: published counts, the norm's formula, and where the vision paths go."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.se_unet import SENorm, SEResidualBlock, SEUNet, SEUNetSpec


def spec(dims: int, stages: int = 5, **settings: Any) -> SEUNetSpec:
    return SEUNetSpec.model_validate(
        {"strides": ((1,) * dims, *((2,) * dims,) * (stages - 1)), "kernels": ((3,) * dims,) * stages, **settings}
    )


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("dims", "encoder_kernel", "expected"), [(2, 3, 8_508_001), (3, 3, 21_751_681), (2, 7, 28_092_001)]
)
def test_counts_of_the_paper(dims: int, encoder_kernel: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(spec(dims, encoder_kernel=encoder_kernel).build(2, 1)) == expected


def test_kernels_of_the_encoder() -> None:
    with torch.device("meta"):
        network = spec(2, stages=3, encoder_kernel=7, kernels=((1, 3), (3, 3), (3, 3))).build(1, 1)
    kernels = [
        [block.block.conv.kernel_size for block in stage if isinstance(block, SEResidualBlock)]
        for stage in network.encoder
    ]
    assert kernels == [[(1, 7), (1, 3)], [(7, 7)] * 3, [(7, 7)] * 3]
    assert [block.conv.kernel_size for block in network.first] == [(1, 3), (3, 3)]


def test_se_norm_by_its_formula() -> None:
    torch.manual_seed(1)
    norm = SENorm(4, 2, 3).double()
    images = torch.randn(2, 4, 2, 3, 5, dtype=torch.double)
    expected = torch.empty_like(images)
    for number, image in enumerate(images):
        means = torch.stack([channel.mean() for channel in image])
        gates = []
        for branch in (norm.scale, norm.shift):
            first, second = branch[0], branch[2]
            hidden = (first.weight.flatten(1) @ means + first.bias).clamp(min=0)
            gates.append(second.weight.flatten(1) @ hidden + second.bias)
        scale, shift = 1 / (1 + torch.exp(-gates[0])), torch.tanh(gates[1])
        for index, channel in enumerate(image):
            deviation = torch.sqrt(((channel - channel.mean()) ** 2).mean() + 1e-5)
            expected[number, index] = scale[index] * (channel - channel.mean()) / deviation + shift[index]
    torch.testing.assert_close(norm(images), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_se_norm_has_the_gradients_of_instance_norm(layout: torch.memory_format) -> None:
    torch.manual_seed(2)
    norm = SENorm(4, 2, 3).double()
    images = torch.randn(2, 4, 2, 3, 5, dtype=torch.double).to(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 4, 2, 3, 5, dtype=torch.double)

    def plain(images: Tensor) -> Tensor:
        means = images.mean((2, 3, 4), keepdim=True)
        return norm.scale(means) * functional.instance_norm(images) + norm.shift(means)

    wanted = [images, *norm.parameters()]
    ours = torch.autograd.grad((norm(images) * weights).sum(), wanted)
    for gradient, expected in zip(ours, torch.autograd.grad((plain(images) * weights).sum(), wanted), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_se_norm_of_a_single_voxel_is_its_shift_and_half_precision_stays() -> None:
    norm = SENorm(4, 2, 2)
    images = torch.randn(1, 4, 1, 1)
    # A voxel less itself is 0 up to rounding, of which the norm makes 316 times as much (1 / sqrt(1e-5)).
    torch.testing.assert_close(norm(images), norm.shift(images), rtol=0, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(("channels", "projected"), [(4, False), (8, True)])
def test_residual_block_adds_input_or_projection(channels: int, projected: bool) -> None:
    block = SEResidualBlock(4, channels, (3, 3), 2)
    images = torch.randn(1, 4, 5, 5)
    shortcut = block.shortcut(images) if projected else images
    torch.testing.assert_close(block(images), block.block(images) + shortcut)
    if projected:
        assert block.shortcut.conv.kernel_size == (1, 1)


def test_vision_paths_go_from_every_coarse_decoder_stage_to_the_finest() -> None:
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 1), (1, 2, 2))
    network = spec(3, stages=4, width=4, strides=strides).build(1, 2).eval()
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            seen[f"{name} in"], seen[f"{name} out"] = inputs[0], output

        return hook

    for name in ("first.0", "second.0", "second.1", "second.2", "visions.0", "visions.1"):
        network.get_submodule(name).register_forward_hook(remember(name))
    with torch.no_grad():
        network(torch.randn(1, 1, 4, 16, 8))
    assert torch.equal(seen["visions.0 in"], seen["second.1 out"])
    assert torch.equal(seen["visions.1 in"], seen["second.2 out"])
    assert [tuple(seen[f"visions.{index} out"].shape) for index in range(2)] == [(1, 4, 4, 8, 4), (1, 4, 2, 4, 4)]
    enlarged = [
        functional.interpolate(seen["visions.0 out"], scale_factor=(1, 2, 2), mode="trilinear", align_corners=False),
        functional.interpolate(seen["visions.1 out"], scale_factor=(2, 4, 2), mode="trilinear", align_corners=False),
    ]
    torch.testing.assert_close(seen["second.0 in"], seen["first.0 out"] + enlarged[0] + enlarged[1])


def test_names_in_tables() -> None:
    assert spec(2, stages=3).summary == "24-48-96"
    assert spec(2, stages=2, encoder_kernel=7).summary == "24-48 k7"
    assert isinstance(spec(2, stages=2, width=2).build(1, 1), SEUNet)
