"""What the self-test computes: right layers and networks pass, wrong ones are seen."""

import itertools
import random

import pytest
import torch
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.machine.layers import (
    LIMITS,
    Trial,
    known_troubles,
    random_convolutions,
    random_other_layers,
    relative_error,
)
from seg25d.machine.networks import Comparison, compare_update, seconds_per_update, small_networks
from seg25d.networks.convolutions import Conv3d
from seg25d.planning.network_rules import NETWORK_RULES

CPU = torch.device("cpu")
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@PRECISIONS
def test_known_troubles_are_none_here(dtype: torch.dtype) -> None:
    for trial in known_troubles():
        assert relative_error(trial, Execution(CPU, dtype)) <= LIMITS[dtype], trial.words


@PRECISIONS
@pytest.mark.parametrize("kind", ["2D", "transposed 2D", "3D", "transposed 3D", "others"])
def test_random_layers_are_right_and_the_same_for_a_seed(kind: str, dtype: torch.dtype) -> None:
    def trials() -> list[Trial]:
        rng = random.Random(5)
        if kind == "others":
            return list(itertools.islice(random_other_layers(rng), 8))
        dims = 3 if "3D" in kind else 2
        return list(itertools.islice(random_convolutions(dims, rng, transposed=kind.startswith("transposed")), 4))

    first, again = trials(), trials()
    assert [trial.words for trial in first] == [trial.words for trial in again]
    assert all(torch.equal(one.images, other.images) for one, other in zip(first, again, strict=True))
    for trial in first:
        assert relative_error(trial, Execution(CPU, dtype)) <= LIMITS[dtype], trial.words


class Broken(nn.Module):
    """A convolution that is wrong where autocast is on."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = Conv3d(2, 4, 3, padding=1), how

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.conv(images)
        if torch.is_autocast_enabled("cpu") and self.how == "result":
            return 1.1 * result
        if torch.is_autocast_enabled("cpu") and self.how == "gradient":
            return result + 0.1 * (result - result.detach())
        if torch.is_autocast_enabled("cpu") and self.how == "nan":
            self.conv.weight.register_hook(lambda gradient: gradient * torch.nan)
        return result


@pytest.mark.parametrize("how", ["result", "gradient", "nan"])
def test_a_wrong_layer_is_seen(how: str) -> None:
    trial = Trial(how, Broken(how), torch.randn(1, 2, 6, 6, 6), behind=False)
    assert not relative_error(trial, Execution(CPU, torch.bfloat16)) <= LIMITS[torch.bfloat16]


def test_every_network_of_the_registry_is_compared() -> None:
    with torch.device("meta"):
        names = [name for name, *_ in small_networks()]
    assert names == [f"{name} in {dims}D" for name, rule in NETWORK_RULES.items() for dims in sorted(rule.dims)]


@PRECISIONS
def test_an_update_of_a_network_is_right(dtype: torch.dtype) -> None:
    name, network, images = next(each for each in small_networks() if each[0] == "vnet in 2D")
    comparison = compare_update(network, images, Execution(CPU, dtype))
    assert comparison.is_right(dtype), f"{name}: {comparison.words}"


def test_a_wrong_update_is_seen() -> None:
    class Negated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, images: Tensor) -> list[tuple[Tensor, float]]:
            sign = -1 if torch.is_autocast_enabled("cpu") else 1
            return [(sign * self.conv(images), 1.0)]

    comparison = compare_update(Negated(), torch.randn(2, 2, 8, 8), Execution(CPU, torch.bfloat16))
    assert not comparison.is_right(torch.bfloat16)
    assert not Comparison(float("nan"), 1.0).is_right(torch.bfloat16)
    assert not Comparison(0.0, float("nan")).is_right(torch.float32)


def test_updates_are_timed_on_one_thread_and_the_rest_has_its_threads_back() -> None:
    before = torch.get_num_threads()
    seconds = seconds_per_update([Execution(CPU, torch.float32)])
    assert len(seconds) == 1
    assert seconds[0] > 0
    assert torch.get_num_threads() == before
