"""The page covers volumes with the windows of `predict`, for every configuration and kind of mixing between slices."""

from typing import Any

import numpy as np
import pytest
import torch

from seg25d.core.device import Execution
from seg25d.inference.predictor import Predictor
from seg25d.inference.sliding_window import _choose_starts, _pad, axis_weights
from seg25d.inference.windows import default_batch_size
from seg25d.planning.portable_model import Graph, PortableModel, Windows
from seg25d.portable.export import OPSET, free_axes
from seg25d.portable.page_model import _windows
from seg25d.representations.fused_views import FusedViews
from tests.portable.test_export import CASES, make_header

NAMES = [name for name, (representation, _, _) in CASES.items() if not isinstance(representation, FusedViews)]


class LikeGraph(torch.nn.Module):
    """What a graph says of its windows; it computes nothing."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.free_axes = axes


def predictor_of(name: str) -> Predictor:
    header = make_header(*CASES[name])
    model = LikeGraph(free_axes(header.plan))
    return Predictor([model], header, Execution(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("name", NAMES)
def test_windows_their_places_and_weights(name, checks, rng):
    predictor = predictor_of(name)
    header = predictor.header
    record = PortableModel(
        header=header,
        graph=Graph.of(header, free_axes(header.plan), "float32", OPSET),
        windows=Windows.of(header.plan, default_batch_size(header)),
        num_parameters=1,
        window_bytes=1,
    )
    shapes = [tuple(rng.integers(1, 70, 3).tolist()) for _ in range(30)]
    for shape in shapes:
        checks.add("cover", shape=shape, rules=_windows(record).model_dump())
    for shape, found in zip(shapes, checks.run(), strict=True):
        check_cover(found, shape, predictor)


def check_cover(found: dict[str, Any], shape: tuple[int, ...], predictor: Predictor) -> None:
    depth, height, width = shape
    options = predictor.window_options((depth, height, width))
    assert tuple(found["window"]) == options.window, shape
    starts = _choose_starts((depth, height, width), options)
    assert found["starts"] == starts, shape
    padded, offsets = _pad(torch.zeros(1, *shape), options, starts)
    assert (tuple(found["padded"]), tuple(found["offset"])) == (tuple(padded.shape[1:]), offsets), shape
    for axis, weights in enumerate(found["weights"]):
        equal = options.regular is not None and options.regular.axis == axis
        wanted = axis_weights(padded.shape[1 + axis], options.window[axis], starts[axis], equal=equal)
        assert [int(start) for start in weights] == list(wanted)
        np.testing.assert_allclose(list(weights.values()), list(wanted.values()), rtol=1e-6)


def test_deep_windows_and_regular_ones_and_those_of_mixed_slices_are_among_them():
    """Slices in windows as deep as a batch, stacks at multiples of a step, mixed slices in windows as in training."""
    shape = (40, 12, 16)
    assert predictor_of("axial").window_options(shape).window[0] == 2 * CASES["axial"][2][0]
    assert predictor_of("stack").window_options(shape).regular is not None
    mixing = [name for name in NAMES if name.startswith("axial, ")]
    assert mixing
    for name in mixing:
        options = predictor_of(name).window_options(shape)
        assert (options.window[0], options.steps[0]) == (CASES[name][2][0], 0.5)
