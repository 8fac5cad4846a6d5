"""Schedules at points worked out by hand."""

import pytest

from seg25d.training.schedules import SCHEDULES, learning_rate_factor


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_at_one(name: str) -> None:
    assert learning_rate_factor(name, 0.0, 0.0) == 1


def test_cosine_and_poly_by_hand() -> None:
    assert learning_rate_factor("cosine", 0.5, 0) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 1.2, 0) == pytest.approx(0)
    assert learning_rate_factor("poly", 0.5, 0) == pytest.approx(0.5**0.9)
    assert learning_rate_factor("constant", 0.9, 0) == 1


def test_warmup_rises_from_just_above_zero() -> None:
    assert learning_rate_factor("constant", 0.0, 0.1) == 0.01
    assert learning_rate_factor("constant", 0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor("constant", 0.1, 0.1) == 1
