"""Schedules against torch's own, against values worked out by hand, and cut off in the middle."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau, StepLR

from seg25d.core.lengths import num_epochs_to_best
from seg25d.training.config import TrainingConfig
from seg25d.training.schedules import SCHEDULES, Moment, is_over_early, learning_rate_factor

LOSSES = (0.9, 0.8, 0.85, 0.8, 0.81, 0.79, None, 0.8, 0.8, 0.8, 0.9, 0.9, 0.7, 0.71, 0.72)
"""Lowest so far after epochs 1, 2, 6 and 13."""


def config(schedule: str, **settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"schedule": schedule, "warmup": 0.0, "learning_rate": 0.1} | settings)


def factor(schedule: str, progress: float, losses: tuple[float | None, ...] = (), **settings: object) -> float:
    return learning_rate_factor(config(schedule, **settings), Moment(progress, losses))


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_at_one(name: str) -> None:
    assert factor(name, 0.0) == 1


def test_cosine_and_poly_by_hand() -> None:
    assert factor("cosine", 0.5) == pytest.approx(0.5)
    assert factor("cosine", 1.2) == pytest.approx(0)
    assert factor("cosine", 0.5, lowest_learning_rate=0.02) == pytest.approx(0.6)
    assert factor("poly", 0.5) == pytest.approx(0.5**0.9)
    assert factor("poly", 0.99, lowest_learning_rate=0.02) == pytest.approx(0.2)
    assert factor("constant", 0.9) == 1


def test_warmup_rises_from_just_above_zero() -> None:
    assert factor("constant", 0.0, warmup=0.1) == 0.01
    assert factor("constant", 0.05, warmup=0.1) == pytest.approx(0.5)
    assert factor("constant", 0.1, warmup=0.1) == 1


def test_restarts_are_those_of_torch(optimizer: torch.optim.Optimizer) -> None:
    theirs = CosineAnnealingWarmRestarts(optimizer, T_0=25, eta_min=1e-3)
    for quarter in range(400):
        theirs.step(quarter / 4)
        ours = factor("cosine_restarts", quarter / 400, epochs=100, schedule_epochs=25, lowest_learning_rate=1e-3)
        assert 0.1 * ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9), quarter


@pytest.mark.parametrize("epochs", [7, 30, 100])
def test_steps_are_those_of_torch(optimizer: torch.optim.Optimizer, epochs: int) -> None:
    theirs = StepLR(optimizer, step_size=5, gamma=1 / 3)
    for epoch in range(epochs):
        for share in (0, 0.5, 0.99):
            ours = factor("step", (epoch + share) / epochs, epochs=epochs, schedule_epochs=5, schedule_factor=1 / 3)
            assert 0.1 * ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9), (epoch, share)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("epochs", [30, 49, 60, 98, 103])
@pytest.mark.parametrize("per_epoch", [1, 7, 90])
def test_steps_come_with_the_update_that_begins_an_epoch_whatever_the_rounding(epochs: int, per_epoch: int) -> None:
    for epoch in range(1, epochs):
        first, updates = epoch * per_epoch, epochs * per_epoch
        factors = [factor("step", now / updates, epochs=epochs, schedule_epochs=1) for now in (first - 1, first)]
        assert factors == [0.5 ** (epoch - 1), 0.5**epoch]


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_plateau_is_that_of_torch_with_one_epoch_more(optimizer: torch.optim.Optimizer, patience: int) -> None:
    theirs = ReduceLROnPlateau(optimizer, factor=0.5, patience=patience - 1, threshold=0)
    for epoch, loss in enumerate(LOSSES, 1):
        theirs.step(float("inf") if loss is None else loss)
        ours = factor("plateau", epoch / 20, LOSSES[:epoch], schedule_epochs=patience)
        assert 0.1 * ours == pytest.approx(theirs.get_last_lr()[0]), epoch


def test_plateau_by_hand() -> None:
    """Three epochs without improvement halve the rate: 3 to 5, 7 to 9, 10 to 12."""
    factors = [factor("plateau", 0.1, LOSSES[:epoch], schedule_epochs=3) for epoch in range(len(LOSSES) + 1)]
    assert factors == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    assert factor("plateau", 0.5, LOSSES, schedule_epochs=1, lowest_learning_rate=0.03) == pytest.approx(0.3)


def test_a_run_ends_when_it_has_not_become_better_for_long_enough() -> None:
    over = [is_over_early(config("constant", early_stopping=5), LOSSES[:epoch]) for epoch in range(len(LOSSES) + 1)]
    # The sixth epoch is the best until the thirteenth: from the eleventh on five have passed.
    assert [epoch for epoch, now in enumerate(over) if now] == [11, 12]
    assert not is_over_early(config("constant"), (1.0,) * 100)
    assert not is_over_early(config("constant", early_stopping=2, time_budget_seconds=60), (1.0,) * 100)
    assert is_over_early(config("constant", early_stopping=2), (None, None))
    assert not is_over_early(config("constant", early_stopping=2), (None,))


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    assert [num_epochs_to_best(LOSSES[:epoch]) for epoch in (0, 1, 4, 6, 11, 15)] == [0, 1, 2, 6, 6, 13]
    assert num_epochs_to_best((None, 0.5, 0.5)) == 2


def test_the_lowest_rate_is_no_higher_than_the_highest() -> None:
    with pytest.raises(ValueError, match="lowest_learning_rate must not be above learning_rate"):
        config("cosine", lowest_learning_rate=0.2)
