"""A law over every gradient that is written by hand: right for every type of the input and of autocast.

Functions are found by importing the whole package, so that a new one fails here until `EXERCISES` says how it is used.
"""

import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

import seg25d
from seg25d.core.parts import _SumsInParts, sums_in_parts
from seg25d.networks import convolutions
from seg25d.networks.blocks import InstanceNorm, PReLU, _ChannelsLastNorm, _CPUPReLU
from seg25d.networks.convolutions import Conv3d, ConvTranspose3d, _HalfConvolution, _OneDNNConv3d, _Settings
from seg25d.representations.projections.geometry import _BackProject, back_project, back_projection
from seg25d.representations.projections.plane import Plane
from seg25d.training.processes import _SumOverProcesses, sum_over_processes

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AUTOCAST = (None, torch.bfloat16, torch.float16)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2.5e-2}
"""Norm of the error by the norm of what is right, for the coarsest type that is met: about three times the rounding of
a number (2^-11 and 2^-8), since weights, results and gradients are rounded one after another."""
PLANE = Plane((5, 6), (1.0, 1.5))
MATRIX = back_projection(PLANE, (0.0, 35.0, 90.0, 140.0))


class _BackProjected(nn.Module):
    """Ours, or the same by torch's own gradient."""

    def __init__(self, ours: bool) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, views: Tensor) -> Tensor:
        if self.ours:
            return back_project(views, MATRIX)
        weights = MATRIX.weights.to(views.dtype)
        return functional.embedding_bag(MATRIX.indices, views, mode="sum", per_sample_weights=weights)


class _Summed(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return sum_over_processes(values)


class _AddedUp(nn.Module):
    """Ours, in two parts, or the same at once."""

    def __init__(self, ours: bool) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, scores: Tensor) -> Tensor:
        def squares(part: Tensor, labels: Tensor) -> list[Tensor]:
            return [(part.square() * labels[:, None]).sum((2, 3, 4))]

        labels = torch.ones(len(scores), *scores.shape[2:], dtype=torch.uint8)
        (result,) = sums_in_parts(squares, scores, labels, 2 * scores.numel()) if self.ours else squares(scores, labels)
        return result


class Exercise(NamedTuple):
    """How a function is met, and what is right."""

    function: type[torch.autograd.Function]
    ours: Callable[[], nn.Module]
    torchs: Callable[[], nn.Module]
    shape: tuple[int, ...]
    channels_last: bool = False
    """Of the input; the function is met in this layout alone."""


CONV: dict[str, Any] = {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2, 3), "padding": (1, 0, 1)}
SINGLE: dict[str, Any] = CONV | {"out_channels": 4, "stride": 2, "groups": 4, "bias": False}
TRANSPOSED: dict[str, Any] = {"in_channels": 4, "out_channels": 6, "kernel_size": (1, 2, 3), "stride": (1, 2, 2)}
EXERCISES = {
    "convolution": Exercise(_HalfConvolution, lambda: Conv3d(**CONV), lambda: nn.Conv3d(**CONV), (2, 4, 4, 5, 6)),
    "convolution of single channels without bias": Exercise(
        _HalfConvolution,
        lambda: Conv3d(**SINGLE),
        lambda: nn.Conv3d(**SINGLE),
        (2, 4, 4, 5, 6),
    ),
    "transposed convolution": Exercise(
        _HalfConvolution,
        lambda: ConvTranspose3d(**TRANSPOSED),
        lambda: nn.ConvTranspose3d(**TRANSPOSED),
        (2, 4, 3, 4, 5),
    ),
    "convolution by oneDNN": Exercise(
        _OneDNNConv3d, lambda: Conv3d(**CONV), lambda: nn.Conv3d(**CONV), (2, 4, 4, 5, 6)
    ),
    "convolution of one volume by oneDNN": Exercise(
        _OneDNNConv3d, lambda: Conv3d(**CONV), lambda: nn.Conv3d(**CONV), (1, 4, 4, 5, 6)
    ),
    "PReLU": Exercise(_CPUPReLU, lambda: PReLU(4), lambda: nn.PReLU(4), (2, 4, 3, 5, 6)),
    "PReLU of images": Exercise(_CPUPReLU, lambda: PReLU(4), lambda: nn.PReLU(4), (2, 4, 5, 6)),
    "instance norm of images": Exercise(
        _ChannelsLastNorm, lambda: InstanceNorm(4), lambda: nn.InstanceNorm2d(4, affine=True), (2, 4, 5, 6), True
    ),
    "instance norm": Exercise(
        _ChannelsLastNorm, lambda: InstanceNorm(4), lambda: nn.InstanceNorm3d(4, affine=True), (2, 4, 3, 5, 6), True
    ),
    "back-projection": Exercise(
        _BackProject, lambda: _BackProjected(True), lambda: _BackProjected(False), (4 * PLANE.size[1], 3)
    ),
    "sums in parts": Exercise(_SumsInParts, lambda: _AddedUp(True), lambda: _AddedUp(False), (2, 4, 4, 3, 5)),
    "sum over processes": Exercise(_SumOverProcesses, _Summed, nn.Identity, (3, 5)),
}


def _subclasses(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


EXTRAS = ("ray", "submitit")
"""What modules need that may be missing."""


def test_every_function_of_the_package_is_exercised() -> None:
    for module in pkgutil.walk_packages(seg25d.__path__, "seg25d."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
    found = {each for each in _subclasses(torch.autograd.Function) if each.__module__.startswith("seg25d.")}
    assert found == {exercise.function for exercise in EXERCISES.values()}


@pytest.fixture(autouse=True)
def _only_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A group of this process alone, for the sum over processes."""
    if "sum over" not in request.node.name:
        yield
        return
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def _by_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 go to oneDNN as they would with AVX2, or never: whatever the processor."""
    ours = "oneDNN" in request.node.name
    if ours and not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(convolutions, "computes_with_avx2", lambda: ours)
    monkeypatch.setattr(convolutions, "computes_on_x86", lambda: ours)


def _inputs(exercise: Exercise, dtype: torch.dtype) -> Tensor:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    images = torch.randn(exercise.shape).to(dtype)
    return images.contiguous(memory_format=layouts[images.dim()]) if exercise.channels_last else images


def _pair(exercise: Exercise, weights: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Our layer and torch's with the same random weights."""
    ours, torchs = exercise.ours().to(weights), exercise.torchs().to(weights)
    for name, parameter in ours.named_parameters():
        nn.init.normal_(parameter)
        torchs.get_parameter(name).data.copy_(parameter.data)
    return ours, torchs


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda like: torch.randn(like.shape),
    "channels last": lambda like: torch.randn(like.movedim(1, -1).shape).movedim(-1, 1),
    "the same for all images": lambda like: torch.randn(1, *like.shape[1:]).expand(like.shape),
    "the same for all channels": lambda like: torch.randn(len(like), 1, *like.shape[2:]).expand(like.shape),
    "of a sum": lambda like: torch.tensor(1.5).expand(like.shape),
}
"""What comes from above, for results of a shape; expanded ones have strides of 0."""


def _autocast(dtype: torch.dtype | None) -> Any:
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def _check(found: Tensor, wanted: Tensor, above: Tensor, tolerance: float, what: str) -> None:
    # The gradient of a norm is zero where all that comes from above is the same.
    scale = max(float(wanted.norm()), float(above.norm()))
    error = float((found.double() - wanted).norm()) / scale
    assert error <= tolerance, f"{what}: {error:.2g}"


def _torchs_type(torchs: nn.Module, images: Tensor, autocast: torch.dtype | None) -> torch.dtype | None:
    """The type of the result of torch's own layer; None where it refuses types that do not fit together."""
    try:
        with torch.no_grad(), _autocast(autocast):
            result: Tensor = torchs(images)
            return result.dtype
    except RuntimeError:
        return None


@pytest.mark.processor
@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("autocast", AUTOCAST, ids=lambda dtype: f"autocast {str(dtype).removeprefix('torch.')}")
def test_results_and_gradients_are_right_or_refused(
    name: str, dtype: torch.dtype, autocast: torch.dtype | None
) -> None:
    """Weights have the input's type, or float32 as in training; where torch refuses a pair, we do."""
    exercise = EXERCISES[name]
    for weights in dict.fromkeys((torch.float32, dtype, torch.float64)):
        torch.manual_seed(0)
        ours, torchs = _pair(exercise, weights)
        images = _inputs(exercise, dtype)
        wanted_type = _torchs_type(torchs, images, autocast)
        if wanted_type is None:
            with pytest.raises(RuntimeError), _autocast(autocast):
                ours(images)
            continue
        tolerance = max(TOLERANCES[each] for each in (dtype, weights, wanted_type))
        exact = torchs.double()
        for kind, inside in itertools.product(GRADIENTS, (False, True)):
            seen, exactly = images.clone().requires_grad_(), images.double().clone().requires_grad_()
            wanted = exact(exactly)
            above = GRADIENTS[kind](wanted).to(wanted_type)
            wanted.backward(above.double())
            with _autocast(autocast):
                result = ours(seen)
                if inside:
                    result.backward(above)
            if not inside:
                result.backward(above)
            assert result.dtype == wanted_type
            _check(result.detach(), wanted.detach(), wanted.detach(), tolerance, f"result, {kind}")
            assert seen.grad is not None
            assert seen.grad.dtype == dtype
            _check(seen.grad, exactly.grad, above, tolerance, f"gradient of the input, {kind}, {inside=}")
            for parameter_name, parameter in ours.named_parameters():
                assert parameter.grad is not None
                assert parameter.grad.dtype == weights
                right = exact.get_parameter(parameter_name).grad
                _check(parameter.grad, right, above, tolerance, f"gradient of {parameter_name}, {kind}, {inside=}")
            ours.zero_grad()
            exact.zero_grad()


def _nodes(result: Tensor) -> Iterator[str]:
    waiting = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            yield type(node).__name__
            waiting += [following for following, _ in node.next_functions]


@pytest.mark.parametrize("name", EXERCISES)
def test_exercises_meet_their_function(name: str) -> None:
    """Without this the law above could hold for what torch does by itself."""
    exercise, met = EXERCISES[name], set()
    for autocast in AUTOCAST:
        with _autocast(autocast):
            met.update(_nodes(exercise.ours()(_inputs(exercise, torch.float32).requires_grad_())))
    assert f"{exercise.function.__name__}Backward" in met


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


HALF_SETTINGS = (
    _Settings((1, 2, 1), (1, 0, 2), (1, 1, 2), False, (0, 0, 0), 2),
    _Settings((2, 1, 2), (1, 0, 1), (1, 2, 1), True, (1, 0, 1), 2),
)
IN_DOUBLE: dict[str, Callable[[], tuple[Callable[..., Tensor], tuple[object, ...]]]] = {
    "convolution": lambda: (
        lambda *tensors: _HalfConvolution.apply(*tensors, HALF_SETTINGS[0]),
        (_random(1, 2, 3, 3, 4), _random(4, 1, 3, 2, 3), _random(4)),
    ),
    "transposed convolution": lambda: (
        lambda *tensors: _HalfConvolution.apply(*tensors, HALF_SETTINGS[1]),
        (_random(1, 2, 2, 3, 2), _random(2, 2, 3, 2, 2), _random(4)),
    ),
    "PReLU": lambda: (_CPUPReLU.apply, (_random(2, 3, 2, 2), _random(3))),
    "instance norm": lambda: (
        lambda *tensors: _ChannelsLastNorm.apply(*tensors, 1e-5),
        (_random(2, 3, 4, 2).contiguous(memory_format=torch.channels_last), _random(3), _random(3)),
    ),
    "back-projection": lambda: (lambda views: _BackProject.apply(views, MATRIX), (_random(4 * PLANE.size[1], 2),)),
    "sum over processes": lambda: (_SumOverProcesses.apply, (_random(3, 2),)),
}
"""Functions that can compute in double precision, with all that is differentiated; oneDNN's cannot."""


@pytest.mark.parametrize("name", IN_DOUBLE)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    function, tensors = IN_DOUBLE[name]()
    assert torch.autograd.gradcheck(function, tensors)
