"""Muon: orthogonal updates, torch's own on matrices, AdamW on all else."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from seg25d.core import device
from seg25d.core.device import Execution, choose_execution
from seg25d.training import muon
from seg25d.training.config import TrainingConfig
from seg25d.training.muon import Muon, orthogonalise
from seg25d.training.state import TrainingState, new_state


@pytest.mark.parametrize("shape", [(8, 27), (64, 216), (216, 64), (1, 5), (3, 1)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    (result,) = orthogonalise([matrix])
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() <= values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest = left @ right
    assert (result * nearest).sum() / result.norm() / nearest.norm() > 0.97


def test_without_gradient_nothing_but_zeros() -> None:
    assert orthogonalise([torch.zeros(3, 4)])[0].tolist() == torch.zeros(3, 4).tolist()


def test_several_matrices_are_each_by_itself() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((4, 9), (9, 4), (4, 20))]
    for matrix, together in zip(matrices, orthogonalise(matrices), strict=True):
        (alone,) = orthogonalise([matrix])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("at_once", [1, 60, 1 << 22])
def test_how_many_are_orthogonalised_together_changes_nothing(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((4, 3, 3), (9, 4), (4, 20), (2, 3), (3, 2), (4, 3, 3))

    def updated() -> list[torch.Tensor]:
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        Muon([{"params": weights, "matrices": True, "weight_decay": 0.1}], 0.01).step()
        return weights

    wanted = updated()
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    torch.testing.assert_close(updated(), wanted)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_matrices_are_updated_as_torch_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    first = nn.Parameter(torch.randn(shape))
    second = nn.Parameter(first.detach().clone())
    ours = Muon([{"params": [first], "weight_decay": 0.1, "matrices": True}], 0.01)
    # Its steps are a fifth of ours.
    torchs = torch.optim.Muon([second], lr=0.05, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        before = first.detach().clone(), second.detach().clone()
        gradient = torch.randn(shape)
        first.grad, second.grad = gradient.clone(), gradient.clone()
        ours.step()
        torchs.step()
        steps = first.detach() - before[0], second.detach() - before[1]
        # torch iterates in bfloat16.
        assert (steps[0] - steps[1]).norm() < 0.03 * steps[0].norm()


def test_kernels_of_any_layout_and_layer_are_matrices() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv3d(2, 4, 3), nn.ConvTranspose2d(6, 3, 2), nn.Linear(5, 7))
    for layer in layers:
        weight = layer.weight
        before = weight.detach().clone()
        gradient = torch.randn_like(weight)
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        weight.grad = gradient
        Muon([{"params": [weight], "matrices": True}], 0.01).step()
        values = torch.linalg.svdvals((before - weight.detach()).flatten(1))
        matrix = weight.flatten(1)
        wanted = 0.01 * max(matrix.shape) ** 0.5
        assert 0.6 * wanted < values.min() <= values.max() < 1.3 * wanted


def test_no_gradient_and_no_learning_rate_change_nothing() -> None:
    kept, frozen = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    frozen.grad = torch.randn(2, 3)
    Muon([{"params": [kept], "matrices": True, "weight_decay": 0.1}], 0.1).step()
    Muon([{"params": [frozen], "matrices": True, "weight_decay": 0.1}], 0.0).step()
    assert kept.tolist() == frozen.tolist() == torch.ones(2, 3).tolist()


def test_all_else_is_updated_by_adamw() -> None:
    torch.manual_seed(0)
    first, second = (nn.Parameter(torch.ones(5)) for _ in range(2))
    ours = Muon([{"params": [first], "weight_decay": 0.1}], 0.01)
    # Five times as fast; weights decay as those of matrices do.
    torchs = torch.optim.AdamW([second], lr=0.05, weight_decay=0.02)
    for _ in range(4):
        gradient = torch.randn(5)
        first.grad, second.grad = gradient.clone(), gradient.clone()
        ours.step()
        torchs.step()
    torch.testing.assert_close(first, second)


def test_kernels_of_all_channels_are_matrices_and_depthwise_ones_are_not() -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.GroupNorm(2, 4), nn.PReLU())
    groups = new_state(model, TrainingConfig(), choose_execution("cpu")).optimizer.param_groups
    found = {
        id(parameter): (group["matrices"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }
    names = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    decay = TrainingConfig().weight_decay
    assert names["0.weight"] == (True, decay)
    assert names["1.weight"] == (False, decay)
    assert {names[name] for name in ("0.bias", "2.weight", "3.weight")} == {(False, 0.0)}


def test_without_weight_decay_kernels_are_matrices_still() -> None:
    state = new_state(nn.Conv2d(1, 2, 3), TrainingConfig(weight_decay=0), choose_execution("cpu"))
    assert [group["matrices"] for group in state.optimizer.param_groups] == [True, False]


def test_it_goes_on_where_it_was() -> None:
    def run(updates: int, model: nn.Module, optimizer: torch.optim.Optimizer, first: int = 0) -> None:
        for number in range(first, first + updates):
            torch.manual_seed(number)
            optimizer.zero_grad()
            model(torch.randn(2, 1, 6, 6)).square().sum().backward()
            optimizer.step()

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3, affine=True))
        return model, new_state(model, TrainingConfig(), choose_execution("cpu")).optimizer

    whole, optimizer = start()
    run(4, whole, optimizer)
    model, optimizer = start()
    run(2, model, optimizer)
    again, other = start()
    again.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    run(2, again, other, 2)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adam", "sgd"])
def test_a_run_goes_on_in_another_layout(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels of torch do not look at strides: on another CPU or device the moments would be scrambled."""

    def start(*, avx2: bool) -> TrainingState:
        monkeypatch.setattr(device, "computes_with_avx2", lambda: avx2)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 6, 3, padding=1, groups=2))
        return new_state(model, TrainingConfig(optimizer=optimizer), Execution(torch.device("cpu"), torch.float32))

    def run(state: TrainingState, updates: range) -> None:
        for number in updates:
            torch.manual_seed(number)
            state.optimizer.zero_grad()
            state.model(torch.randn(2, 2, 4, 5, 6)).square().sum().backward()
            state.optimizer.step()

    whole = start(avx2=False)
    run(whole, range(4))
    begun = start(avx2=False)
    run(begun, range(2))
    gone_on = start(avx2=True)
    gone_on.from_checkpoint(copy.deepcopy(begun.to_checkpoint()))
    assert not gone_on.model[0].weight.is_contiguous()
    run(gone_on, range(2, 4))
    torch.testing.assert_close(gone_on.model.state_dict(), whole.model.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_loaded_state_is_where_its_parameters_are() -> None:
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))]
    optimizer = Muon([{"params": parameters[:1], "matrices": True}, {"params": parameters[1:]}], 0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    elsewhere = [nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in parameters]
    other = Muon([{"params": elsewhere[:1], "matrices": True}, {"params": elsewhere[1:]}], 0.1)
    other.load_state_dict(optimizer.state_dict())
    assert {value.device.type for state in other.state.values() for value in state.values()} == {"meta"}


def test_other_optimizers_have_the_groups_that_they_had() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
    groups = new_state(model, TrainingConfig(optimizer="adamw"), choose_execution("cpu")).optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [2, 2]


@pytest.mark.slow
def test_the_compiler_of_torch_is_not_loaded() -> None:
    program = """
import sys, torch
from torch import nn
from seg25d.training.muon import Muon

layer = nn.Linear(4, 4)
groups = [{"params": [layer.weight], "matrices": True}, {"params": [layer.bias], "matrices": False}]
optimizer = Muon(groups, 0.01)
for _ in range(2):
    optimizer.zero_grad()
    layer(torch.randn(3, 4)).sum().backward()
    optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
