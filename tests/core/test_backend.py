"""What numpy and torch do differently comes to the same."""

import inspect
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.backend import (
    HOST,
    NUMPY,
    Backend,
    Host,
    backend_at,
    backend_of,
    cpu_like,
    move_axis,
    num_threads,
    split,
)
from seg25d.core.torch_backend import TORCH, TorchBackend

SEEDS = st.integers(0, 10**6)
CPU = torch.device("cpu")


def arrays(seed: int, *shapes: tuple[int, ...], dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(3 * rng.normal(size=shape)).astype(dtype) for shape in shapes]


def both(name: str, *values: object, **others: object) -> tuple[np.ndarray, np.ndarray]:
    """The results of a method of both libraries, of copies."""
    ours = [value.copy() if isinstance(value, np.ndarray) and value.dtype != np.int64 else value for value in values]
    theirs = [torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value for value in ours]
    theirs = [each.numpy() if getattr(each, "dtype", None) in (torch.int64, torch.float64) else each for each in theirs]
    by_numpy, by_torch = getattr(NUMPY, name)(*ours, **others), getattr(TORCH, name)(*theirs, **others)
    if by_numpy is None:
        return ours[0], theirs[0].numpy()
    return by_numpy, by_torch.numpy()


def test_torch_has_every_method_in_its_own_way():
    methods = {name for name, _ in inspect.getmembers(Backend, inspect.isfunction)}
    assert methods <= set(vars(TorchBackend))


def test_arrays_lead_to_their_library():
    assert backend_of(np.zeros(1)) is NUMPY
    assert backend_of(torch.zeros(1)) is TORCH
    assert backend_at(HOST) is NUMPY
    assert backend_at(CPU) is TORCH
    assert cpu_like(HOST) == HOST == Host()
    assert cpu_like(torch.device("cuda:1")) == cpu_like(CPU) == CPU
    assert (NUMPY.device(np.zeros(1)), TORCH.device(torch.zeros(1))) == (HOST, CPU)
    assert TORCH.moved(torch.zeros(2), HOST).device == CPU


@given(SEEDS)
def test_arithmetic_in_place_is_the_same(seed):
    total, part, weight = arrays(seed, (2, 3, 4, 5), (2, 3, 4, 5), (3, 4, 5))
    for name, others in (("add_product", (part, weight)), ("add_scaled", (part, 0.3)), ("add_converted", (part,))):
        np.testing.assert_allclose(*both(name, total, *others), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(*both("add_converted", total.astype(np.float16), part))


@given(SEEDS, st.sampled_from([0.0, 0.25, 0.7]))
def test_interpolation_between_planes_is_the_same(seed, share):
    first, second, out = arrays(seed, *[(2, 3, 4)] * 3)
    for given_out in (None, out):
        np.testing.assert_allclose(*both("lerp", first, second, share, given_out), rtol=1e-5, atol=1e-5)


@given(SEEDS)
def test_probabilities_are_the_same(seed):
    (scores, out) = arrays(seed, (3, 4, 5), (3, 4, 5))
    scores[0, 0, 0] = 200
    scores[0, 0, 1] = -200
    for name, others in (("softmax", ()), ("quick_softmax", (None,)), ("quick_softmax", (out,)), ("sigmoid", ())):
        with np.errstate(all="raise", under="ignore"):
            found, expected = both(name, scores, *others)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert found.dtype == np.float32


@given(SEEDS, st.integers(1, 9), st.integers(1, 9))
def test_images_of_another_size_are_the_same(seed, height, width):
    def positions(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = ((np.arange(new) + 0.5) * size / new - 0.5).clip(0, size - 1)
        low = np.floor(place).astype(np.int64)
        return low, low + (place > low), place - low

    (scores,) = arrays(seed, (2, 4, 6))
    np.testing.assert_allclose(*both("interpolate", scores, (height, width), positions), rtol=1e-4, atol=1e-4)
    for backend, values in ((NUMPY, scores), (TORCH, torch.from_numpy(scores))):
        out = backend.empty((3, 2, height, width))[1]
        assert backend.interpolate(values, (height, width), positions, out) is out
        np.testing.assert_array_equal(out, backend.interpolate(values, (height, width), positions))
    for axis, size in ((1, height), (2, width)):
        chosen = positions(scores.shape[axis], size)
        np.testing.assert_allclose(
            NUMPY.between(scores, axis, *chosen),
            TORCH.between(torch.from_numpy(scores), axis, *chosen).numpy(),
            rtol=1e-4,
            atol=1e-4,
        )


@given(SEEDS)
def test_shapes_are_changed_alike(seed):
    (volume,) = arrays(seed, (2, 3, 4, 5))
    np.testing.assert_array_equal(*both("pad", volume, (1, 0, 2), (0, 3, 1)))
    np.testing.assert_array_equal(*both("flip", volume, [1, 3]))
    np.testing.assert_array_equal(*both("lowest", volume))
    np.testing.assert_array_equal(*both("highest", volume))
    np.testing.assert_array_equal(*both("copy", volume))
    for axis in range(4):
        for target in range(4):
            expected = np.moveaxis(volume, axis, target)
            np.testing.assert_array_equal(move_axis(volume, axis, target), expected)
            np.testing.assert_array_equal(move_axis(torch.from_numpy(volume), axis, target).numpy(), expected)
    parts = split(volume, 2, 3)
    assert [part.shape[3] for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(parts, 3), volume)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_found(value):
    planes = np.full((3, 2, 4), 1e38, np.float32)
    assert NUMPY.is_finite(planes)
    assert TORCH.is_finite(torch.from_numpy(planes))
    planes[1, 0, 2] = value
    assert not NUMPY.is_finite(planes)
    assert not TORCH.is_finite(torch.from_numpy(planes))


def test_types_are_changed_alike():
    values = np.float32([1.0004, 70000, -1e-8])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(*both("half", values))
    np.testing.assert_array_equal(*both("float32", values[::2].astype(np.float16)))
    target = np.zeros(3, np.float16)
    for backend, given_values in ((NUMPY, values), (TORCH, torch.from_numpy(values))):
        with np.errstate(over="ignore"):
            backend.write(target, given_values)
        np.testing.assert_array_equal(target, torch.from_numpy(values).half().numpy())


def test_threads_are_those_of_torch_or_as_the_environment_says(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert num_threads() == 5
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setattr("seg25d.core.backend.available_cores", lambda: 7)
    assert num_threads() == 7
