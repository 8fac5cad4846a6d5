"""How the best is chosen, on cases whose probabilities are written down: nothing is trained."""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seg25d.cli import find_best_configuration as command
from seg25d.core import progress
from seg25d.core.unfinished import unfinished_folder
from seg25d.core.workspace import RunFolder
from seg25d.inference.postprocessing import PostProcessing
from seg25d.selection import calibrate, fit_postprocessing, scoring
from seg25d.selection import find_best as module
from seg25d.selection.best import Best
from seg25d.selection.candidates import Ensemble
from seg25d.selection.cost import Cost
from seg25d.selection.find_best import FindOptions, find_best
from seg25d.selection.ranking import describe_best, paired_p_value
from seg25d.selection.scoring import Validation
from tests.selection.maps import write_probability_map

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
    halves: Validation, choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_CASES", 2)
    best = choose(halves)
    assert (best.name, best.dice) == ("left + right", 1)
    assert [member.weight for member in best.members] == [0.5, 0.5]
    assert best.cost is not None
    assert (best.cost.seconds_per_case, best.cost.peak_memory_gb) == (4.0, 2.0)
    assert choose(halves, ensembles=False).name in ("poor", "left", "right")
    # What costs too much is not even scored.
    assert "left + right" not in [row.name for row in choose(halves, max_seconds_per_case=3.5).candidates]


def of_ours(validation: Validation) -> Validation:
    """The same runs, predicted by us."""
    runs = {name: replace(run, store="store") for name, run in validation.runs.items()}
    return replace(validation, runs=runs)


def test_few_cases_choose_neither_ensembles_nor_post_processing(
    halves: Validation, choose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "fit_postprocessing", lambda *_: pytest.fail("fitted to two cases"))
    best = choose(of_ours(halves), fit_weights=True)
    assert len(best.members) == 1
    assert best.dice == max(row.dice for row in best.candidates if len(row.runs) == 1)
    assert "left + right" in [row.name for row in best.candidates], "it is told all the same"
    assert all(row.weights is None for row in best.candidates)
    assert "fewer than 6 cases" in best.reasons["choice"]
    assert "fewer than 6 cases" in best.reasons["postprocessing"]
    assert "may be chance" in caplog.text
    text = describe_best(best)
    assert f"choice: {best.reasons['choice']}" in text
    assert best.reasons["postprocessing"] in text


def test_the_help_says_how_many_cases_are_enough() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    told = " ".join(parser.format_help().split())
    assert told.count(f"fewer than {module.LEAST_CASES} cases") == 2


def test_enough_cases_are_those_with_which_a_test_can_tell_something() -> None:
    assert paired_p_value(dict.fromkeys(range(module.LEAST_CASES), 1.0), dict.fromkeys(range(9), 0.0)) <= 0.05
    assert paired_p_value(dict.fromkeys(range(module.LEAST_CASES - 1), 1.0), dict.fromkeys(range(9), 0.0)) > 0.05


def test_what_enough_cases_choose_has_its_reasons_without_a_warning(
    halves: Validation, choose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LEAST_CASES", 2)
    monkeypatch.setattr(module, "fit_postprocessing", lambda _, __, before: (PostProcessing(), before))
    ours = of_ours(halves)
    reasons = choose(ours, max_seconds_per_case=100.0).reasons
    assert reasons["choice"] == (
        "the best mean Dice of all configurations and ensembles within the limits (--max-seconds-per-case 100) over 2 "
        "cases"
    )
    assert reasons["postprocessing"] == "no step raises the mean Dice"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert choose(ours, ensembles=False).reasons["choice"] == "the best mean Dice of all configurations over 2 cases"


def test_models_that_were_trained_on_the_cases_are_named(
    validation: Validation, choose, caplog: pytest.LogCaptureFixture
) -> None:
    runs = {name: replace(run, trained_on={0: ("a", "b"), 1: ("a",)}) for name, run in validation.runs.items()}
    best = choose(replace(validation, runs=runs))
    assert "trained on 1 of the 2 cases" in best.reasons["cases"]
    assert best.reasons["cases"] in caplog.text


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


PASSES = (
    (module, "_sums_of_case"),
    (fit_postprocessing, "_count_case"),
    (fit_postprocessing, "_find_case_components"),
    (calibrate, "_sums_of_case"),
)


def test_no_pass_over_the_cases_begins_anew(
    halves: Validation, choose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LEAST_CASES", 2)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(progress, "SHARE_OF_WRITES", math.inf)
    runs = {name: replace(run, threshold=0.5, store="store") for name, run in halves.runs.items()}
    ours = replace(halves, runs=runs)
    undisturbed = choose(replace(ours, scores=tmp_path / "undisturbed"), fit_weights=True)
    done: list[tuple[object, str]] = []

    def watched(place: tuple[object, str], *, dying: bool) -> Callable[..., object]:
        function = getattr(*place)

        def call(*arguments: object, **others: object) -> object:
            case = arguments[-1].case
            if dying and case == "b":
                raise KeyboardInterrupt
            done.append((place, case))
            return function(*arguments, **others)

        return call

    for last in (*PASSES, None):
        with pytest.MonkeyPatch.context() as patch:
            for place in PASSES:
                patch.setattr(*place, watched(place, dying=place == last))
            if last is None:
                assert choose(ours, fit_weights=True) == undisturbed
            else:
                with pytest.raises(KeyboardInterrupt):
                    choose(ours, fit_weights=True)
    assert done == [(place, case) for place in PASSES for case in "ab"]


def test_what_was_kept_of_passes_goes_when_the_choice_is_written(validation: Validation, choose) -> None:
    kept = unfinished_folder(scoring.passes_of(validation.scores), "finding components")
    kept.mkdir(parents=True)
    best = validation.scores / "best.json"
    folder = SimpleNamespace(store=lambda name: validation.store.folder)
    with pytest.raises(KeyboardInterrupt), module.held([], folder, validation.scores, best):
        raise KeyboardInterrupt
    assert kept.exists()
    with module.held([], folder, validation.scores, best):
        choose(validation)
    assert not kept.exists()
