"""How the best is chosen, on cases whose probabilities are written down: nothing is trained."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from seg25d.core.workspace import RunFolder
from seg25d.selection import find_best as module
from seg25d.selection.best import Best
from seg25d.selection.candidates import Ensemble
from seg25d.selection.cost import Cost
from seg25d.selection.find_best import FindOptions, find_best
from seg25d.selection.probability_maps import write_probability_map
from seg25d.selection.scoring import Validation

SECONDS = {"good": 3.0, "poor": 1.0, "left": 2.0, "right": 2.0}


def cost(seconds: float) -> Cost:
    return Cost(num_parameters=10, flops_per_case=5.0, seconds_per_case=seconds, peak_memory_gb=seconds)


def with_run(validation: Validation, name: str, found: np.ndarray) -> Validation:
    """One more run, which gives a voxel the probability `found` (D, H, W)."""
    run = replace(next(iter(validation.runs.values())), run=RunFolder(root=validation.scores.parent / name))
    for case in validation.cases:
        write_probability_map(run.probability_map(case), np.stack([1 - found, found]).astype(np.float32))
    return replace(validation, runs={**validation.runs, name: run})


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch):
    """Chooses among the runs of a validation; costs are those above."""

    def chosen(validation: Validation, **options: object) -> Best:
        monkeypatch.setattr(module, "_prepare_validation", lambda *_: validation)
        monkeypatch.setattr(module, "predict_validation", lambda *_: None)
        monkeypatch.setattr(module, "_find_cost", lambda run, *_: cost(SECONDS[run.name]))
        runs = list(validation.runs.values())
        return find_best("Dataset001_Tiny", runs, SimpleNamespace(root=None), validation.scores, FindOptions(**options))

    return chosen


def test_the_run_with_the_best_dice_is_chosen_if_it_may_cost_so_much(validation: Validation, choose) -> None:
    best = choose(validation)
    assert (best.name, best.dice) == ("good", 1)
    assert [row.name for row in best.candidates] == ["good", "poor", "good + poor"]
    limited = choose(validation, max_seconds_per_case=2.0)
    assert (limited.name, [row.within_limits for row in limited.candidates]) == ("poor", [True, False])
    assert limited.dice == pytest.approx(2 / 3)


@pytest.fixture
def halves(validation: Validation, truth: np.ndarray) -> Validation:
    """Two runs that are sure of one half of the organ, and unsure, but rightly so, of the other."""
    columns = np.arange(4)
    poor = replace(validation, runs={"poor": validation.runs["poor"]})
    for name, own in (("left", columns < 2), ("right", columns >= 2)):
        poor = with_run(poor, name, np.where(truth == 1, np.where(own, 0.9, 0.4), 0.1))
    return poor


def test_an_ensemble_is_chosen_where_runs_complete_each_other_and_costs_what_they_cost_together(
    halves: Validation, choose
) -> None:
    best = choose(halves)
    assert (best.name, best.dice) == ("left + right", 1)
    assert [member.weight for member in best.members] == [0.5, 0.5]
    assert best.cost is not None
    assert (best.cost.seconds_per_case, best.cost.peak_memory_gb) == (4.0, 2.0)
    assert choose(halves, ensembles=False).name in ("poor", "left", "right")
    # What costs too much is not even scored.
    assert "left + right" not in [row.name for row in choose(halves, max_seconds_per_case=3.5).candidates]


def test_runs_that_get_no_weight_are_left_out(validation: Validation, halves: Validation) -> None:
    # The good run alone is best: an ensemble of one is nothing new.
    assert module._fit_weights(validation, Ensemble(("good", "poor"))) is None
    both = with_run(halves, "useless", np.full((2, 4, 4), 0.9))
    fitted = module._fit_weights(both, Ensemble(("left", "right", "useless")))
    assert fitted == Ensemble(("left", "right"), (0.5, 0.5))


def test_costs_are_measured_on_the_case_of_middle_size() -> None:
    shapes = {"a": (9, 9, 9), "b": (1, 2, 3), "c": (4, 4, 4), "d": (5, 5, 5), "e": (4, 2, 8)}
    records = {case: SimpleNamespace(grid=SimpleNamespace(shape=shape)) for case, shape in shapes.items()}
    # Of an even number the smaller one of the middle.
    for cases, middle in (("abcde", "c"), ("abd", "d"), ("abcd", "c"), ("a", "a")):
        assert (
            module._middle_case(SimpleNamespace(cases=tuple(cases), store=SimpleNamespace(record=records.get)))
            == middle
        )
