"""The Swin UNETR: published counts, and sizes that MONAI refuses."""

import pytest
import torch
from torch.nn import functional

from seg25d.networks.swin_unetr import LayerNorm, SwinUNETRSpec, padded_sizes


@pytest.mark.parametrize(("dims", "expected"), [(2, 6_302_539), (3, 15_703_843)])
def test_counts_of_the_paper(dims: int, expected: int) -> None:
    with torch.device("meta"):
        network = SwinUNETRSpec(dims=dims).build(2, 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(
    ("sizes", "padded"),
    [((144, 144, 144), (160, 160, 160)), ((64, 33), (64, 64)), ((1, 32), (32, 64)), ((64, 5, 7), (64, 32, 32))],
)
def test_sizes_are_padded_to_multiples_of_32_but_not_to_a_single_pixel_at_the_bottom(
    sizes: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    assert padded_sizes(sizes) == padded


def test_zeros_are_added_at_the_end_and_their_scores_cut_off() -> None:
    torch.manual_seed(0)
    network = SwinUNETRSpec(dims=2, feature_size=12).build(1, 2).eval()
    images = torch.randn(1, 1, 33, 60)
    with torch.no_grad():
        expected = network.network(functional.pad(images, (0, 4, 0, 31)))[..., :33, :60]
        assert torch.equal(network(images), expected)


def test_layer_norm_is_torchs_and_stays_in_half_precision() -> None:
    features = torch.randn(2, 3, 8)
    ours, torchs = LayerNorm(8), torch.nn.LayerNorm(8)
    for norm in (ours, torchs):
        torch.nn.init.constant_(norm.weight, 2.0)
        torch.nn.init.constant_(norm.bias, -0.5)
    torch.testing.assert_close(ours(features), torchs(features))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(features.bfloat16()).dtype == torch.bfloat16


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SwinUNETRSpec(dims=2, feature_size=12, checkpointing=checkpointing).build(1, 2).train()
        network(torch.randn(1, 1, 32, 64))[0][0].square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
