"""Convolutions are right and go the ways that they should."""

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seg25d.core.device import computes_on_x86, flop_counter
from seg25d.networks import convolutions
from seg25d.networks.blocks import InstanceNorm, PReLU
from seg25d.networks.convolutions import CONV, Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d
from seg25d.planning.memory import trace_training_step

ON_X86 = pytest.mark.skipif(not computes_on_x86(), reason="torch does not compute with AVX here")
CONVOLUTIONS = [
    ({"kernel_size": 3, "padding": 1}, True, True),
    ({"kernel_size": 3, "padding": 1, "stride": 2, "bias": False}, True, True),
    ({"kernel_size": (1, 3, 5), "padding": (0, 1, 2)}, False, True),
    ({"kernel_size": 2, "stride": 2}, True, False),
    ({"kernel_size": 1}, False, False),
    ({"kernel_size": 3, "padding": 1, "groups": 4}, False, False),
    ({"kernel_size": 3, "padding": 2, "dilation": 2}, False, False),
    ({"kernel_size": 3, "padding": "same"}, False, False),
]
"""Settings; whether they go to oneDNN for one small volume, and for several on AVX2."""


@ON_X86
@pytest.mark.parametrize("avx2", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("num_volumes", [1, 2])
@pytest.mark.parametrize(("settings", "if_alone", "on_avx2"), CONVOLUTIONS, ids=str)
def test_our_3d_convolution_and_its_gradients_are_torchs(
    settings: dict[str, Any],
    if_alone: bool,
    on_avx2: bool,
    num_volumes: int,
    layout: torch.memory_format,
    avx2: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: avx2)
    torch.manual_seed(0)
    ours, torchs = Conv3d(4, 8, **settings), nn.Conv3d(4, 8, **settings)
    torchs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.contiguous(memory_format=layout)
    volumes = torch.randn(num_volumes, 4, 5, 8, 9).contiguous(memory_format=layout)
    above = torch.randn_like(torchs(volumes))
    results = []
    for layer in (ours, torchs):
        seen = volumes.clone().requires_grad_()
        result = layer(seen)
        result.backward(above)
        results.append((result, seen.grad, *(weight.grad for weight in layer.parameters())))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    expected = (if_alone and num_volumes == 1) or (on_avx2 and avx2)
    assert (type(results[0][0].grad_fn).__name__ == "_OneDNNConv3dBackward") == expected


@ON_X86
@pytest.mark.parametrize("num_volumes", [1, 2])
def test_images_and_frozen_weights_need_no_gradient(num_volumes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: True)
    conv, volumes = Conv3d(2, 3, 3, padding=1), torch.randn(num_volumes, 2, 4, 4, 4)
    conv(volumes).sum().backward()
    assert conv.weight.grad is not None
    assert conv.bias.grad is not None
    conv.requires_grad_(False)
    seen = volumes.clone().requires_grad_()
    conv(seen).sum().backward()
    assert seen.grad is not None
    conv.bias.requires_grad_(True)
    conv.bias.grad = None
    conv(volumes).sum().backward()
    assert conv.bias.grad.tolist() == [64.0 * num_volumes] * 3


@pytest.mark.parametrize("num_volumes", [1, 2])
def test_without_onednn_and_in_the_compiler_convolutions_are_torchs(
    num_volumes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: True)
    conv, volumes = Conv3d(2, 3, 3, padding=1), torch.randn(num_volumes, 2, 4, 4, 4)
    with torch.backends.mkldnn.flags(enabled=False):
        assert type(conv(volumes).grad_fn).__name__ == "ConvolutionBackward0"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert type(conv(volumes).grad_fn).__name__ == "ConvolutionBackward0"


def test_memory_is_traced_alike_whatever_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data cannot go to oneDNN, and plans are not to depend on the machine that makes them."""

    def build() -> nn.Module:
        return nn.Sequential(Conv3d(1, 8, 3, padding=1), InstanceNorm(8), PReLU(8), Conv3d(8, 2, 3, padding=1))

    traced = []
    for avx2 in (True, False):
        monkeypatch.setattr(convolutions, "computes_with_avx2", lambda avx2=avx2: avx2)
        # Two slices are fewer than the kernel: there convolutions compute in float32, as oneDNN is called in.
        traced.append([trace_training_step(build, (number, 1, 2, 8, 8), 2) for number in (1, 2)])
    assert traced[0] == traced[1]


@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 8, 8)), (3, (2, 2, 2)), (5, (4, 4, 3)), (3, (4, 8, 8))])
def test_weight_gradients_of_small_volumes_in_bfloat16_are_right(kernel: int, size: tuple[int, int, int]) -> None:
    """Those of torch's own layer are not, on CPUs with AVX512-BF16: they depend on uninitialised memory."""
    torch.manual_seed(0)
    conv = Conv3d(16, 16, kernel, padding=kernel // 2)
    volumes, gradient = torch.randn(1, 16, *size), torch.randn(1, 16, *size)
    exact = copy.deepcopy(conv).double()
    exact(volumes.double()).backward(gradient.double())
    for _ in range(3):
        # What is freed here is what the next tensors find.
        rubbish = [torch.full((number,), torch.nan) for number in (1 << 12, 1 << 14, 1 << 16) for _ in range(20)]
        del rubbish
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = conv(volumes)
        scores.backward(gradient.to(scores))
        wanted = exact.weight.grad
        torch.testing.assert_close(conv.weight.grad.double(), wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


OURS = (Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d)
TOLERANCE = 0.03
"""Norm of the error by the norm of what is right, in bfloat16: numbers are rounded to 2^-9."""


class Drawn(NamedTuple):
    """A convolution's settings and the shape of its images."""

    settings: dict[str, Any]
    shape: tuple[int, ...]
    channels_last: bool


@st.composite
def convolutions_of(draw: st.DrawFn, transposed: bool, dims: int) -> Drawn:
    """Any settings with which some pixel comes out, and not too many."""

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    size = each(1, 9 if dims == 3 else 24)
    kernel, stride, dilation = each(1, 7 if dims == 2 else 5), each(1, 3), each(1, 2)
    extent = tuple(step * (length - 1) + 1 for length, step in zip(kernel, dilation, strict=True))
    padding = tuple(draw(st.integers(0, length // 2 + 1)) for length in kernel)
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    values = {
        "in_channels": groups * draw(st.integers(1, 9)),
        "out_channels": groups * draw(st.integers(1, 9)),
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    along = zip(size, extent, stride, padding, strict=True)
    if transposed:
        assume(all(s <= e for s, e in zip(stride, extent, strict=True)))
        further = tuple(draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True))
        values["output_padding"] = further
        results = [(n - 1) * s + e - 2 * p + o for (n, e, s, p), o in zip(along, further, strict=True)]
    else:
        results = [(n + 2 * p - e) // s + 1 for n, e, s, p in along]
    assume(min(results) >= 1 and torch.Size(results).numel() <= 4000)
    return Drawn(values, (draw(st.integers(1, 3)), values["in_channels"], *size), draw(st.booleans()))


def rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def worst_error(ours: type[nn.Module], drawn: Drawn, *, half_weights: bool = False, autocast: bool = True) -> float:
    """Of the result and of all gradients in bfloat16 (float32 without autocast), against torch's own in float64."""
    torchs = ours.__mro__[2]
    layer, exact = ours(**drawn.settings), torchs(**drawn.settings).double()
    for parameter in layer.parameters():
        parameter.data = rounded(torch.randn(parameter.shape))
    exact.load_state_dict(layer.state_dict())
    if half_weights:
        layer.bfloat16()
    images = rounded(torch.randn(drawn.shape))
    if drawn.channels_last:
        images = images.contiguous(memory_format=torch.channels_last if images.dim() == 4 else torch.channels_last_3d)
    seen, exactly = images.clone().requires_grad_(), images.double().requires_grad_()
    wanted = exact(exactly)
    above = rounded(torch.randn(wanted.shape) + 0.5)
    wanted.backward(above.double())
    # What is freed here is what the next tensors find.
    rubbish = [torch.full((1 << exponent,), torch.nan) for exponent in range(4, 18) for _ in range(4)]
    del rubbish
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = layer(seen)
    assert result.dtype == (torch.bfloat16 if autocast else torch.float32)
    result.backward(above.to(result.dtype))
    pairs = [(result.detach(), wanted.detach()), (seen.grad, exactly.grad)]
    pairs += [(parameter.grad, exact.get_parameter(name).grad) for name, parameter in layer.named_parameters()]
    # Gradients of weights are sums over all voxels: one that is near zero by chance is not to count for its rounding.
    floors = (1e-3, 1e-3, *(0.1 * float(above.norm()) for _ in pairs))
    errors = [
        float((found.double() - right).norm() / max(float(right.norm()), floor))
        for (found, right), floor in zip(pairs, floors, strict=False)
    ]
    # max() would lose a NaN that does not come first.
    return max(errors, key=lambda error: (math.isnan(error), error))


@pytest.mark.processor
@pytest.mark.parametrize("ours", OURS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_convolution_in_bfloat16_is_right(ours: type[nn.Module], data: st.DataObject) -> None:
    """With kernels that are larger than the image, of even sizes, with steps, groups, in both layouts."""
    drawn = data.draw(convolutions_of(ours in OURS[2:], 2 if ours in (Conv2d, ConvTranspose2d) else 3))
    torch.manual_seed(0)
    assert worst_error(ours, drawn) <= TOLERANCE


@pytest.mark.parametrize("imitated", [set(), {torch.bfloat16}])
@pytest.mark.parametrize("ours", OURS)
def test_products_of_16_bits_are_right_with_and_without_instructions(
    monkeypatch: pytest.MonkeyPatch, ours: type[nn.Module], imitated: set[torch.dtype]
) -> None:
    """Whichever this processor has."""
    monkeypatch.setattr(convolutions, "_IMITATED", imitated)
    torch.manual_seed(0)
    sizes = (2, 3, 5, 6) if ours in (Conv2d, ConvTranspose2d) else (2, 3, 5, 6, 4)
    assert worst_error(ours, Drawn({"in_channels": 3, "out_channels": 2, "kernel_size": 3}, sizes, True)) <= TOLERANCE


FOUND: dict[str, tuple[type[nn.Module], Drawn]] = {
    "a gradient that nobody writes": (
        ConvTranspose2d,
        Drawn({"in_channels": 8, "out_channels": 1, "kernel_size": (1, 2), "stride": (1, 2)}, (3, 8, 7, 1), True),
    ),
    "the same in 3D": (
        ConvTranspose3d,
        Drawn(
            {"in_channels": 8, "out_channels": 1, "kernel_size": (1, 1, 2), "stride": (1, 1, 2)}, (3, 8, 1, 7, 1), True
        ),
    ),
    "a single channel that looks like channels side by side": (
        Conv2d,
        Drawn({"in_channels": 1, "out_channels": 8, "kernel_size": (2, 2), "stride": (1, 2)}, (3, 1, 7, 3), True),
    ),
    "pixels that are never met": (
        Conv2d,
        Drawn({"in_channels": 7, "out_channels": 3, "kernel_size": 1, "stride": (2, 1)}, (10, 7, 4, 13), True),
    ),
    "the same in slices": (
        Conv3d,
        Drawn(
            {"in_channels": 7, "out_channels": 3, "kernel_size": (3, 1, 1), "stride": (2, 2, 1), "padding": (1, 0, 0)},
            *((2, 7, 10, 4, 13), True),
        ),
    ),
    "steps of a kernel larger than the depth": (
        Conv3d,
        Drawn(
            {
                "in_channels": 16,
                "out_channels": 16,
                "kernel_size": (7, 3, 3),
                "stride": (2, 1, 1),
                "padding": (3, 1, 1),
            },
            *((2, 16, 5, 9, 9), False),
        ),
    ),
    "the same of a transposed one": (
        ConvTranspose3d,
        Drawn(
            {"in_channels": 3, "out_channels": 8, "kernel_size": (7, 3, 3), "stride": 2, "padding": (3, 1, 1)},
            *((2, 3, 3, 9, 9), False),
        ),
    ),
    "nothing but zeros": (
        Conv2d,
        Drawn(
            {
                "in_channels": 2,
                "out_channels": 12,
                "kernel_size": (2, 1),
                "stride": (1, 2),
                "padding": (2, 1),
                "dilation": 2,
                "groups": 2,
            },
            *((3, 2, 16, 1), True),
        ),
    ),
}
"""What oneDNN hung at or wrote beyond its memory, on a CPU with AVX512-BF16."""


@pytest.mark.processor
@pytest.mark.parametrize(
    "how", [{}, {"half_weights": True}, {"autocast": False}], ids=["autocast", "half weights", "float32"]
)
@pytest.mark.parametrize(("ours", "drawn"), FOUND.values(), ids=FOUND)
def test_what_was_found_by_chance_is_right(ours: type[nn.Module], drawn: Drawn, how: dict[str, bool]) -> None:
    torch.manual_seed(0)
    for _ in range(10):
        assert worst_error(ours, drawn, **how) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.processor
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_in_bfloat16_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what torch.compile makes of our convolutions, forward and backward."""
    # In a folder of its own: what was compiled for another instruction set at the same time was taken, and gave NaN.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    network = nn.Sequential(Conv3d(2, 8, 3, 2, 1, bias=False), ConvTranspose3d(8, 4, 2, 2, bias=False))
    volumes, exact = rounded(torch.randn(2, 2, 4, 6, 8)), copy.deepcopy(network).double()
    wanted = exact(volumes.double())
    above = rounded(torch.randn(wanted.shape))
    wanted.backward(above.double())
    compiled = torch.compile(network)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            result = compiled(volumes)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"no compiler works here: {str(error).splitlines()[0]}")
    result.float().backward(above)
    gradients = ((each.grad, exact.get_parameter(name).grad) for name, each in network.named_parameters())
    for found, right in [(result.detach(), wanted.detach()), *gradients]:
        assert float((found.double() - right).norm()) <= TOLERANCE * float(right.norm())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_kernels_of_one_voxel_stride_by_taking_what_they_meet(dims: int, precision: torch.dtype) -> None:
    """oneDNN's own way writes outside of its memory with few channels side by side (its issue 6035)."""
    torch.manual_seed(0)
    stride = (2, 1, 3)[:dims]
    layer = CONV[dims](4, 8, 1, stride)
    torchs = (nn.Conv2d, nn.Conv3d)[dims - 2](4, 8, 1, stride)
    torchs.load_state_dict(layer.state_dict())
    images = torch.randn(2, 4, *(7, 6, 8)[:dims])
    results = []
    for each in (layer, torchs.double()):
        each.zero_grad()
        seen = images.to(each.weight.dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16 and each is layer):
            result = each(seen)
        result.float().square().sum().backward()
        results.append([part.float() for part in (result, seen.grad, *(weight.grad for weight in each.parameters()))])
    tolerance = 3e-2 if precision == torch.bfloat16 else 1e-4
    torch.testing.assert_close(*results, rtol=tolerance, atol=10 * tolerance)
    assert layer.stride == stride


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [ConvTranspose2d, ConvTranspose3d])
def test_transposed_kernels_that_step_further_than_they_reach_are_refused(
    kind: type[nn.Module], precision: torch.dtype
) -> None:
    """oneDNN crashes at some of them: `ConvTranspose2d(7, 5, 1, (1, 3))` with AVX2, channels last."""
    images = torch.randn(2, 7, *(4, 5, 6)[: 2 if kind is ConvTranspose2d else 3])
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16),
        pytest.raises(ValueError, match="must reach as far as it steps"),
    ):
        kind(7, 5, 1, 2)(images)


@pytest.mark.parametrize("avx2", [False, True])
def test_operations_are_counted_whoever_computes_them(avx2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if avx2 and not (torch.backends.mkldnn.is_available() and convolutions.computes_on_x86()):
        pytest.skip("no oneDNN on this processor")
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: avx2)
    volumes = torch.ones(1, 8, 20, 24, 24)
    with flop_counter() as counter, torch.no_grad():
        CONV[3](8, 4, 3, padding=1)(volumes)
    assert counter.get_total_flops() == 2 * volumes[0].numel() * 4 * 27
